package keep_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// counting is a store that answers every read with another value, records its callers, and
// can be made to fail. Paths below make/ make credentials.
type counting struct {
	mu        sync.Mutex
	reads     []string
	renews    int
	revokes   []string // pod and class
	fail      error
	delay     time.Duration
	lease     store.Lease
	login     time.Time // end of the login that leases are made with
	prolonged bool      // that login is renewed in the background
}

func (c *counting) Resolve(_ context.Context, _ login.Request, ref store.Ref) (store.Resolved, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return store.Resolved{Path: ref.Path, Makes: ref.Path.Segments()[0] == "make"}, c.fail
}

func (c *counting) Read(ctx context.Context, session login.Request, ref store.Ref) (store.Value, error) {
	c.mu.Lock()
	fail, delay := c.fail, c.delay
	c.reads = append(c.reads, session.Identity.ServiceAccount+" as "+session.Role+" reads "+ref.Path.String())
	n := len(c.reads)
	c.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return store.Value{}, store.Unavailable.Errorf("cut off")
		}
	}
	if fail != nil {
		return store.Value{}, fail
	}
	tree, err := secret.NewTree(map[string]any{"value": fmt.Sprintf("%s of %s as %s, %d", ref.Path, session.Identity.ServiceAccount, session.Role, n)})
	value := store.Value{Data: tree}
	if ref.Path.Segments()[0] == "make" {
		lease := c.lease
		value.Lease = &lease
	}
	return value, err
}

func (c *counting) Renew(context.Context, login.Request, store.Lease) (store.Lease, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renews++
	return c.lease, c.fail
}

func (c *counting) Revoke(_ context.Context, session login.Request, _ store.Lease) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revokes = append(c.revokes, session.Identity.PodName+" "+session.Volume.Class)
	return c.fail
}

func (c *counting) Ends(login.Request, store.Lease) (ends time.Time, final bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.login, !c.login.IsZero() && !c.prolonged
}

// set changes how it answers.
func (c *counting) set(change func(*counting)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.reads)
}

const (
	refresh = time.Minute
	stale   = time.Hour
	replace = 5 * time.Minute
)

func remember(inner login.Reader) kept {
	return newKept(asked(inner), keep.Options{Refresh: refresh, Stale: stale, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now})
}

// session is of a pod of a service account, which are of one namespace.
func session(serviceAccount, pod string) login.Request {
	return login.Request{Role: "shop", Volume: auth.Volume{Namespace: "shop", PodUID: "uid-of-" + pod, Class: "app"}, Identity: auth.Identity{
		Issuer: "issuer", Audience: "vault", Namespace: "shop", ServiceAccount: serviceAccount, ServiceAccountUID: "uid-of-" + serviceAccount,
		PodName: pod, PodUID: "uid-of-" + pod,
	}}
}

// got reads and returns the value's text, or the error's.
func got(t *testing.T, s kept, as login.Request, path string) string {
	t.Helper()
	value, err := s.Read(t.Context(), as, refTo(t, path))
	if err != nil {
		return err.Error()
	}
	part, err := value.Data.Get("value")
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(part.Reveal())
	if value.Source == keep.Stale {
		text += ", stale"
	}
	return text
}

func refTo(t *testing.T, path string) store.Ref {
	t.Helper()
	parsed, err := store.ParsePath(path)
	if err != nil {
		t.Fatal(err)
	}
	return store.Ref{Path: parsed}
}

// expect fails unless the next read gives this and the store was asked so often.
func expect(t *testing.T, inner *counting, s kept, as login.Request, path, want string, reads int) {
	t.Helper()
	if text := got(t, s, as, path); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if n := inner.count(); n != reads {
		t.Errorf("the store was asked %d times, want %d", n, reads)
	}
}

// Pods of one session share a value until it is no longer fresh.
func TestKeepRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{}
		s := remember(inner)
		expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
		expect(t, inner, s, session("api", "b"), "kv/db", "kv/db of api as shop, 1", 1)
		<-time.After(refresh * 8 / 10)
		expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
		<-time.After(refresh * 2 / 10)
		expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 2", 2)
	})
}

// After Refresh the next mount reads ordinary secrets again, and keeps credentials.
func TestKeepIsRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 2", 2)
		<-time.After(time.Second)
		s.Refresh()
		<-time.After(time.Second)
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 2", 2)
		expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 3", 3)
		expect(t, inner, s, session("api", "b"), "kv/db", "kv/db of api as shop, 3", 3)
	})
}

// strangers change a session into one with which it shares nothing.
func strangers() map[string]func(*login.Request) {
	return map[string]func(*login.Request){
		"role":      func(s *login.Request) { s.Role = "other" },
		"account":   func(s *login.Request) { s.Identity.ServiceAccount = "web" },
		"recreated": func(s *login.Request) { s.Identity.ServiceAccountUID = "another" },
		"namespace": func(s *login.Request) { s.Identity.Namespace = "blog" },
		"issuer":    func(s *login.Request) { s.Identity.Issuer = "foreign" },
		"audience":  func(s *login.Request) { s.Identity.Audience = "else" },
	}
}

// No session gets a value read by another.
func TestKeepSharesNothingBetweenSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{}
		s := remember(inner)
		first := session("api", "a")
		expect(t, inner, s, first, "kv/db", "kv/db of api as shop, 1", 1)
		reads := 1
		for name, change := range strangers() {
			as := first
			change(&as)
			reads++
			if got(t, s, as, "kv/db"); inner.count() != reads {
				t.Errorf("another %s got what the first session had read", name)
			}
		}
	})
}

// Concurrent readers of one secret cause one request, and one that gives up takes nothing
// from the others.
func TestKeepAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{delay: 10 * time.Second}
		s := remember(inner)
		ctx, cancel := context.WithCancel(t.Context())
		leader := make(chan error, 1)
		go func() { _, err := s.Read(ctx, session("api", "a"), refTo(t, "kv/db")); leader <- err }()
		synctest.Wait()
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				if text := got(t, s, session("api", "b"), "kv/db"); text != "kv/db of api as shop, 1" {
					t.Errorf("got %s", text)
				}
			})
		}
		synctest.Wait()
		cancel()
		if err := <-leader; !errors.Is(err, context.Canceled) {
			t.Errorf("the leader got %v", err)
		}
		group.Wait()
		if n := inner.count(); n != 1 {
			t.Errorf("the store was asked %d times", n)
		}
	})
}

// While the store gives no answer the last value stands in, for as long as the
// operator allows. An answer, whatever it says, ends that at once.
func TestKeepOutlastsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{}
		s := remember(inner)
		expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
		<-time.After(2 * refresh)
		inner.set(func(c *counting) { c.fail = store.Unavailable.Errorf("away") })
		expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1, stale", 2)
		expect(t, inner, s, session("api", "new"), "kv/db", "kv/db of api as shop, 1, stale", 3)
		if text := got(t, s, session("web", "w"), "kv/db"); text != "store unavailable: away" {
			t.Errorf("an identity that was never served got %s", text)
		}
		<-time.After(stale)
		if text := got(t, s, session("api", "a"), "kv/db"); text != "store unavailable: away" {
			t.Errorf("after the limit: %s", text)
		}
	})
}

func TestKeepEndsWithAnAnswer(t *testing.T) {
	for _, kind := range []error{store.Denied, store.NotFound, store.Ended, store.Doubt, store.Invalid} {
		t.Run(kind.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &counting{}
				s := remember(inner)
				expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
				<-time.After(refresh)
				inner.set(func(c *counting) { c.fail = kind })
				if text := got(t, s, session("api", "a"), "kv/db"); text != kind.Error() {
					t.Errorf("got %s", text)
				}
				inner.set(func(c *counting) { c.fail = store.Unavailable.Errorf("away") })
				<-time.After(2 * time.Minute)
				if text := got(t, s, session("api", "a"), "kv/db"); text != "store unavailable: away" {
					t.Errorf("the old value came back: %s", text)
				}
			})
		})
	}
}

// A denial is remembered, longer each time.
func TestKeepRemembersDenials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{fail: store.Denied}
		s := newKept(readOnly(inner), keep.Options{Refresh: refresh, Pool: poolOf(1 << 20), Now: time.Now})
		for range 600 { // ten minutes of a pod that is tried every second
			expectText(t, got(t, s, session("api", "a"), "kv/db"), "denied by the store")
			<-time.After(time.Second)
		}
		if n := inner.count(); n > 14 { // 0, 5, 15, 35, 75, then every minute
			t.Errorf("the store was asked %d times in ten minutes", n)
		}
	})
}

func expectText(t *testing.T, text, want string) {
	t.Helper()
	if text != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

// A pinned version is never read again.
func TestKeepPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{}
		s := remember(inner)
		ref := refTo(t, "kv/db")
		ref.Version = "3"
		for range 10 {
			if _, err := s.Read(t.Context(), session("api", "a"), ref); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Hour)
		}
		if n := inner.count(); n != 1 {
			t.Errorf("it was read %d times", n)
		}
	})
}

// Memory is bounded, and the least recently used value is evicted first.
func TestKeepIsBounded(t *testing.T) {
	inner := &counting{}
	s := newKept(asked(inner), keep.Options{Refresh: time.Hour, Pool: poolOf(10 << 10), Now: time.Now})
	for i := range 100 {
		got(t, s, session("api", "a"), fmt.Sprintf("kv/%d", i))
		got(t, s, session("api", "a"), "kv/often")
	}
	if n := inner.count(); n != 101 {
		t.Errorf("%d reads, want 100 and one of what is wanted often", n)
	}
	if got(t, s, session("api", "a"), "kv/0"); inner.count() != 102 {
		t.Error("a hundred secrets fit into the bound: this test cannot fail")
	}
}

// twofold is a store in which two spellings are two things of one path, and in which writes
// make certificates.
type twofold struct {
	counting

	life time.Duration
}

func (w *twofold) Resolve(_ context.Context, _ login.Request, ref store.Ref) (store.Resolved, error) {
	path, err := store.ParsePath("kv/metadata/x")
	literal := ""
	if ref.Path.Segments()[0] == "literal" {
		literal = "metadata"
	}
	return store.Resolved{Path: path, Literal: literal, Makes: ref.Args != ""}, err
}

func (w *twofold) Read(ctx context.Context, session login.Request, ref store.Ref) (store.Value, error) {
	value, err := w.counting.Read(ctx, session, ref)
	if ref.Args != "" {
		value.NotAfter = time.Now().Add(w.life)
	}
	return value, err
}

// A credential is not taken for a secret of the same name.
func TestKeepTellsTheLiteralApart(t *testing.T) {
	for _, paths := range [][2]string{{"kv/data", "literal/kv"}, {"literal/kv", "kv/data"}} {
		s := remember(&twofold{})
		for i, path := range paths {
			expectText(t, got(t, s, session("api", "a"), path), fmt.Sprintf("%s of api as shop, %d", path, i+1))
		}
	}
}

// A certificate stays the same until two thirds of its life are over, despite Refresh, and
// one that is too short is refused.
func TestKeepCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &twofold{life: 24 * time.Hour}
		s := remember(inner)
		ref := refTo(t, "pki/issue")
		ref.Args = `{"common_name":"a"}`
		read := func() error { _, err := s.Read(t.Context(), session("api", "a"), ref); return err }
		for range 14 {
			if err := read(); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Hour)
			s.Refresh()
		}
		if n := inner.count(); n != 1 {
			t.Errorf("%d certificates in 14 of 24 hours", n)
		}
		<-time.After(2 * time.Hour)
		if err := read(); err != nil || inner.count() != 2 {
			t.Errorf("%d certificates after two thirds of the life: %v", inner.count(), err)
		}
		inner.life = 6 * time.Minute
		<-time.After(16 * time.Hour)
		if err := read(); !errors.Is(err, store.Invalid) {
			t.Errorf("a life of six minutes: %v", err)
		}
	})
}

// A login that is cut off is no answer: the last value stays.
func TestKeepOutlastsAHangingLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{}
		s := remember(inner)
		expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
		<-time.After(refresh)
		inner.set(func(c *counting) { c.fail = errors.New("login: no answer in time") })
		if text := got(t, s, session("api", "a"), "kv/db"); text != "login: no answer in time" {
			t.Errorf("got %s", text)
		}
		inner.set(func(c *counting) { c.fail = store.Unavailable.Errorf("away") })
		<-time.After(time.Minute)
		if text := got(t, s, session("api", "a"), "kv/db"); text != "kv/db of api as shop, 1, stale" {
			t.Errorf("the last value is gone: %s", text)
		}
	})
}
