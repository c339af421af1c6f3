package login_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/inflight"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logins is a store's auth method that counts.
type logins struct {
	mu    sync.Mutex
	count int
	life  time.Duration
	renew bool // says that logins are renewable
	err   error
	gate  chan struct{} // when set, a login waits for it
}

func (l *logins) Login(ctx context.Context, identity auth.Identity, _ secret.Bytes, role string) (login.Login, error) {
	l.mu.Lock()
	l.count++
	n, err, gate := l.count, l.err, l.gate
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return login.Login{}, ctx.Err()
		}
	}
	given := login.Login{Renewable: l.renew, Token: secret.New(fmt.Appendf(nil, "%s/%s as %s, %d", identity.Namespace, identity.ServiceAccount, role, n))}
	if l.life > 0 {
		given.Expires = time.Now().Add(l.life)
	}
	return given, err
}

func (l *logins) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

func who() auth.Identity {
	return auth.Identity{
		Issuer: "https://issuer.invalid", Audience: "keymount", Namespace: "shop", ServiceAccount: "api", ServiceAccountUID: "uid-1", PodName: "api-0", PodUID: "pod-1",
	}
}

// Two sessions with possibly different rights share nothing.
func TestWhoSharesALogin(t *testing.T) {
	tests := map[string]struct {
		change func(*auth.Identity)
		role   string
		perPod bool
		shares bool
	}{
		"the same":                         {func(*auth.Identity) {}, "shop", false, true},
		"another pod":                      {func(i *auth.Identity) { i.PodName, i.PodUID = "api-1", "pod-2" }, "shop", false, true},
		"another pod, a session per pod":   {func(i *auth.Identity) { i.PodName, i.PodUID = "api-1", "pod-2" }, "shop", true, false},
		"another role":                     {func(*auth.Identity) {}, "admin", false, false},
		"another service account":          {func(i *auth.Identity) { i.ServiceAccount = "web" }, "shop", false, false},
		"a service account made anew":      {func(i *auth.Identity) { i.ServiceAccountUID = "uid-2" }, "shop", false, false},
		"another namespace":                {func(i *auth.Identity) { i.Namespace = "blog" }, "shop", false, false},
		"another issuer":                   {func(i *auth.Identity) { i.Issuer = "https://other.invalid" }, "shop", false, false},
		"another audience":                 {func(i *auth.Identity) { i.Audience = "other" }, "shop", false, false},
		"names that are the same in a row": {func(i *auth.Identity) { i.Namespace, i.ServiceAccount = "shopa", "pi" }, "shop", false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var method logins
			s := login.NewSessions(&method, test.perPod, time.Now)
			first, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop")
			if err != nil {
				t.Fatal(err)
			}
			other := who()
			test.change(&other)
			second, err := s.Open(t.Context(), other, secret.Bytes{}, test.role)
			if err != nil {
				t.Fatal(err)
			}
			if shares := string(first.Token.Reveal()) == string(second.Token.Reveal()); shares != test.shares {
				t.Errorf("they share a login: %t, want %t", shares, test.shares)
			}
		})
	}
}

func TestLoginEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := logins{life: time.Hour}
		s := login.NewSessions(&method, false, time.Now)
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 1}, {58 * time.Minute, 1}, {time.Minute, 2}, {time.Minute, 2}} {
			time.Sleep(step.after)
			if _, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop"); err != nil || method.asked() != step.want {
				t.Errorf("%s later: %d logins, want %d (%v)", step.after, method.asked(), step.want, err)
			}
		}
	})
}

func TestForgottenLogin(t *testing.T) {
	var method logins
	s := login.NewSessions(&method, false, time.Now)
	open := func() login.Login {
		given, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop")
		if err != nil {
			t.Fatal(err)
		}
		return given
	}
	old := open()
	s.Forget(who(), "shop", old, true)
	open()
	s.Forget(who(), "shop", old, true) // by somebody who found out later
	open()
	if method.asked() != 2 {
		t.Errorf("%d logins, want 2", method.asked())
	}
}

// A denial casts doubt on an old login, once, and not on a fresh one.
func TestDoubtfulLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var method logins
		s := login.NewSessions(&method, false, time.Now)
		for _, step := range []struct {
			after time.Duration
			again bool
		}{{0, false}, {59 * time.Second, false}, {time.Second, true}, {0, false}} {
			time.Sleep(step.after)
			given, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop")
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := s.Forget(who(), "shop", given, false); again != step.again {
				t.Errorf("%s later, another try makes sense: %t", step.after, again)
			}
		}
	})
}

// A pod that is denied something for ever must not cost a login each time, whether
// the store tells a denial from an end or not.
func TestDenialsCostFewLogins(t *testing.T) {
	for name, test := range map[string]struct {
		certain     bool
		every, span time.Duration
		most        int
	}{
		"a denial that may be an end":   {false, 75 * time.Second, 24 * time.Hour, 24*6 + 4},
		"logins that end as they begin": {true, time.Second, time.Hour, 14},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var method logins
				s := login.NewSessions(&method, false, time.Now)
				for range test.span / test.every {
					given, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop")
					if err != nil {
						t.Fatal(err)
					}
					s.Forget(who(), "shop", given, test.certain)
					time.Sleep(test.every)
				}
				if got := method.asked(); got < 3 || got > test.most {
					t.Errorf("%d logins, want %d at most", got, test.most)
				}
				time.Sleep(time.Hour) // nobody is denied anything
				given, _ := s.Open(t.Context(), who(), secret.Bytes{}, "shop")
				time.Sleep(time.Minute)
				if again, _ := s.Forget(who(), "shop", given, test.certain); !again {
					t.Error("a login that has ended an hour later is not replaced at once")
				}
			})
		})
	}
}

func TestFailedLoginIsNotRemembered(t *testing.T) {
	method := logins{err: errors.New("no answer")}
	s := login.NewSessions(&method, false, time.Now)
	for range 2 {
		if _, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop"); !errors.Is(err, method.err) {
			t.Errorf("got %v", err)
		}
	}
	if method.asked() != 2 {
		t.Errorf("%d logins, want 2", method.asked())
	}
}

// A refused login is the answer for a while, in the very same words, and longer
// each time. A service account made anew is another one.
func TestRefusedLoginIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := store.Denied.Errorf("no such role")
		method := logins{err: cause}
		s := login.NewSessions(&method, false, time.Now)
		open := func(i auth.Identity, want int) {
			t.Helper()
			_, err := s.Open(t.Context(), i, secret.Bytes{}, "shop")
			if !errors.Is(err, cause) || !login.Refused(err) || err.Error() != cause.Error() {
				t.Errorf("got %v", err)
			}
			if method.asked() != want {
				t.Errorf("%d logins, want %d", method.asked(), want)
			}
		}
		open(who(), 1)
		pauses := []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute}
		for n, pause := range pauses {
			open(who(), n+1)
			time.Sleep(pause - time.Millisecond)
			open(who(), n+1)
			time.Sleep(time.Millisecond)
			open(who(), n+2)
		}
		other := who()
		other.ServiceAccountUID = "uid-2"
		open(other, len(pauses)+2)
		time.Sleep(3 * time.Minute)
		before := method.asked()
		open(who(), before+1)
		time.Sleep(5 * time.Second) // a refusal long after the last one is a first one
		open(who(), before+2)
		time.Sleep(time.Minute)
		method.err = nil
		given, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop")
		if err != nil {
			t.Fatal(err)
		}
		s.Forget(who(), "shop", given, true)
		method.err = cause
		before = method.asked()
		open(who(), before+1)
		time.Sleep(5 * time.Second)
		open(who(), before+2) // a success in between: the pause is short again
	})
}

// Many pods start at once: one login, which goes on when the first pod gives up.
func TestLoginIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := logins{gate: make(chan struct{})}
		s := login.NewSessions(&method, false, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { _, err := s.Open(ctx, who(), secret.Bytes{}, "shop"); first <- err }()
		synctest.Wait()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the first got %v", err)
		}
		close(method.gate)
		all.Wait()
		if method.asked() != 1 {
			t.Errorf("21 pods cost %d logins", method.asked())
		}
	})
}

// A service account deleted and made anew does not join an in-flight login of the old one.
func TestLoginsUnderWayAreTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := logins{gate: make(chan struct{})}
		s := login.NewSessions(&method, true, time.Now)
		var all sync.WaitGroup
		for _, change := range []func(*auth.Identity){
			func(*auth.Identity) {}, func(i *auth.Identity) { i.ServiceAccountUID = "uid-2" }, func(i *auth.Identity) { i.PodUID = "pod-2" },
			func(i *auth.Identity) { i.Namespace = "blog" }, func(i *auth.Identity) { i.Audience = "other" }, func(i *auth.Identity) { i.Issuer = "other" },
		} {
			i := who()
			change(&i)
			all.Go(func() {
				if _, err := s.Open(t.Context(), i, secret.Bytes{}, "shop"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(method.gate)
		all.Wait()
		if method.asked() != 6 {
			t.Errorf("six identities cost %d logins", method.asked())
		}
	})
}

// A login runs in a goroutine of its own, which must contain its panics.
func TestPanicInALogin(t *testing.T) {
	s := login.NewSessions(panickingMethod{}, false, time.Now)
	_, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop")
	const want = `login as role "shop": keymount ran into a bug of its own; its log has the stack, please report it`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if p, ok := errors.AsType[*contain.Panic](err); !ok || !strings.Contains(p.Stack, "panickingMethod") {
		t.Error("the stack is lost")
	}
}

type panickingMethod struct{}

func (panickingMethod) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	panic("canary")
}

// When there are too many, the one that was asked for longest ago is forgotten, and
// before it those that were refused.
func TestRememberedLoginsAreBounded(t *testing.T) {
	var method logins
	s := login.NewSessions(&method, false, time.Now)
	open := func(name string, want bool) {
		t.Helper()
		i, before := who(), method.asked()
		i.ServiceAccount = name
		_, _ = s.Open(t.Context(), i, secret.Bytes{}, "shop")
		if asks := method.asked() > before; asks != want {
			t.Errorf("%s logs in: %t, want %t", name, asks, want)
		}
	}
	const most = 4096
	for n := range most - 1 {
		open(fmt.Sprint(n), true)
	}
	method.err = store.Denied.Errorf("denied")
	for n := range 10 {
		open(fmt.Sprint("refused", n), true)
	}
	method.err = nil
	open("0", false)
	open("one too many", true)
	open("0", false)
	open("1", false)
	open("2", false)
	open("two too many", true)
	open("0", false)
	open("1", false)
	open("2", false)
	open("3", true)
	open("5", false)
}

// Find knows the login in use, and those before it for as long as they live.
func TestFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := logins{life: time.Hour}
		s := login.NewSessions(&method, false, time.Now)
		begin := time.Now()
		open := func() login.Login {
			given, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop")
			if err != nil {
				t.Fatal(err)
			}
			return given
		}
		ends := func(given login.Login, want time.Duration) {
			t.Helper()
			got, known := s.Find(who(), "shop", given.Token)
			if known != (want > 0) || known && got.Expires.Sub(begin) != want {
				t.Errorf("ends after %s (%t), want %s", got.Expires.Sub(begin), known, want)
			}
		}
		first := open()
		ends(first, time.Hour)
		if _, known := s.Find(who(), "admin", first.Token); known {
			t.Error("another role knows the login")
		}
		time.Sleep(59*time.Minute + 30*time.Second)
		second := open()
		ends(first, time.Hour)
		ends(second, time.Hour+59*time.Minute+30*time.Second)
		s.Forget(who(), "shop", second, true)
		ends(second, 0)
		ends(login.Login{}, 0)
	})
}

// The credentials made with a login need time to be replaced before it ends; of a short life
// half is left.
func TestSpare(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{time.Hour: 50 * time.Minute, 10 * time.Minute: 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			method := logins{life: life}
			s := login.NewSessions(&method, false, time.Now)
			s.Spare = 10 * time.Minute
			for _, step := range []struct {
				after time.Duration
				want  int
			}{{0, 1}, {want - time.Millisecond, 1}, {time.Millisecond, 2}} {
				time.Sleep(step.after)
				if _, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop"); err != nil || method.asked() != step.want {
					t.Errorf("a life of %s: %d logins, want %d (%v)", life, method.asked(), step.want, err)
				}
			}
		})
	}
}

// A credential gets a login with a long enough life, and the login before stays known,
// because a lease may depend on it.
func TestOpenLasting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := logins{life: 10 * time.Minute}
		s := login.NewSessions(&method, false, time.Now)
		var all []login.Login
		for _, step := range []struct {
			after, lasting time.Duration
			want           int
		}{
			{0, 7 * time.Minute, 1},
			{3*time.Minute - time.Second, 7 * time.Minute, 1},
			{time.Second, 0, 1},
			{0, 7 * time.Minute, 2},
			{3 * time.Minute, 7 * time.Minute, 3},
			{time.Second, time.Hour, 3}, // no login lives for an hour
		} {
			time.Sleep(step.after)
			given, err := s.OpenLasting(t.Context(), who(), secret.Bytes{}, "shop", step.lasting)
			if err != nil || method.asked() != step.want {
				t.Errorf("for %s: %d logins, want %d (%v)", step.lasting, method.asked(), step.want, err)
			}
			all = append(all, given)
		}
		for _, given := range all {
			found, known := s.Find(who(), "shop", given.Token)
			if !known || !found.Expires.Equal(given.Expires) {
				t.Errorf("a login that ends at %s ends at %s (%t)", given.Expires, found.Expires, known)
			}
		}
	})
}

// Only logins that are put aside are not prolonged any more.
func TestFindTellsWhetherALoginIsProlonged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 0))
		i := until(time.Now().Add(24 * time.Hour))
		first := n.open(t, i)
		if found, known := n.Find(i, "shop", first.Token); !known || !found.Renewable {
			t.Errorf("in use: known %t, renewable %t", known, found.Renewable)
		}
		time.Sleep(2 * time.Minute)
		n.Forget(i, "shop", first, false)
		n.open(t, i)
		if found, known := n.Find(i, "shop", first.Token); !known || found.Renewable {
			t.Errorf("put aside: known %t, renewable %t", known, found.Renewable)
		}
	})
}

// The end of Run waits for logins, which would be lost, and ends those that take long.
func TestRunWaitsForLogins(t *testing.T) {
	for name, test := range map[string]struct{ takes, waits time.Duration }{
		"soon":  {500 * time.Millisecond, 500 * time.Millisecond},
		"never": {time.Hour, inflight.Grace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				method := logins{gate: make(chan struct{})}
				s := login.NewSessions(&method, false, time.Now)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- s.Run(ctx) }()
				short, enough := context.WithTimeout(t.Context(), time.Second)
				defer enough()
				if _, err := s.Open(short, who(), secret.Bytes{}, "shop"); err == nil {
					t.Error("a login without an answer")
				}
				began := time.Now()
				cancel()
				timer := time.AfterFunc(test.takes, func() { close(method.gate) })
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took != test.waits {
					t.Errorf("it waited %s, want %s", took, test.waits)
				}
				timer.Stop()
			})
		})
	}
}

// A namespace with many logins costs others none.
func TestLoginsAreBoundedByNamespace(t *testing.T) {
	var method logins
	s := login.NewSessions(&method, false, time.Now)
	open := func(namespace, account string) (asked bool) {
		i, before := who(), method.asked()
		i.Namespace, i.ServiceAccount = namespace, account
		_, _ = s.Open(t.Context(), i, secret.Bytes{}, "shop")
		return method.asked() > before
	}
	for n := range 10 {
		open("good", fmt.Sprint(n))
	}
	for n := range 5000 {
		open("evil", fmt.Sprint(n))
	}
	for n := range 10 {
		if open("good", fmt.Sprint(n)) {
			t.Errorf("the login of service account %d is forgotten for those of another namespace", n)
		}
	}
}

// Logins in use are counted, and the first to end is known.
func TestLiveLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := &logins{life: time.Hour}
		s := login.NewSessions(method, false, time.Now)
		if count, next := s.Live(); count != 0 || !next.IsZero() {
			t.Errorf("before: %d, %s", count, next)
		}
		began := time.Now()
		for _, role := range []string{"shop", "admin", "shop"} {
			if _, err := s.Open(t.Context(), who(), secret.New([]byte("token")), role); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if count, next := s.Live(); count != 2 || !next.Equal(began.Add(time.Hour)) {
			t.Errorf("%d logins until %s, want 2 until %s", count, next, began.Add(time.Hour))
		}
		method.err = store.Denied.Errorf("no")
		_, _ = s.Open(t.Context(), who(), secret.New([]byte("token")), "unbound")
		if count, _ := s.Live(); count != 2 {
			t.Errorf("%d with a refused one", count)
		}
	})
}
