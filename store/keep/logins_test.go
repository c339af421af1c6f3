package keep_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// short is a store with logins of ten minutes, by which its credentials live.
type short struct {
	*counting
	batch bool          // its logins cannot be renewed
	most  time.Duration // for which a login can be; 0 is for ever
	born  []time.Time   // of the logins
}

func (s *short) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	s.born = append(s.born, time.Now())
	return s.live(login.Login{Token: secret.New(fmt.Append(nil, len(s.born)))}), nil
}

func (s *short) live(login login.Login) login.Login {
	life := 10 * time.Minute
	if s.most > 0 {
		n, _ := strconv.Atoi(string(login.Token.Reveal()))
		life = min(life, s.most-time.Since(s.born[n-1]))
	}
	login.Expires, login.Renewable = time.Now().Add(life), !s.batch
	return login
}

// renewer is the login method of a short, apart from it because its Renew would clash with
// that of leases.
type renewer struct{ *short }

func (r renewer) Renew(_ context.Context, _ auth.Identity, login login.Login) (login.Login, error) {
	return r.live(login), nil
}

func (renewer) Revoke(context.Context, auth.Identity, login.Login) error { return nil }

// Whenever a pod comes, its credential is good for long enough, however short logins
// are: none is asked for with a login that is about to end, and none is refused.
func TestCredentialsOfShortLogins(t *testing.T) {
	for name, inner := range map[string]*short{
		"renewed for ever": {}, "renewed for half an hour": {most: 30 * time.Minute}, "renewed once": {most: 15 * time.Minute}, "batch": {batch: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testShortLogins(t, inner) })
		})
	}
}

func testShortLogins(t *testing.T, inner *short) {
	t.Helper()
	inner.counting = &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
	sessions := login.NewSessions(renewer{inner}, false, time.Now)
	sessions.Spare = replace + keep.LeastLife
	s := newKept(logIn(below{inner.counting}, sessions, time.Now), keep.Options{
		Refresh: refresh, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now,
		Vouch: func(s login.Request) { sessions.Vouch(s.Identity, s.Role) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- sessions.Run(ctx) }()
	var pods []login.Request
	running(t, s, func() {
		for minute := range 4 * 60 {
			if minute%13 == 0 { // at every age of a login
				pods = append(pods, session("api", fmt.Sprint(minute)))
			}
			for _, pod := range pods {
				pod.Identity.Expires = time.Now().Add(time.Hour)
				if text := got(t, s, pod, "make/db"); !strings.HasPrefix(text, "make/db of api") {
					t.Fatalf("minute %d: %s", minute, text)
				}
			}
			<-time.After(time.Minute)
		}
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(inner.revoked()); n > 0 {
		t.Errorf("%d credentials were too short", n)
	}
	if !inner.batch && inner.most == 0 && (len(inner.born) != 1 || inner.count() != len(pods)) {
		t.Errorf("%d logins and %d credentials for %d pods", len(inner.born), inner.count(), len(pods))
	}
}

// denying is a store that denies and a login that works once.
type denying struct {
	kind store.Reason
	made int
}

func (d *denying) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	if d.made++; d.made > 1 {
		return login.Login{}, fmt.Errorf("login: %w", store.Unavailable)
	}
	return login.Login{Token: secret.New([]byte("token"))}, nil
}

func (d *denying) Read(context.Context, store.Caller, store.Ref) (store.Value, error) {
	return store.Value{}, d.kind
}

// A denial stays one although no login can be had to see whether it would be one with
// another login, too; a login that has ended is no denial.
func TestDenialWhileNobodyCanLogIn(t *testing.T) {
	for kind, want := range map[store.Reason]error{store.Doubt: store.Doubt, store.Ended: store.Unavailable} {
		synctest.Test(t, func(t *testing.T) {
			inner := &denying{kind: kind}
			s := logIn(inner, login.NewSessions(inner, false, time.Now), time.Now)
			_, _ = s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db"))
			<-time.After(time.Hour)
			inner.made = 0
			if _, err := s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db")); !errors.Is(err, want) {
				t.Errorf("%v becomes %v", kind, err)
			}
			inner.made = 1
			<-time.After(time.Hour)
			if _, err := s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db")); !errors.Is(err, want) {
				t.Errorf("%v becomes %v without a login", kind, err)
			}
		})
	}
}

// doubted is a store that denies the path kv/denied without saying why, and makes
// credentials at others.
type doubted struct {
	below
	logins int
	away   bool  // nobody can log in
	then   error // of what is denied, with another login than the first
}

func (d *doubted) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	if d.away {
		return login.Login{}, fmt.Errorf("login: %w", store.Unavailable)
	}
	d.logins++
	return login.Login{Token: secret.New(fmt.Append(nil, d.logins)), Expires: time.Now().Add(time.Hour), Renewable: true}, nil
}

func (d *doubted) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	if ref.Path.String() == "kv/denied" {
		if string(caller.Login.Reveal()) != "1" {
			return store.Value{}, d.then
		}
		return store.Value{}, store.Doubt
	}
	return d.below.Read(ctx, caller, ref)
}

// prolonged are a doubted's logins.
type prolonged struct{ *doubted }

func (prolonged) Renew(_ context.Context, _ auth.Identity, login login.Login) (login.Login, error) {
	login.Expires = time.Now().Add(time.Hour)
	return login, nil
}

func (prolonged) Revoke(context.Context, auth.Identity, login.Login) error { return nil }

// A path denied all day, of a role without the right to look at its own login, costs a login
// now and then, and no other pod its credential; not even when logins fail for hours.
func TestDoubtCostsNobodyACredential(t *testing.T) {
	for _, then := range []error{store.Doubt, store.Denied, store.Unavailable} {
		t.Run(then.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testDoubt(t, then) })
		})
	}
}

func testDoubt(t *testing.T, then error) {
	t.Helper()
	inner := &doubted{below: below{&counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}}, then: then}
	sessions := login.NewSessions(prolonged{inner}, false, time.Now)
	sessions.Spare = replace + keep.LeastLife
	s := newKept(logIn(inner, sessions, time.Now), keep.Options{
		Refresh: refresh, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now,
		Vouch: func(s login.Request) { sessions.Vouch(s.Identity, s.Role) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- sessions.Run(ctx) }()
	running(t, s, func() {
		for minute := range 24 * 60 {
			inner.away = minute > 60 && minute < 600
			a, b := session("api", "a"), session("api", "b")
			a.Identity.Expires, b.Identity.Expires = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
			expectText(t, got(t, s, a, "make/db"), "make/db of api as shop, 1")
			if text := got(t, s, b, "kv/denied"); text != store.Doubt.Error() && text != then.Error() {
				t.Fatal(text)
			}
			<-time.After(time.Minute)
		}
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if inner.logins > 24*3+3 {
		t.Errorf("%d logins for a denial", inner.logins)
	}
}
