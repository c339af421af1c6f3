package pods_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strconv"
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
	// It ends during the fourth one, which waits for it.
	outageLasts = 90 * time.Second
	// mountDeadline is keymount's default.
	mountDeadline = 25 * time.Second
	// triesWanted is how many tries of a pod must have failed before the store returns.
	// The second one is what finds a folder that was kept.
	triesWanted = 3
	// recoveryLimit is the kubelet's longest pause between two tries, and time to start.
	recoveryLimit = 150 * time.Second
	// backWithin is how long after a store's return the mount of a waiting pod may take, and
	// its container to start.
	backWithin = 5*time.Second + 10*time.Second
	// watched is how long a pod that must not start is looked at.
	watched = 15 * time.Second
)

// fromOutage mounts the secret that every store of an outage has.
const fromOutage = `
store: %s
role: e2e
objects: "[{path: secret/e2e/db, key: password, file: password}]"
`

// outage is a store of keymount.yaml that can be made unreachable in one way.
type outage struct {
	server  *vaulttest.Server
	address string // of the proxy in front of it
	ill     atomic.Bool
	illness http.HandlerFunc // what the proxy answers then
	held    atomic.Int64     // requests that it is answering so at present
	ended   atomic.Int64     // and those it was
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
		"killed-2m": {server: shared, illness: hang},
		"storm":     {server: shared, illness: hang},
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

// hang answers nothing. That whoever asks has gone is seen only once all that he sent
// was read.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

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
		if !o.ill.Load() {
			pass.ServeHTTP(w, r)
			return
		}
		if r.URL.Path == "/v1/sys/health" { // no pod waits for a probe of keymount's own
			o.illness(w, r)
			return
		}
		o.held.Add(1)
		o.illness(w, r)
		o.ended.Add(1)
		o.held.Add(-1)
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	stop = func() { _ = server.Close(); <-ended }
	t.Cleanup(stop)
	return stop
}

// asked is the error that nobody waits for an answer of the store.
func (o *outage) asked() error {
	if o.held.Load() == 0 {
		return errors.New("it holds no request")
	}
	return nil
}

// No pod starts with missing files, whatever is wrong with its store, and each
// starts by itself when the store is back. On the node with the driver's defaults
// the second try would find the folder of the first and start the pod, were the
// first answered with a code that is not final. With 0s it would not.
func (s *suite) testNoEmptyMounts(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"down", "hanging", "throttled", "sealed"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o := s.outage(t, kind)
			scenes := []*scene{s.newScene(t, kind+"-recommended", "recommended"), s.newScene(t, kind+"-defaults", "defaults")}
			o.begin(t)
			for _, c := range scenes {
				c.class("app", fmt.Sprintf(fromOutage, kind), "")
				c.start("app", "app")
			}
			noneStarts(t, outageLasts, scenes...)
			for _, c := range scenes {
				failed := c.failedTries("app")
				s.report("store %s, %s: %d tries failed within %s", kind, c.namespace, failed, outageLasts)
				if failed < triesWanted {
					t.Errorf("%s: %d tries failed, want %d: this test has not seen what comes after one", c.namespace, failed, triesWanted)
				}
			}
			o.end(t)
			began := time.Now()
			for _, c := range scenes {
				c.ready(c.t, c.namespace, "app", recoveryLimit-time.Since(began))
				took := time.Since(began)
				s.report("store %s, %s: the pod runs %.1fs after the store's return", kind, c.namespace, took.Seconds())
				if took > backWithin {
					t.Errorf("%s: the pod runs %s after the store's return, want %s at most", c.namespace, took, backWithin)
				}
				c.startedFull("app")
				c.holds("password", "fake-1", readyLimit)
			}
		})
	}
}

// noneStarts watches the pods called app for a while.
func noneStarts(t *testing.T, long time.Duration, scenes ...*scene) {
	t.Helper()
	waiting := errors.New("none has started")
	err := scenes[0].retry(t, long, func() error {
		for _, c := range scenes {
			if hasStarted(c.pod(t, c.namespace, "app")) {
				return nil
			}
		}
		return waiting
	})
	if err == nil {
		t.Error("a pod has started that must not")
	}
}

// emptyMount says what was wrong when the container was started: with another thing in
// the place of the volume, such as a folder of the node, and without the file password.
func (c *scene) emptyMount(pod string) (noVolume, noFile error) {
	c.t.Helper()
	var log string
	c.within(c.t, time.Minute, pod+" says what it was started with", func() error {
		if log = c.logs(c.t, c.namespace, pod); !strings.Contains(log, "files:") {
			return fmt.Errorf("it says %q", log)
		}
		return nil
	})
	if !volumeMounted.MatchString(log) {
		noVolume = fmt.Errorf("%s was started with no tmpfs of its own at /secrets: %q", pod, log)
	}
	if !regexp.MustCompile(`(?m)^files: .*\bpassword\b`).MatchString(log) {
		noFile = fmt.Errorf("%s was started without its file: %q", pod, log)
	}
	return noVolume, noFile
}

func (c *scene) startedFull(pod string) {
	c.t.Helper()
	if err := errors.Join(c.emptyMount(pod)); err != nil {
		c.t.Error(err)
	}
}

// The provider dies while it answers, and again when the driver tries again. Three
// deaths within one call of the kubelet are Unavailable to the driver, whatever
// keymount does, and only rotationPollInterval=0s keeps the next call from taking the
// empty folder for a mount: hence three where it is set, and two with the default.
// What three lead to there is shown by a stub, see testStubProvider.
func (s *suite) testKilledProvider(t *testing.T) {
	for _, test := range []struct {
		node, store string
		deaths      int
	}{{"restarts", "killed", tries}, {"restarts-2m", "killed-2m", tries - 1}} {
		t.Run(test.node, func(t *testing.T) {
			t.Parallel()
			s.killWhileMounting(t, test.node, test.store, test.deaths)
		})
	}
}

func (s *suite) killWhileMounting(t *testing.T, purpose, store string, deaths int) {
	t.Helper()
	node, o := s.ownNode(t, purpose), s.outage(t, store)
	c := s.newScene(t, "killed-"+purpose, purpose)
	o.begin(t)
	c.class("app", fmt.Sprintf(fromOutage, store), "")
	c.start("app", "app")
	for range deaths {
		c.within(t, time.Minute, "a mount waits for the store", o.asked)
		s.killKeymount(t, node, o)
	}
	const cutOff = "code = Unavailable"
	c.tells("FailedMount: ", "rpc error: ")
	if deaths == tries {
		c.tells("FailedMount: ", cutOff)
	} else if events := strings.Join(c.events(t, c.namespace, "app"), "\n"); strings.Contains(events, cutOff) {
		t.Errorf("%d deaths were not survived by one call of the kubelet: %s", deaths, events)
	}
	noneStarts(t, watched, c)
	o.end(t)
	c.ready(t, c.namespace, "app", recoveryLimit)
	c.startedFull("app")
	c.holds("password", "fake-1", readyLimit)
}

// The proof that emptyMount can fail, and the reason for the setting that is
// recommended: providers that answer Unavailable three times, or are cut off three
// times, on a node with the driver's default interval and on one with 0s.
func (s *suite) testStubProvider(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		node, provider string
		fail           func(*stub) error
		empty          bool
	}{
		{"defaults", "unavailable", answerUnavailable, true},
		{"recommended", "unavailable", answerUnavailable, false},
		{"defaults", "dying", dropConnection, true},
		{"recommended", "dying", dropConnection, false},
	} {
		t.Run(test.provider+"-"+test.node, func(t *testing.T) {
			t.Parallel()
			node := s.ownNode(t, test.node)
			stub := newStub(t, node, test.provider, test.fail)
			c := s.newScene(t, "stub-"+test.provider+"-"+test.node, test.node)
			c.provider = test.provider
			c.class("app", "of: the stub", "")
			c.running("app", "app")
			if stub.failed() != tries {
				t.Errorf("the stub failed %d times, want %d", stub.failed(), tries)
			}
			noVolume, noFile := c.emptyMount("app")
			switch {
			case test.empty && (noVolume == nil || noFile == nil):
				t.Errorf("the stub's failures did not lead to an empty mount (%v; %v): the tests of outages prove nothing", noVolume, noFile)
			case !test.empty && (noVolume != nil || noFile != nil):
				t.Errorf("with rotationPollInterval=0s: %v; %v", noVolume, noFile)
			}
		})
	}
}

// Every pod of a storm starts while keymount is killed in the middle of it, and
// versions agree across the restart.
func (s *suite) testStorm(t *testing.T) {
	node, o := s.ownNode(t, "restarts"), s.outage(t, "storm")
	c := s.newScene(t, "storm", "restarts")
	if _, err := o.server.Client(t).KVv2("secret").Put(t.Context(), "e2e/storm", map[string]any{"token": "fake-2"}); err != nil {
		t.Fatal(err)
	}
	c.class("app", fmt.Sprintf(fromOutage, "storm"), "")
	c.class("storm", `
store: storm
role: e2e
objects: |
  - {path: secret/e2e/db, key: password, file: password}
  - {path: secret/e2e/storm, key: token, file: token}
`, "") // one more secret, so that each of the storm's pods has to ask
	c.running("app-0", "app")
	before, _ := c.statusObject("app-0", "app")

	o.begin(t)
	var storm []string
	for i := range 20 {
		storm = append(storm, fmt.Sprintf("app-%d", i+1))
		c.start(storm[i], "storm")
	}
	c.within(t, readyLimit, "a mount of the storm waits for the store", o.asked)
	if held := c.answered(storm); len(held) > 0 {
		t.Errorf("%q were mounted while their store answered nothing", held)
	}
	s.report("storm: %d requests were cut off when keymount was killed", o.held.Load())
	s.killKeymount(t, node, o)
	o.end(t)
	began := time.Now()
	for _, pod := range storm {
		c.ready(t, c.namespace, pod, recoveryLimit)
	}
	s.report("storm: %d pods run %.0fs after keymount was killed among them", len(storm), time.Since(began).Seconds())
	// None was mounted before, and the log begins with the new process.
	if mounted := c.answered(storm); len(mounted) != len(storm) {
		t.Errorf("the keymount that was started anew mounted %d of %d pods", len(mounted), len(storm))
	}
	for _, pod := range storm {
		c.startedFull(pod)
		if after, _ := c.statusObject(pod, "storm"); after["password"] != before["password"] {
			t.Errorf("%s has version %s, before the restart it was %s", pod, after["password"], before["password"])
		}
	}
	c.republished("app-0", 2) // the first one has been written when the second is asked for
	if after, _ := c.statusObject("app-0", "app"); after["password"] != before["password"] {
		t.Errorf("a pod that was there before has version %s, it was %s", after["password"], before["password"])
	}
}

// answered are those of some pods that keymount has mounted since it was started.
func (c *scene) answered(pods []string) (mounted []string) {
	c.t.Helper()
	there := map[string]bool{}
	for _, one := range c.answers(pods[0]) {
		if one.Namespace == c.namespace && one.Code == "OK" {
			there[one.Pod] = true
		}
	}
	for _, pod := range pods {
		if there[pod] {
			mounted = append(mounted, pod)
		}
	}
	return mounted
}

// killKeymount ends the provider of a node, as the kernel does when memory is short,
// while a mount of its waits for a store, and waits for the next one. It looks at what
// was answered, since the log goes with it.
func (s *suite) killKeymount(t *testing.T, node *cluster.Node, o *outage) {
	t.Helper()
	served, err := serving(node)
	if err != nil || len(served) != 1 {
		t.Fatalf("keymount has the processes %v on node %s (%v), want one", served, node.Name, err)
	}
	for _, keymount := range s.keymounts(t, node.Name) {
		if err := keptFolder(mountAnswers(t, s.logs(t, keymount.Namespace, keymount.Name))); err != nil {
			t.Error(err)
		}
	}
	before := o.ended.Load()
	if err := syscall.Kill(served[0], syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatalf("kill keymount: %v", err)
	}
	s.within(t, mountDeadline/2, "the mount was cut off and has not ended by itself", func() error {
		if o.ended.Load() == before {
			return errors.New("the store still holds its request")
		}
		return nil
	})
	s.within(t, 2*time.Minute, "another keymount runs", func() error {
		now, err := serving(node)
		if err == nil && (len(now) != 1 || now[0] == served[0]) {
			err = fmt.Errorf("the processes are %v, and it was %d that was killed", now, served[0])
		}
		return err
	})
}

// serving are keymount's processes on a node, but for those of probes.
func serving(node *cluster.Node) (pids []int, err error) {
	all, err := node.PIDs("keymount")
	for _, pid := range all {
		command, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline") // none when it has ended by now
		if strings.Contains(string(command), "\x00serve\x00") {
			pids = append(pids, pid)
		}
	}
	return pids, err
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
