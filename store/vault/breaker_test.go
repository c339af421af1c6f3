package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/queue"
	"github.com/keymount/keymount/store/vault"
)

// network has hosts and no sockets, so that a synctest bubble's clock is theirs.
type network struct {
	mu    sync.Mutex
	hosts map[string]*pipes
	dials int
}

// pipes is a net.Listener.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.ended) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// listen lets a handler answer for a host, until the function that it returns.
func (n *network) listen(t *testing.T, host string, handler http.Handler) (stop func()) {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), ended: make(chan struct{})}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Hour, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = server.Serve(p) }()
	n.mu.Lock()
	n.hosts[host] = p
	n.mu.Unlock()
	stop = func() {
		n.mu.Lock()
		delete(n.hosts, host)
		n.mu.Unlock()
		_ = server.Close()
	}
	t.Cleanup(stop)
	return stop
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	p := n.hosts[address]
	n.mu.Unlock()
	if p == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// reader reads over a network.
type reader struct {
	*vault.Store
	network *network
	conn    *vault.Conn
	log     *bytes.Buffer // read it when nothing is in flight
}

// newReader reads from hosts of a network within a bubble. Its mounts are known, so
// that a read is one request.
func newReader(t *testing.T, hosts ...string) *reader {
	t.Helper()
	r := &reader{network: &network{hosts: map[string]*pipes{}}, log: &bytes.Buffer{}}
	var addresses []string
	for _, host := range hosts {
		addresses = append(addresses, "http://"+host)
	}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	var err error
	if r.conn, err = vault.NewConn(vault.Options{Addresses: addresses, Log: log}, time.Now); err != nil {
		t.Fatal(err)
	}
	r.conn.DialWith(r.network.dial)
	t.Cleanup(r.conn.HangUp)
	r.Store = vault.New(r.conn, "", map[string]vault.Engine{"secret": vault.KV2, "database": vault.Other})
	return r
}

func (r *reader) read(ctx context.Context, t *testing.T, path string) error {
	t.Helper()
	_, err := r.Read(ctx, caller(), ref(t, path))
	return err
}

// shop is a Vault with secret/shop/db. Its health is good unless answer says
// otherwise.
func shop(answer func(w http.ResponseWriter, r *http.Request) bool) *server {
	s := &server{secrets: map[string]map[string]any{"shop/db": {"a": "b"}}}
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if answer != nil && answer(w, r) {
			return true
		}
		healthy := r.URL.Path == "/v1/sys/health"
		if healthy {
			reply(w, map[string]any{"initialized": true, "sealed": false})
		}
		return healthy
	}
	return s
}

func (s *server) count(part string) int {
	return len(slices.DeleteFunc(s.seen(), func(request string) bool { return !strings.Contains(request, part) }))
}

const (
	db      = "secret/shop/db"
	refused = "store unavailable: vault:8200: dial tcp: connect: connection refused"
	since   = " (out of reach since 2000-01-01T00:00:00Z)" // a bubble's beginning
)

func TestDeadAddressIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		for n := range 3 {
			if err := r.read(t.Context(), t, db); err == nil || err.Error() != refused {
				t.Errorf("attempt %d: %v", n, err)
			}
			<-time.After(time.Second)
		}
		for range 1000 { // the first of which probes
			if err := r.read(t.Context(), t, db); !errors.Is(err, store.Unavailable) || err.Error() != refused+since {
				t.Fatalf("out of reach: %v", err)
			}
		}
		if got := r.network.dialed(); got != 4 {
			t.Errorf("%d connections were tried, want 3 for attempts and 1 for the probe", got)
		}
		const opened = `level=WARN msg="a store's address is out of reach" address=vault:8200 cause="vault:8200: dial tcp: connect: connection refused"` + "\n"
		if got := r.log.String(); got != opened {
			t.Errorf("log\n%s, want\n%s", got, opened)
		}

		var probes []time.Duration
		for began, before := time.Now(), 4; time.Since(began) < 2*time.Minute; <-time.After(10 * time.Millisecond) {
			if err := r.read(t.Context(), t, db); err == nil {
				t.Fatal("somebody answered")
			}
			if dials := r.network.dialed(); dials != before {
				probes, before = append(probes, time.Since(began)), dials
			}
		}
		last := time.Duration(0)
		for n, at := range probes {
			longest := min(time.Second<<min(n, 4), 2500*time.Millisecond) + 10*time.Millisecond
			if pause := at - last; pause > longest || pause < longest*7/10 {
				t.Errorf("probe %d came after a pause of %s, want three quarters of %s at least", n, pause, longest)
			}
			last = at
		}
		s := shop(nil)
		r.network.listen(t, "vault:8200", s)
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-time.After(time.Second) {
			_ = r.read(t.Context(), t, db)
		}
		if got := s.seen(); len(got) < 6 || got[0] != "GET /v1/sys/health" || s.count("health") != 1 {
			t.Errorf("requests after it came back: %q", got)
		}
		_, closed, _ := strings.Cut(r.log.String(), "\n")
		const want = `level=INFO msg="a store's address answers again" address=vault:8200 after=2m`
		if !strings.HasPrefix(closed, want) || strings.Count(closed, "\n") != 1 {
			t.Errorf("log\n%s, want\n%s", closed, want)
		}
	})
}

// The cost of a request while the address takes connections and never answers.
func TestHangingAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		r.network.listen(t, "vault:8200", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		for n, want := range []time.Duration{8 * time.Second, 2 * time.Second, 0, 0, 0} {
			began := time.Now()
			err := r.read(t.Context(), t, db)
			if took := time.Since(began); err == nil || !strings.HasPrefix(err.Error(), "store unavailable: vault:8200: no answer in time") || took != want {
				t.Errorf("request %d took %s, want %s: %v", n, took, want, err)
			}
		}
	})
}

func aborts(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func sealed(w http.ResponseWriter, r *http.Request) {
	body := `{"errors":["Vault is sealed"]}`
	if r.URL.Path == "/v1/sys/health" {
		body = `{"initialized":true,"sealed":true,"standby":true}`
	}
	answers(503, body)(w, r)
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = fmt.Fprint(w, body) }
}

// After some failures of a kind the address is asked no more, or goes on being asked.
func TestWhatPutsAnAddressOutOfReach(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		cause  string // empty: the server lives
	}{
		"reset":          {aborts, "vault:8200: EOF"},
		"sealed":         {sealed, "vault:8200 is sealed; unseal it"},
		"internal error": {answers(500, `{"errors":["`+canary+`"]}`), "vault:8200 answers 500"},
		"bad gateway":    {answers(502, "<html>"), "vault:8200 answers 502"},
		"uninitialized":  {answers(501, ""), "vault:8200 answers 501"},
		"throttled":      {answers(429, `{}`), ""},
		"precondition":   {answers(412, `{}`), ""},
		"standby":        {answers(473, ""), ""},
		"not found":      {answers(404, `{}`), ""},
		"denied":         {answers(403, `{}`), ""},
		"nonsense":       {answers(200, "<html>"), ""},
		"lost":           {answers(307, ""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReader(t, "vault:8200")
				s := shop(func(w http.ResponseWriter, r *http.Request) bool { test.answer(w, r); return true })
				r.network.listen(t, "vault:8200", s)
				var err error
				for range 20 {
					err = r.read(t.Context(), t, db)
				}
				if test.cause == "" {
					if s.count("shop/db") != 20 || s.count("health") != 0 || r.log.Len() > 0 {
						t.Errorf("requests %q, log %s", s.seen(), r.log)
					}
					return
				}
				if want := "store unavailable: " + test.cause + since; err.Error() != want || s.count("shop/db") != 3 || s.count("health") != 1 {
					t.Errorf("requests %q, error\n%v, want\n%s", s.seen(), err, want)
				}
			})
		})
	}
}

// A caller that gives up proves nothing about the server, unless it waited long.
func TestCallersWhoGiveUp(t *testing.T) {
	for name, test := range map[string]struct {
		patience time.Duration
		probes   int
	}{"at once": {5 * time.Millisecond, 0}, "after long": {5 * time.Second, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReader(t, "vault:8200")
				var hangs atomic.Bool
				hangs.Store(true)
				s := shop(func(_ http.ResponseWriter, r *http.Request) bool {
					if hangs.Load() && r.URL.Path != "/v1/sys/health" {
						<-r.Context().Done()
					}
					return false
				})
				r.network.listen(t, "vault:8200", s)
				for range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), test.patience)
					if err := r.read(ctx, t, db); err == nil {
						t.Error("it answered")
					}
					cancel()
				}
				hangs.Store(false)
				if err := r.read(t.Context(), t, db); err != nil || s.count("health") != test.probes || r.log.Len() > 0 {
					t.Errorf("requests %q, %v", s.seen(), err)
				}
			})
		})
	}
}

// An engine that hangs or fails, and the class that makes it, cost the others nothing.
func TestOneEngineIsNotTheServer(t *testing.T) {
	for name, broken := range map[string]http.HandlerFunc{
		"hangs":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"fails":  answers(500, `{"errors":["no database"]}`),
		"breaks": aborts,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReader(t, "vault:8200")
				s := shop(func(w http.ResponseWriter, r *http.Request) bool {
					mine := strings.HasPrefix(r.URL.Path, "/v1/database/")
					if mine {
						broken(w, r)
					}
					return mine
				})
				r.network.listen(t, "vault:8200", s)
				var all sync.WaitGroup
				for range 3 {
					all.Go(func() {
						for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(200 * time.Millisecond) {
							if err := r.read(t.Context(), t, "database/creds/shop"); err == nil || strings.Contains(err.Error(), "out of reach") {
								t.Errorf("the engine's own: %v", err)
							}
						}
					})
				}
				for range 60 {
					<-time.After(time.Second)
					if err := r.read(t.Context(), t, db); err != nil {
						t.Error(err)
					}
				}
				all.Wait()
				if got := s.count("health"); got == 0 || got > 60 {
					t.Errorf("%d questions after the server's health in a minute, want one a second at most", got)
				}
				if r.log.Len() > 0 {
					t.Errorf("log: %s", r.log)
				}
			})
		})
	}
}

// While one request probes the others fail at once, and when the server answers all
// go on.
func TestOneProbeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		for range 4 {
			_ = r.read(t.Context(), t, db)
		}
		up := make(chan struct{})
		s := shop(func(_ http.ResponseWriter, r *http.Request) bool {
			select {
			case <-up:
			case <-r.Context().Done():
			}
			return false
		})
		r.network.listen(t, "vault:8200", s)
		<-time.After(time.Second)
		var failed, succeeded atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := r.read(t.Context(), t, db); err != nil {
					failed.Add(1)
				} else {
					succeeded.Add(1)
				}
			})
		}
		synctest.Wait()
		if failed.Load() != 99 || s.count("") != 1 {
			t.Errorf("%d failed at once, requests %q", failed.Load(), s.seen())
		}
		close(up)
		all.Wait()
		if err := r.read(t.Context(), t, db); err != nil || succeeded.Load() != 1 || s.count("health") != 1 {
			t.Errorf("%d succeeded, requests %q, %v", succeeded.Load(), s.seen(), err)
		}
	})
}

// A probe that its caller gives up proves nothing: the next request probes.
func TestProbeOfACallerWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		for range 4 {
			_ = r.read(t.Context(), t, db)
		}
		var slow atomic.Bool
		slow.Store(true)
		s := shop(func(_ http.ResponseWriter, r *http.Request) bool {
			if !slow.Load() {
				return false
			}
			<-r.Context().Done()
			return true
		})
		r.network.listen(t, "vault:8200", s)
		<-time.After(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if err := r.read(ctx, t, db); !errors.Is(err, store.Unavailable) {
			t.Errorf("got %v", err)
		}
		slow.Store(false)
		if err := r.read(t.Context(), t, db); err != nil || s.count("health") != 2 {
			t.Errorf("requests %q, %v", s.seen(), err)
		}
	})
}

// A read that waits for a dead store ends soon after it is back, after few requests;
// all such reads together come through the limit.
func TestRecoveryIsNoStampede(t *testing.T) {
	const callers, places = 200, 10
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		var under, most, probed, early atomic.Int64
		s := shop(func(http.ResponseWriter, *http.Request) bool {
			defer under.Add(-1)
			n := under.Add(1)
			for seen := most.Load(); n > seen; seen = most.Load() {
				most.CompareAndSwap(seen, n)
			}
			if probed.CompareAndSwap(0, time.Now().UnixNano()) || time.Now().UnixNano() < probed.Load()+int64(time.Second) {
				early.Add(1)
			}
			<-time.After(5 * time.Millisecond)
			return false
		})
		limited := queue.Limit(login.Open(login.Options{Store: asCaller{r}}), places)
		var back time.Time
		time.AfterFunc(40*time.Second, func() { back = time.Now(); r.network.listen(t, "vault:8200", s) })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var tries, latest atomic.Int64
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				_, err := store.Patiently(ctx, func() (store.Value, error) {
					tries.Add(1)
					return limited.Read(ctx, login.Request{}, ref(t, db))
				})
				if err != nil {
					t.Error(err)
				}
				latest.Store(max(latest.Load(), int64(time.Since(back))))
			})
		}
		all.Wait()
		if got := time.Duration(latest.Load()); got > 4*time.Second {
			t.Errorf("the last caller was served %s after the store was back", got)
		}
		if got := tries.Load(); got > callers*30 { // in 40 s
			t.Errorf("%d tries of %d callers: they spin", got, callers)
		}
		if most.Load() > places || s.count("health") != 1 || s.count("shop/db") != callers {
			t.Errorf("%d at a time, %d probes, %d reads", most.Load(), s.count("health"), s.count("shop/db"))
		}
		if got := back.Add(time.Duration(latest.Load())).Sub(time.Unix(0, probed.Load())); got > 500*time.Millisecond {
			t.Errorf("the last caller was served %s after the answer to the probe: they were not woken", got)
		}
		t.Logf("%d tries of %d callers; %s after it was back the last one was served; %d requests at a time, %d in the first second after the probe",
			tries.Load(), callers, time.Duration(latest.Load()), most.Load(), early.Load())
	})
}

// An address that is back does not wait for others that hang, whenever it returns.
func TestRecoveryOfOneAddress(t *testing.T) {
	hosts := []string{"one:8200", "two:8200", "three:8200"}
	for n := range 24 {
		callers, host, at := 1+19*(n%2), hosts[n%3], 40*time.Second+time.Duration(n)*170*time.Millisecond
		t.Run(fmt.Sprintf("%d callers, %s after %s", callers, host, at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReader(t, hosts...)
				var well atomic.Value
				well.Store("")
				for _, host := range hosts {
					r.network.listen(t, host, shop(func(_ http.ResponseWriter, r *http.Request) bool {
						if well.Load() == host {
							return false
						}
						<-r.Context().Done()
						return true
					}))
				}
				began := time.Now()
				time.AfterFunc(at, func() { well.Store(host) })
				var all sync.WaitGroup
				for range callers {
					all.Go(func() {
						if _, err := store.Patiently(t.Context(), func() (struct{}, error) { return struct{}{}, r.read(t.Context(), t, db) }); err != nil {
							t.Error(err)
						}
						if took := time.Since(began) - at; took > 5*time.Second {
							t.Errorf("a caller was served %s after the return", took)
						}
					})
				}
				all.Wait()
			})
		})
	}
}

// A server that is away and asks for a long pause is looked after all the same; one that
// throttles is not asked sooner than it wants.
func TestPausesThatAStoreAsksFor(t *testing.T) {
	for status, want := range map[int]time.Duration{http.StatusServiceUnavailable: 2500 * time.Millisecond, http.StatusTooManyRequests: 20 * time.Second} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReader(t, "vault:8200")
				r.network.listen(t, "vault:8200", shop(func(w http.ResponseWriter, _ *http.Request) bool {
					w.Header().Set("Retry-After", "20")
					w.WriteHeader(status)
					return true
				}))
				err := r.read(t.Context(), t, db)
				if e, ok := errors.AsType[*store.Error](err); !ok || e.RetryAfter != want {
					t.Errorf("got %#v, want a pause of %s", err, want)
				}
			})
		})
	}
}

// Of two addresses the one that is out of reach is passed over; when both are, the
// error says so, and how soon one is asked again.
func TestOutOfReachAndFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "home:8200", "away:8200")
		hang := make(chan struct{})
		home := shop(func(_ http.ResponseWriter, r *http.Request) bool {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return false
		})
		away := shop(nil)
		r.network.listen(t, "home:8200", home)
		stop := r.network.listen(t, "away:8200", away)
		took := func() time.Duration {
			t.Helper()
			began := time.Now()
			if err := r.read(t.Context(), t, db); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		for when, want := range []time.Duration{8 * time.Second, 0, 0} {
			if got := took(); got != want {
				t.Errorf("request %d took %s, want %s", when, got, want)
			}
		}
		<-time.After(30 * time.Second) // then home is tried again
		var all sync.WaitGroup
		var slow atomic.Int64
		for range 50 {
			all.Go(func() {
				if took() > 0 {
					slow.Add(1)
				}
			})
		}
		all.Wait()
		if slow.Load() != 1 || home.count("health") != 1 || away.count("health") != 0 {
			t.Errorf("%d requests waited for the first address, want the one that probes; %q", slow.Load(), home.seen())
		}
		stop()
		for range 5 {
			_ = r.read(t.Context(), t, db)
		}
		err := r.read(t.Context(), t, db)
		const want = "store unavailable: home:8200: no answer in time" + since +
			"; store unavailable: away:8200: dial tcp: connect: connection refused (out of reach since 2000-01-01T00:00:40Z)"
		if err == nil || err.Error() != want {
			t.Errorf("got\n%v, want\n%s", err, want)
		}
		close(hang)
		began, n := time.Now(), 0
		if _, err := store.Patiently(t.Context(), func() (store.Value, error) {
			n++
			return r.Read(t.Context(), caller(), ref(t, db))
		}); err != nil || time.Since(began) > 3*time.Second || n > 5 {
			t.Errorf("read after %s and %d tries, though the second address was to be asked soon: %v", time.Since(began), n, err)
		}
	})
}

// One address out of reach for long does not delay a waiting read when another one is
// just throttling.
func TestOutOfReachBesideAnotherAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "home:8200", "away:8200")
		for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(time.Second) {
			_ = r.read(t.Context(), t, db)
		}
		var asked atomic.Int64
		r.network.listen(t, "away:8200", shop(func(w http.ResponseWriter, r *http.Request) bool {
			throttled := r.URL.Path != "/v1/sys/health" && asked.Add(1) < 4
			if throttled {
				answers(429, "{}")(w, r)
			}
			return throttled
		}))
		for r.read(t.Context(), t, db) != nil && asked.Load() == 0 {
			<-time.After(time.Second)
		}
		began := time.Now()
		_, err := store.Patiently(t.Context(), func() (store.Value, error) { return r.Read(t.Context(), caller(), ref(t, db)) })
		if took := time.Since(began); err != nil || took > time.Second {
			t.Errorf("answered after %s: %v", took, err)
		}
	})
}

// Of two addresses that are out of reach, the one that is probed sooner says how
// long to wait.
func TestOutOfReachForAsLongAsTheSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "home:8200", "away:8200")
		for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(time.Second) {
			_ = r.read(t.Context(), t, db)
		}
		stop := r.network.listen(t, "home:8200", shop(nil))
		<-time.After(20 * time.Second)
		if err := r.read(t.Context(), t, db); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second) // it may be doubted again
		stop()
		for range 4 {
			_ = r.read(t.Context(), t, db)
		}
		r.network.listen(t, "home:8200", shop(nil))
		began := time.Now()
		_, err := store.Patiently(t.Context(), func() (store.Value, error) { return r.Read(t.Context(), caller(), ref(t, db)) })
		if took := time.Since(began); err != nil || took > time.Second {
			t.Errorf("answered after %s: %v", took, err)
		}
	})
}

// A probe that hangs while others are answered is no reason to leave them without.
func TestAnswersDuringAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		var fails atomic.Bool
		fails.Store(true)
		s := shop(func(w http.ResponseWriter, r *http.Request) bool {
			if fails.Load() {
				aborts(w, r)
			}
			health := r.URL.Path == "/v1/sys/health"
			if health {
				<-r.Context().Done()
			}
			return health
		})
		r.network.listen(t, "vault:8200", s)
		for range 3 {
			_ = r.read(t.Context(), t, db)
		}
		fails.Store(false)
		probing := make(chan error)
		go func() { probing <- r.read(t.Context(), t, db) }()
		synctest.Wait()
		if err := r.read(t.Context(), t, db); err != nil || s.count("health") != 1 {
			t.Errorf("during the probe: %v; %q", err, s.seen())
		}
		if err := <-probing; err != nil || r.log.Len() > 0 {
			t.Errorf("after it: %v, log %s", err, r.log)
		}
	})
}

// A request that was on its way before can still bring the answer that closes it.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		slow := make(chan struct{})
		s := shop(nil)
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/slow") {
				<-slow
				s.ServeHTTP(w, r)
				return
			}
			aborts(w, r)
		})
		r.network.listen(t, "vault:8200", handler)
		done := make(chan error)
		go func() { done <- r.read(t.Context(), t, db+"/slow") }()
		synctest.Wait()
		for range 4 {
			_ = r.read(t.Context(), t, db)
		}
		close(slow)
		if err := <-done; !errors.Is(err, store.NotFound) {
			t.Error(err)
		}
		if err := r.read(t.Context(), t, db); err == nil || strings.Contains(err.Error(), "out of reach") || strings.Count(r.log.String(), "\n") != 2 {
			t.Errorf("got %v, log\n%s", err, r.log)
		}
	})
}

// A request that may make something is not sent while the address is out of reach, and
// its error is certain of that.
func TestOutOfReachIsCertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		s := shop(func(w http.ResponseWriter, r *http.Request) bool { aborts(w, r); return true })
		r.network.listen(t, "vault:8200", s)
		for range 3 {
			if err := r.read(t.Context(), t, "database/creds/shop"); !isUncertain(err) {
				t.Errorf("an attempt: %v", err)
			}
		}
		for range 10 {
			err := r.read(t.Context(), t, "database/creds/shop")
			if !errors.Is(err, store.Unavailable) || isUncertain(err) || strings.Contains(err.Error(), "may have been done") {
				t.Errorf("out of reach: %v", err)
			}
		}
		if s.count("database") != 3 {
			t.Errorf("requests %q", s.seen())
		}
	})
}

// A standby that answers may point to a leader that does not.
func TestRedirectToAnAddressOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "standby:8200", "leader:8200")
		standby := shop(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "http://leader:8200"+r.URL.RequestURI())
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		})
		r.network.listen(t, "standby:8200", standby)
		var err error
		for range 10 {
			err = r.read(t.Context(), t, db)
		}
		const want = "store unavailable: standby:8200 redirects to leader:8200: dial tcp: connect: connection refused" + since +
			"; store unavailable: leader:8200: dial tcp: connect: connection refused" + since
		if err == nil || err.Error() != want {
			t.Errorf("got\n%v, want\n%s", err, want)
		}
		s := shop(nil)
		r.network.listen(t, "leader:8200", s)
		<-time.After(time.Second)
		if err := r.read(t.Context(), t, db); err != nil || s.count("health") != 1 {
			t.Errorf("after the leader is back: %v", err)
		}
	})
}

// A login has no token and no place among the reads, and is spared as they are.
func TestLoginsOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		for range 10 {
			_, err := r.conn.Do(t.Context(), vault.Request{Method: http.MethodPost, Path: "auth/kubernetes/login", Body: map[string]string{"jwt": canary}})
			if !errors.Is(err, store.Unavailable) || strings.Contains(err.Error(), canary) {
				t.Errorf("got %v", err)
			}
		}
		if got := r.network.dialed(); got != 4 {
			t.Errorf("%d connections were tried, want 4", got)
		}
	})
}

// A clock that is set back leaves no address out of reach for long.
func TestClockSetBack(t *testing.T) {
	s := startServer(t)
	down := true
	s.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		if down {
			w.WriteHeader(http.StatusBadGateway)
		}
		return down
	}
	s.secrets["shop/db"] = map[string]any{"a": "b"}
	now := time.Now()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	v := vault.New(conn, "", map[string]vault.Engine{"secret": vault.KV2})
	for range 5 {
		_, _ = v.Read(t.Context(), caller(), ref(t, db))
	}
	down, now = false, now.Add(-time.Hour)
	if _, err := v.Read(t.Context(), caller(), ref(t, db)); err != nil {
		t.Error(err)
	}
}

// However requests, failures and ends of callers mix, an address that answers is
// asked again.
func TestBreakerUnderARandomSchedule(t *testing.T) {
	s := startServer(t)
	s.secrets["shop/db"] = map[string]any{"a": "b"}
	var down atomic.Bool
	s.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		if down.Load() {
			aborts(w, nil)
		}
		return false
	}
	var ahead atomic.Int64
	now := func() time.Time { return time.Unix(1_700_000_000, ahead.Load()) }
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, now)
	if err != nil {
		t.Fatal(err)
	}
	v := vault.New(conn, "", map[string]vault.Engine{"secret": vault.KV2})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 100 {
				//nolint:gosec // the schedule is no secret
				limit, step, fails := rand.N(20*time.Millisecond), rand.N(100*time.Millisecond), rand.N(3) > 0
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				_, err := v.Read(ctx, caller(), ref(t, db))
				if err != nil && !errors.Is(err, store.Unavailable) {
					t.Error(err)
				}
				cancel()
				ahead.Add(int64(step))
				down.Store(fails)
			}
		})
	}
	all.Wait()
	down.Store(false)
	ahead.Add(int64(time.Minute))
	for range 3 {
		if _, err := v.Read(t.Context(), caller(), ref(t, db)); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkOutOfReach is a request to a dead store.
func BenchmarkOutOfReach(b *testing.B) {
	now := time.Now()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{"http://127.0.0.1:1"}}, func() time.Time { return now })
	if err != nil {
		b.Fatal(err)
	}
	request := vault.Request{Method: http.MethodGet, Path: "secret/data/shop/db", Token: secret.New([]byte(goodToken))}
	for range 4 {
		_, _ = conn.Do(b.Context(), request)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Do(b.Context(), request); err == nil {
			b.Fatal("somebody answered")
		}
	}
}

// asCaller reads with a login of its own.
type asCaller struct{ store.Store }

func (a asCaller) Read(ctx context.Context, _ store.Caller, ref store.Ref) (store.Value, error) {
	return a.Store.Read(ctx, caller(), ref)
}
