package login_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// counter is a method whose tokens are the numbers of their logins.
type counter struct {
	count     int
	life      time.Duration
	err       error
	renewable bool

	mu      sync.Mutex
	revoked []string
}

// returned is what was revoked by now.
func (c *counter) returned() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.revoked)
}

func (c *counter) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	c.count++
	if c.err != nil {
		return login.Login{}, c.err
	}
	given := login.Login{Token: secret.New(fmt.Append(nil, c.count)), Renewable: c.renewable}
	if c.life > 0 {
		given.Expires = time.Now().Add(c.life)
	}
	return given, nil
}

func (c *counter) Renew(_ context.Context, _ auth.Identity, l login.Login) (login.Login, error) {
	l.Expires = time.Now().Add(c.life)
	return l, nil
}

func (c *counter) Revoke(_ context.Context, _ auth.Identity, l login.Login) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revoked = append(c.revoked, string(l.Token.Reveal()))
	return nil
}

// desk is a store that records the callers it is asked by, and answers as the test wants.
type desk struct {
	askedBy []string // role and token
	read    func(token string) (store.Value, error)
	lease   store.Lease // of a renewal
}

func (d *desk) ask(caller store.Caller) string {
	token := string(caller.Login.Reveal())
	d.askedBy = append(d.askedBy, caller.Role+" "+token)
	return token
}

func (d *desk) Read(_ context.Context, caller store.Caller, _ store.Ref) (store.Value, error) {
	return d.read(d.ask(caller))
}

func (d *desk) Resolve(_ context.Context, caller store.Caller, ref store.Ref) (store.Resolved, error) {
	_, err := d.read(d.ask(caller))
	return store.Resolved{Path: ref.Path}, err
}

func (d *desk) Renew(_ context.Context, caller store.Caller, _ store.Lease) (store.Lease, error) {
	d.ask(caller)
	return d.lease, nil
}

func (d *desk) Revoke(_ context.Context, caller store.Caller, _ store.Lease) error {
	d.ask(caller)
	return nil
}

func (*desk) Recall(store.Caller, store.Ref) (store.Value, bool) {
	return store.Value{Version: "1"}, true
}

// only answers the login with a token with err, and every other with other.
func only(token string, err, other error) func(string) (store.Value, error) {
	return func(of string) (store.Value, error) {
		if of == token {
			return store.Value{}, err
		}
		return store.Value{}, other
	}
}

// opened is a desk behind the logins of a method.
func opened(d *desk, method login.Method) (login.Store, *login.Sessions) {
	sessions := login.NewSessions(method, false, time.Now)
	return login.Open(login.Options{Store: d, Resolver: d, Leaser: d, Sessions: sessions, Now: time.Now}), sessions
}

func asWho() login.Request { return login.Request{Identity: who(), Role: "shop"} }

// A store without logins answers from its own memory; with logins, asking would need one.
func TestRecallNeedsNoLogin(t *testing.T) {
	d := &desk{}
	s := login.Open(login.Options{Store: d, Recaller: d, Now: time.Now})
	if value, known := s.Recall(asWho(), store.Ref{}); !known || value.Version != "1" {
		t.Errorf("got %+v, %t", value, known)
	}
	sessions := login.NewSessions(&counter{}, false, time.Now)
	if s := login.Open(login.Options{Store: d, Recaller: d, Sessions: sessions, Now: time.Now}); s.Recaller != nil {
		t.Error("what is recalled is recalled without a login")
	}
}

// A denial that may be the end of a login costs another login and another request, if the
// login is at least a minute old.
func TestDoubtIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{read: only("1", store.Doubt.Errorf("no"), nil)}
		method := &counter{}
		s, _ := opened(d, method)
		if _, err := s.Read(t.Context(), asWho(), store.Ref{}); !errors.Is(err, store.Doubt) || len(d.askedBy) != 1 {
			t.Errorf("of a new login: asked by %q, %v", d.askedBy, err)
		}
		time.Sleep(time.Minute)
		if _, err := s.Resolve(t.Context(), asWho(), store.Ref{}); err != nil || !slices.Equal(d.askedBy, []string{"shop 1", "shop 1", "shop 2"}) {
			t.Errorf("of an old one: asked by %q, %v", d.askedBy, err)
		}
	})
}

// A login that was doubted is used again when the next one is no better, and only then.
func TestReinstate(t *testing.T) {
	for name, test := range map[string]struct {
		first, second error
		login         error // of the second login
		then          string
	}{
		"the next one gets a value":    {store.Doubt.Errorf("no"), nil, nil, "shop 2"},
		"the next one finds nothing":   {store.Doubt.Errorf("no"), store.NotFound.Errorf("no"), nil, "shop 2"},
		"the next one asks nonsense":   {store.Doubt.Errorf("no"), store.Invalid.Errorf("no"), nil, "shop 2"},
		"the next one is doubted, too": {store.Doubt.Errorf("no"), store.Doubt.Errorf("no"), nil, "shop 1"},
		"the next one is denied":       {store.Doubt.Errorf("no"), store.Denied.Errorf("no"), nil, "shop 1"},
		"the store is silent":          {store.Doubt.Errorf("no"), store.Unavailable.Errorf("no"), nil, "shop 1"},
		"there is no next one":         {store.Doubt.Errorf("no"), nil, store.Denied.Errorf("no"), "shop 1"},
		"the first has ended":          {store.Ended.Errorf("no"), store.Denied.Errorf("no"), nil, "shop 2"},
		"both have ended":              {store.Ended.Errorf("no"), store.Ended.Errorf("no"), nil, "shop 3"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, method := &desk{read: only("1", test.first, test.second)}, &counter{life: time.Hour}
				s, _ := opened(d, method)
				if _, err := s.Read(t.Context(), asWho(), store.Ref{}); err == nil {
					t.Fatal("the first login is good")
				}
				time.Sleep(time.Minute)
				method.err = test.login
				_, _ = s.Read(t.Context(), asWho(), store.Ref{})
				method.err = nil
				time.Sleep(time.Minute)
				d.askedBy, d.read = nil, only("", nil, nil)
				if _, err := s.Read(t.Context(), asWho(), store.Ref{}); err != nil || d.askedBy[0] != test.then {
					t.Errorf("asked by %q, %v, want %s", d.askedBy, err, test.then)
				}
			})
		})
	}
}

// A login cut off with its mount is no refusal.
func TestLoginThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := &logins{gate: make(chan struct{})}
		d := &desk{}
		s := login.Open(login.Options{Store: d, Sessions: login.NewSessions(method, false, time.Now), Now: time.Now})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Read(ctx, asWho(), store.Ref{})
		e, ok := errors.AsType[*store.Error](err)
		if !ok || e.Reason != store.Unavailable || !errors.Is(err, context.DeadlineExceeded) || login.Refused(err) {
			t.Errorf("got %v", err)
		}
		close(method.gate)
	})
}

// A login lives as long as the leases made with it, as they are renewed.
func TestLeasesDelayRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := &counter{}
		d := &desk{lease: store.Lease{Duration: time.Hour}}
		d.read = func(string) (store.Value, error) {
			return store.Value{Lease: &store.Lease{ID: secret.New([]byte("lease")), Duration: 30 * time.Minute}}, nil
		}
		s, sessions := opened(d, method)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- sessions.Run(ctx) }()
		value, err := s.Read(t.Context(), asWho(), store.Ref{})
		if err != nil || string(value.Lease.Login.Reveal()) != "1" {
			t.Fatalf("a lease of login %q, %v", value.Lease.Login.Reveal(), err)
		}
		time.Sleep(29 * time.Minute)
		renewed, err := s.Renew(t.Context(), asWho(), *value.Lease)
		if err != nil || string(renewed.Login.Reveal()) != "1" {
			t.Errorf("a renewed lease of login %q, %v", renewed.Login.Reveal(), err)
		}
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if len(method.returned()) != 0 {
			t.Error("the login was revoked before its lease ended")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !slices.Equal(method.returned(), []string{"1"}) {
			t.Errorf("after its lease: revoked %q", method.returned())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A lease is renewed and revoked as its maker: with its role, and with its login.
func TestMakerOfALease(t *testing.T) {
	d := &desk{}
	s, _ := opened(d, &counter{})
	lease := store.Lease{Login: secret.New([]byte("maker"))}
	if _, err := s.Renew(t.Context(), asWho(), lease); err != nil {
		t.Error(err)
	}
	if err := s.Revoke(t.Context(), asWho(), lease); err != nil {
		t.Error(err)
	}
	if want := []string{"shop maker", "shop maker"}; !slices.Equal(d.askedBy, want) {
		t.Errorf("asked by %q, want %q", d.askedBy, want)
	}
}

// The end of a login is final where no renewal moves it.
func TestEndsOfLogins(t *testing.T) {
	for name, test := range map[string]struct {
		method login.Method
		ends   time.Duration // 0 is never
		final  bool
	}{
		"renewable":     {&counter{life: time.Hour, renewable: true}, time.Hour, false},
		"not renewable": {&counter{life: time.Hour}, time.Hour, true},
		"for ever":      {&counter{}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &desk{read: func(string) (store.Value, error) { return store.Value{Lease: &store.Lease{}}, nil }}
				s, _ := opened(d, test.method)
				value, err := s.Read(t.Context(), asWho(), store.Ref{})
				if err != nil {
					t.Fatal(err)
				}
				var want time.Time
				if test.ends > 0 {
					want = time.Now().Add(test.ends)
				}
				if ends, final := s.Ends(asWho(), *value.Lease); !ends.Equal(want) || final != test.final {
					t.Errorf("ends %s, final %t", ends, final)
				}
				if ends, final := s.Ends(asWho(), store.Lease{Login: secret.New([]byte("unknown"))}); !ends.Equal(time.Now()) || !final {
					t.Errorf("of an unknown login: ends %s, final %t", ends, final)
				}
			})
		})
	}
}

// A credential's login lives at least as long as the credential.
func TestLastingRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, method := &desk{read: only("", nil, nil)}, &counter{life: time.Hour}
		s, _ := opened(d, method)
		read := func(lasting time.Duration, want int) {
			t.Helper()
			as := asWho()
			as.Lasting = lasting
			if _, err := s.Read(t.Context(), as, store.Ref{}); err != nil || method.count != want {
				t.Errorf("%d logins, want %d (%v)", method.count, want, err)
			}
		}
		read(0, 1)
		time.Sleep(40 * time.Minute)
		read(0, 1)
		read(30*time.Minute, 2)
	})
}
