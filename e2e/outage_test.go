package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/provider/providertest"
)

const (
	outageDeadline = 5 * time.Second
	// A republish may wait two seconds for a store that hangs, for the path and for what
	// is there; so may a few of them, until it is known to be out of reach.
	slowestRepublish = 2*2*time.Second + time.Second
	usualRepublish   = 500 * time.Millisecond
	slowRepublishes  = 4
)

// scene is a Vault, and a keymount that has served one pod from it.
type scene struct {
	server *vaulttest.Server
	proxy  *proxy
	k      *keymount
	hosts  string // of keymount alone
}

// worker is a pod of another service account, which this node has not served.
var worker = auth.Pod{Namespace: "shop", Name: "worker-0", UID: "uid-of-worker-0", ServiceAccount: "worker"}

var (
	ofAPI    = shopClass(lines(`{path: secret/shop/db, file: db/}`, `{path: secret/shop/app, format: json, file: app}`, `{path: plain/shop/db, file: plain/}`))
	ofWorker = class{"shop-worker", oneObject}
)

// outage is one way for a store to give no answers.
type outage struct {
	name       string
	begin, end func(*testing.T, *scene)
	cause      string // what a pod that has to wait is told
	named      bool   // keymount knows Vault by a name
	direct     bool   // without a proxy in between
}

func outages() []outage {
	return []outage{
		{
			name: "process stopped", cause: "connection refused",
			direct: true, begin: stopVault, // for good: it keeps all in memory
		},
		{
			name: "out of reach", cause: "connection refused",
			begin: func(_ *testing.T, s *scene) { s.proxy.close() },
			end:   openProxy,
		},
		{name: "sealed", cause: "is sealed", begin: sealVault, end: unsealVault},
		{name: "429", cause: "answers 429", begin: limitRate, end: liftRate},
		answering(http.StatusBadGateway),
		{
			name: "hang", cause: "no answer", begin: hang,
			end: func(_ *testing.T, s *scene) { s.proxy.instead.Store(nil) },
		},
		{
			name: "connection reset", cause: "connection reset",
			begin: func(t *testing.T, s *scene) {
				t.Helper()
				s.proxy.answers(func(w http.ResponseWriter, _ *http.Request) { reset(t, w) })
			},
			end: func(_ *testing.T, s *scene) { s.proxy.instead.Store(nil) },
		},
		{
			name: "no such name", cause: "no address is known for this name", named: true,
			begin: forgetName, end: nameAgain,
		},
	}
}

// answering has the proxy answer with a status.
func answering(status int) outage {
	return outage{
		name: strconv.Itoa(status), cause: fmt.Sprintf("answers %d", status),
		begin: func(_ *testing.T, s *scene) {
			s.proxy.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		},
		end: func(_ *testing.T, s *scene) { s.proxy.instead.Store(nil) },
	}
}

func stopVault(t *testing.T, s *scene) {
	t.Helper()
	s.server.Stop(t)
}

func sealVault(t *testing.T, s *scene) {
	t.Helper()
	s.server.Seal(t)
}

func unsealVault(t *testing.T, s *scene) {
	t.Helper()
	s.server.Unseal(t)
}

func openProxy(t *testing.T, s *scene) {
	t.Helper()
	s.proxy.open(t, s.proxy.address)
}

func nameAgain(t *testing.T, s *scene) {
	t.Helper()
	s.name(t, "127.0.0.1 vault.example")
}

func (p *proxy) answers(f http.HandlerFunc) { p.instead.Store(&f) }

// hang has the proxy take requests and answer none.
func hang(t *testing.T, s *scene) {
	t.Helper()
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	s.proxy.answers(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
}

// reset ends a connection as a firewall does.
func reset(t *testing.T, w http.ResponseWriter) {
	t.Helper()
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		t.Error("the connection cannot be taken")
		return
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // what is left is not sent, and the other end is told so
	}
	_ = conn.Close()
}

// limitRate has Vault itself answer 429, an hour long.
func limitRate(t *testing.T, s *scene) {
	t.Helper()
	logical := s.server.Client(t).Logical()
	for _, path := range []string{"secret", "plain", "auth/jwt"} {
		write(t, logical, "sys/quotas/rate-limit/"+strings.ReplaceAll(path, "/", "-"), map[string]any{"path": path, "rate": 1, "interval": "1h"})
	}
	for _, path := range []string{"secret/config", "plain/shop/db", "auth/jwt/config"} { // the one that there is
		until(t, func() bool {
			_, err := logical.ReadWithContext(t.Context(), path)
			return err != nil && strings.Contains(err.Error(), "429")
		})
	}
}

func liftRate(t *testing.T, s *scene) {
	t.Helper()
	logical := s.server.Client(t).Logical()
	for _, name := range []string{"secret", "plain", "auth-jwt"} {
		if _, err := logical.DeleteWithContext(t.Context(), "sys/quotas/rate-limit/"+name); err != nil {
			t.Fatal(err)
		}
	}
}

// name writes what keymount takes for /etc/hosts.
func (s *scene) name(t *testing.T, line string) {
	t.Helper()
	if err := os.WriteFile(s.hosts, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// forgetName takes Vault's name away. Connections that are there live on, as they do
// anywhere, so these end, too.
func forgetName(t *testing.T, s *scene) {
	t.Helper()
	s.name(t, "# nothing")
	until(t, func() bool { // a program reads that file every 5 s
		s.proxy.forget()
		s.proxy.hangUp()
		s.k.mounted(t, ofAPI)
		return s.proxy.count("") == 0
	})
}

func newScene(t *testing.T, issuer *providertest.Issuer, of outage) *scene {
	t.Helper()
	s := &scene{server: newVault(t, issuer)}
	role := jwtRole()
	role["bound_subject"] = "system:serviceaccount:shop:worker"
	s.server.WriteRole(t, "jwt", "shop-worker", role)
	s.proxy = newProxy(t, s.server.Address)
	o := operator{Addresses: []string{s.proxy.URL}, Vault: []string{throughJWT}, Memory: "refresh: 0s, stale: 1h", Deadline: outageDeadline}
	if of.direct {
		o.Addresses = []string{s.server.Address}
	}
	if of.named {
		s.hosts = filepath.Join(t.TempDir(), "hosts")
		s.name(t, "127.0.0.1 vault.example")
		_, port, _ := net.SplitHostPort(s.proxy.address)
		o.Addresses, o.Hosts = []string{"http://vault.example:" + port}, s.hosts
	}
	s.k = serve(t, issuer, o)
	s.proxy.guards(t, s.k)
	return s
}

// While a store gives no answers, whatever the reason, nobody who has been served
// loses anything, and nobody who has not is served.
func TestOutages(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	for _, o := range outages() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, issuer, o)
			before := s.k.published(t, shopAPI, "app", ofAPI)
			o.begin(t, s)
			var took []time.Duration
			for range 20 {
				began := time.Now()
				same(t, "republished", before, s.k.published(t, shopAPI, "app", ofAPI))
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			began := time.Now()
			same(t, "a second pod", before, s.k.published(t, shopAPI1, "app", ofAPI))
			second := time.Since(began)
			t.Logf("a republish took p50 %s, max %s; the start of a second pod %s", short(took[len(took)/2]), short(took[len(took)-1]), short(second))
			slow := took[len(took)-1-slowRepublishes] > usualRepublish
			if slow || max(took[len(took)-1], second) > slowestRepublish {
				t.Errorf("that is too long: all took %s", took)
			}
			refusesStranger(t, s, o.cause)
			if out := s.k.output.String(); !strings.Contains(out, "the last known value stands in") || !strings.Contains(out, o.cause) {
				t.Error("the log does not say that old values are served, or why")
			}
			if o.end != nil {
				recovers(t, s, o)
			}
		})
	}
}

func short(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// refusesStranger mounts for an identity that has no value yet: it has to wait, and is
// told what for, in a code that the driver takes for final.
func refusesStranger(t *testing.T, s *scene, cause string) {
	t.Helper()
	began := time.Now()
	_, err := s.k.mount(t, worker, ofWorker)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(told(err), cause) || !strings.Contains(told(err), `store "prod"`) {
		t.Errorf("a pod of a new identity: %q, want FailedPrecondition with %q and the store", told(err), cause)
	}
	if took := time.Since(began); took > outageDeadline+time.Second {
		t.Errorf("a pod of a new identity was refused after %s, want %s", took, outageDeadline)
	}
}

// recovers ends the outage: pods get what is there now, and the one that waited starts.
func recovers(t *testing.T, s *scene, o outage) {
	t.Helper()
	o.end(t, s)
	began := time.Now()
	const changed = "canary-password-5"
	until(t, func() bool {
		_, err := s.server.Client(t).Logical().WriteWithContext(t.Context(), "secret/data/shop/db", map[string]any{"data": map[string]any{"username": "canary-user-5", "password": changed}})
		return err == nil
	})
	until(t, func() bool { return s.k.mounted(t, ofAPI)["db/password"] == changed })
	running := time.Since(began)
	until(t, func() bool {
		files, err := s.k.mount(t, worker, ofWorker)
		return err == nil && files["password"] == changed
	})
	t.Logf("after the outage a change was seen after %s, and the pod that waited started after %s", short(running), short(time.Since(began)))
}

// An answer of Vault's that there is nothing to read, or not any more for this pod,
// ends the service of what it was before, at once and also when an outage follows.
func TestAnswersEndOldValues(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	for name, test := range map[string]struct {
		change func(*testing.T, *scene)
		told   codes.Code
	}{
		"403": {func(t *testing.T, s *scene) {
			t.Helper()
			s.server.WritePolicy(t, "shop", strings.ReplaceAll(policy, `path "secret/data/shop/*"      { capabilities = ["read"] }`, ""))
		}, codes.PermissionDenied},
		"404": {func(t *testing.T, s *scene) {
			t.Helper()
			if _, err := s.server.Client(t).Logical().DeleteWithContext(t.Context(), "secret/metadata/shop/db"); err != nil {
				t.Fatal(err)
			}
		}, codes.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, issuer, outage{})
			s.k.mounted(t, shopClass(oneObject))
			test.change(t, s)
			for _, pod := range []auth.Pod{shopAPI, shopAPI1} {
				if _, err := s.k.mount(t, pod, shopClass(oneObject)); status.Code(err) != test.told {
					t.Errorf("%s: %q, want %s", pod.Name, told(err), test.told)
				}
			}
			s.server.Seal(t)
			for _, pod := range []auth.Pod{shopAPI, shopAPI1} {
				if files, err := s.k.mount(t, pod, shopClass(oneObject)); err == nil {
					t.Errorf("%s was served %d files in an outage that followed", pod.Name, len(files))
				}
			}
		})
	}
}

// What was made for one volume is that volume's alone, and as good without the store
// as with it for as long as it lives, whatever stale says.
func TestOutageOfLeases(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	e := newEngines(t, issuer)
	for _, stale := range []string{"stale: 1h", "stale: 0s"} {
		t.Run(stale, func(t *testing.T) {
			t.Parallel()
			k, p := serveBefore(t, e.Server, issuer, operator{Memory: "refresh: 0s, " + stale, Deadline: outageDeadline})
			certificate := shopClass(`[{path: pki/issue/shop, args: {common_name: api.shop.svc, ttl: 1h}, file: ./}]`)
			credential := k.published(t, shopAPI, "app", credentialOf("shop"))
			made := k.published(t, shopAPI, "tls", certificate)
			p.close()
			const long = 2 * time.Second // enough for whatever counts only so long
			began := time.Now()
			until(t, func() bool {
				same(t, "a credential", credential, k.published(t, shopAPI, "app", credentialOf("shop")))
				same(t, "a certificate", made, k.published(t, shopAPI, "tls", certificate))
				return time.Since(began) > long
			})
			var mounts sync.WaitGroup
			for name, c := range map[string]class{"a credential": credentialOf("shop"), "a certificate": certificate} {
				for _, who := range []struct {
					pod  auth.Pod
					name string
				}{{shopAPI1, "app"}, {shopAPI, "another"}} {
					mounts.Go(func() {
						if _, err := k.publish(t, who.pod, who.name, c, "vault"); status.Code(err) != codes.FailedPrecondition {
							t.Errorf("%s for another volume, class %s of pod %s: %q, want FailedPrecondition", name, who.name, who.pod.Name, told(err))
						}
					})
				}
			}
			mounts.Wait()
		})
	}
}

// A credential and a certificate live on in an outage that is longer than what
// keymount knows of the store's engines, and longer than stale.
func TestOutageIsOutlived(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	e := newEngines(t, issuer)
	e.role(t, "long", time.Hour)
	for name, made := range map[string]struct {
		path, args, key string
		after           time.Duration // of a life of an hour
	}{
		"a credential":                {"database/creds/long", "", "username", 6 * time.Minute},
		"a certificate":               {"pki/issue/shop", `{"common_name": "api.shop.svc", "ttl": "1h"}`, "serial_number", 6 * time.Minute},
		"a certificate to be renewed": {"pki/issue/shop", `{"common_name": "api.shop.svc", "ttl": "1h"}`, "serial_number", 45 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, e.Server, issuer)
			before, err := s.read(t, shopAPI, made.path, made.args, made.key)
			if err != nil {
				t.Fatal(err)
			}
			s.proxy.close()
			s.after(made.after)
			if after, err := s.read(t, shopAPI, made.path, made.args, made.key); err != nil || after != before {
				t.Errorf("after %s: %q, %v", made.after, after, err)
			}
		})
	}
}

// When a store is back, those who waited for it ask for what they need and for
// nothing else, no more at a time than keymount lets.
func TestRecovery(t *testing.T) {
	const (
		identities = 30
		objects    = 10
		places     = 64 // of requestsAtOnce in node/stores.go
		probes     = 3
		lasts      = 3 * time.Second
	)
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	anyone := jwtRole()
	delete(anyone, "bound_subject")
	server.WriteRole(t, "jwt", "shop-any", anyone)
	var list []string
	for i := range objects {
		write(t, server.Client(t).Logical(), fmt.Sprintf("secret/data/shop/many/%d", i), map[string]any{"data": map[string]any{"value": "canary-value"}})
		list = append(list, fmt.Sprintf("{path: secret/shop/many/%d, key: value, file: f%d}", i, i))
	}
	k, p := serveBefore(t, server, issuer, operator{Memory: "refresh: 1m, stale: 1h"})
	p.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })

	var mounts sync.WaitGroup
	began := time.Now()
	for i := range identities {
		pod := auth.Pod{Namespace: fmt.Sprintf("shop-%d", i%3), Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("uid-of-pod-%d", i), ServiceAccount: fmt.Sprintf("account-%d", i)}
		mounts.Go(func() {
			files, err := k.mount(t, pod, class{"shop-any", lines(list...)})
			if err != nil || len(files) != objects {
				t.Errorf("%s: %d files, %v", pod.Name, len(files), err)
			}
		})
	}
	<-time.After(time.Until(began.Add(lasts)))
	during := p.count("")
	p.forget()
	p.instead.Store(nil)
	back := time.Now()
	mounts.Wait()
	last := time.Since(back)
	noticed := p.first()
	t.Logf("%d requests in %s of outage; noticed %s after it; %d requests in the second after that, at most %d at a time; the last of %d pods started %s after the outage, with %d requests in all",
		during, lasts, short(noticed.Sub(back)), p.since(noticed, time.Second), p.depth(), identities, short(last), p.count(""))
	for path, want := range map[string]int{"auth/jwt/login": identities, "secret/data/": identities * objects} {
		if got := p.count(path); got != want {
			t.Errorf("%d requests for %s after the outage, want %d", got, path, want)
		}
	}
	if most := identities*(objects+2) + probes; p.count("") > most {
		t.Errorf("%d requests after the outage, want %d at most", p.count(""), most)
	}
	if p.depth() > places+probes {
		t.Errorf("%d requests at a time, want %d at most", p.depth(), places+probes)
	}
	if most := 3*identities + probes; during > most { // a few attempts each until the breaker opens
		t.Errorf("%d requests during the outage, want %d at most", during, most)
	}
}
