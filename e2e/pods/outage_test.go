package pods_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keymount/keymount/e2e/cluster"
	"github.com/keymount/keymount/e2e/vaulttest"
)

const (
	// outageLasts is how long a store stays away: several tries of the kubelet and of the driver.
	outageLasts = 45 * time.Second
	// recoveryLimit is the kubelet's longest pause between two tries, and time to start.
	recoveryLimit = 150 * time.Second
)

// outage is a store of keymount.yaml that can be made unreachable in one way.
type outage struct {
	server  *vaulttest.Server
	address string // of the proxy in front of it
	ill     atomic.Bool
	illness http.HandlerFunc // what the proxy answers then
	begin   func(*testing.T)
	end     func(*testing.T)
}

// newOutages makes a store for each way in which a store can fail.
func newOutages(t *testing.T) map[string]*outage {
	t.Helper()
	shared := vaulttest.Start(t)
	outages := map[string]*outage{
		"down":      {server: shared},
		"hanging":   {server: shared, illness: hang},
		"throttled": {server: shared, illness: throttle},
		"killed":    {server: shared, illness: hang},
		"sealed":    {server: vaulttest.Start(t)},
	}
	for _, o := range outages {
		o.address = "127.0.0.1:0"
		o.begin = func(*testing.T) { o.ill.Store(true) }
		o.end = func(*testing.T) { o.ill.Store(false) }
	}
	sealed, down := outages["sealed"], outages["down"]
	sealed.begin = func(t *testing.T) { t.Helper(); sealed.server.Seal(t) }
	sealed.end = func(t *testing.T) { t.Helper(); sealed.server.Unseal(t) }
	for kind, o := range outages {
		stop := o.serve(t)
		if kind == "down" { // nobody listens, as when its process has ended
			down.begin = func(*testing.T) { stop() }
			down.end = func(t *testing.T) { t.Helper(); down.serve(t) }
		}
	}
	return outages
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func throttle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = w.Write([]byte(`{"errors":["request path is rate limited"]}`))
}

// serve passes requests on while the store is well, until it is stopped or the suite
// ends. A second time it listens where it did the first time.
func (o *outage) serve(t *testing.T) (stop func()) {
	t.Helper()
	target, err := url.Parse(o.server.Address)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(target)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", o.address)
	if err != nil {
		t.Fatal(err)
	}
	o.address = listener.Addr().String()
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.ill.Load() {
			o.illness(w, r)
			return
		}
		pass.ServeHTTP(w, r)
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	stop = func() { _ = server.Close(); <-ended }
	t.Cleanup(stop)
	return stop
}

// No pod starts with missing files, whatever is wrong with its store, and each
// starts by itself when the store is back. On the node with the driver's defaults
// the driver would take a second try for a finished mount, were it answered with
// another code.
func (s *suite) testNoEmptyMounts(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"down", "hanging", "throttled", "sealed"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o := s.outage(t, kind)
			scenes := []*scene{s.newScene(t, kind+"-recommended", "recommended"), s.newScene(t, kind+"-defaults", "defaults")}
			o.begin(t)
			for _, c := range scenes {
				c.class("app", "store: "+kind+"\nrole: e2e\nobjects: \"[{path: secret/e2e/db, key: password, file: password}]\"", "")
				c.pod("app", "app")
			}
			noneStarts(t, outageLasts, scenes)
			o.end(t)
			began := time.Now()
			for _, c := range scenes {
				c.ready(c.t, c.namespace, "app", recoveryLimit-time.Since(began))
				s.report("store %s, %s: the pod runs %.0fs after the store's return", kind, c.namespace, time.Since(began).Seconds())
				if err := c.emptyMount("app"); err != nil {
					t.Error(err)
				}
				c.holds("password", "fake-1", readyLimit)
			}
		})
	}
}

// noneStarts watches the pods for a while.
func noneStarts(t *testing.T, long time.Duration, scenes []*scene) {
	t.Helper()
	started := errors.New("started")
	err := retry(t, long, func() error {
		for _, c := range scenes {
			if hasStarted(c.kube.pod(t, c.namespace, "app")) {
				return nil
			}
		}
		return started
	})
	if err == nil {
		t.Error("a pod has started while its store was away")
	}
}

// emptyMount is the error that the container was started without the file password, or
// with a directory of the node's disk in place of the tmpfs.
func (c *scene) emptyMount(pod string) error {
	c.t.Helper()
	log := c.logs(c.t, c.namespace, pod)
	if !regexp.MustCompile(`(?m)^tmpfs /secrets tmpfs `).MatchString(log) {
		return fmt.Errorf("the container was started with no tmpfs at /secrets: %q", log)
	}
	if !regexp.MustCompile(`(?m)^files: .*\bpassword\b`).MatchString(log) {
		return fmt.Errorf("the container was started without its file: %q", log)
	}
	return nil
}

// The provider dies, again and again, while it answers. What it cannot close itself
// the driver's setting rotationPollInterval=0s does, on this node.
func (s *suite) testKilledProvider(t *testing.T) {
	node := s.ownNode(t, "restarts")
	o := s.outage(t, "killed")
	c := s.newScene(t, "killed", "restarts")
	o.begin(t)
	c.class("app", "store: killed\nrole: e2e\nobjects: \"[{path: secret/e2e/db, key: password, file: password}]\"", "")
	c.pod("app", "app")
	for range 3 {
		kill(t, node, "keymount")
		noneStarts(t, 10*time.Second, []*scene{c})
	}
	o.end(t)
	c.ready(t, c.namespace, "app", recoveryLimit)
	if err := c.emptyMount("app"); err != nil {
		t.Error(err)
	}
	c.holds("password", "fake-1", readyLimit)
}

// The proof that emptyMount can fail, and the reason for the setting that is
// recommended: a provider that answers Unavailable three times, on a node with the
// driver's default interval and on one with 0s.
func (s *suite) testStubProvider(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		node  string
		empty bool
	}{{"defaults", true}, {"recommended", false}} {
		t.Run(test.node, func(t *testing.T) {
			t.Parallel()
			node := s.ownNode(t, test.node)
			stub := newStub(t, node)
			c := s.newScene(t, "stub-"+test.node, test.node)
			c.provider = "stub"
			c.class("app", "of: the stub", "")
			c.running("app", "app")
			err := c.emptyMount("app")
			switch {
			case test.empty && err == nil:
				t.Errorf("the stub's %d failures did not lead to an empty mount: the tests of outages prove nothing", stub.failures.Load())
			case !test.empty && err != nil:
				t.Errorf("with rotationPollInterval=0s: %v", err)
			}
		})
	}
}

// Every pod of a storm starts while keymount is restarted in the middle of it, and
// versions agree across the restart.
func (s *suite) testStorm(t *testing.T) {
	node := s.ownNode(t, "restarts")
	c := s.newScene(t, "storm", "restarts")
	s.put(t, "e2e/storm", map[string]any{"password": "fake-1"})
	c.class("app", "store: prod\nrole: e2e\nobjects: \"[{path: secret/e2e/storm, key: password, file: password}]\"", "")
	c.running("app-0", "app")
	before, _ := c.statusObject("app-0", "app")

	const pods = 20
	for i := range pods {
		c.pod(fmt.Sprintf("app-%d", i+1), "app")
	}
	within(t, readyLimit, "the storm has begun", func() error {
		if c.mounts("app-1")+c.mounts("app-2")+c.mounts("app-3") == 0 {
			return errors.New("no mount yet")
		}
		return nil
	})
	kill(t, node, "keymount")
	began := time.Now()
	for i := range pods {
		c.ready(t, c.namespace, fmt.Sprintf("app-%d", i+1), recoveryLimit)
	}
	s.report("storm: %d pods run %.0fs after keymount was killed among them", pods, time.Since(began).Seconds())
	for i := range pods {
		pod := fmt.Sprintf("app-%d", i+1)
		if err := c.emptyMount(pod); err != nil {
			t.Error(err)
		}
		if after, _ := c.statusObject(pod, "app"); after["password"] != before["password"] {
			t.Errorf("%s has version %s, before the restart it was %s", pod, after["password"], before["password"])
		}
	}
}

// kill ends the processes of a program on a node, as the kernel does when memory is
// short.
func kill(t *testing.T, node *cluster.Node, program string) {
	t.Helper()
	within(t, time.Minute, program+" runs", func() error {
		pids, err := node.PIDs(program)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return errors.New("there is no such process")
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return err
			}
		}
		return nil
	})
}

// reporter prints figures when the tests are over.
type reporter struct {
	mu    sync.Mutex
	lines []string
}

func (r *reporter) report(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *reporter) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}
