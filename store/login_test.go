package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// short is a store with logins of ten minutes, by which its credentials live.
type short struct {
	*counting
	batch bool // its logins cannot be renewed
	made  int
}

func (s *short) Login(context.Context, auth.Identity, secret.Bytes, string) (auth.Login, error) {
	s.made++
	return auth.Login{Token: secret.New(fmt.Append(nil, s.made)), Expires: time.Now().Add(10 * time.Minute), Renewable: !s.batch}, nil
}

func (s *short) renew(_ context.Context, _ auth.Identity, login auth.Login) (auth.Login, error) {
	login.Expires = time.Now().Add(10 * time.Minute)
	return login, nil
}

// renewer is a short's logins, whose Renew would clash with that of its leases.
type renewer struct{ *short }

func (r renewer) Renew(ctx context.Context, i auth.Identity, login auth.Login) (auth.Login, error) {
	return r.renew(ctx, i, login)
}

func (renewer) Revoke(context.Context, auth.Identity, auth.Login) error { return nil }

// Whenever a pod comes, its credential is good for long enough, however short logins
// are: none is asked for with a login that is about to end, and none is refused.
func TestCredentialsOfShortLogins(t *testing.T) {
	for _, batch := range []bool{false, true} {
		t.Run(fmt.Sprintf("batch %t", batch), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testShortLogins(t, batch) })
		})
	}
}

func testShortLogins(t *testing.T, batch bool) {
	t.Helper()
	inner := &short{counting: &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}, batch: batch}
	sessions := auth.NewSessions(renewer{inner}, false, time.Now)
	sessions.Spare = replace + store.LeastLife
	s := store.Keep(store.LogIn(inner.counting, sessions, time.Now), store.KeepOptions{
		Refresh: refresh, Replace: replace, Bytes: 1 << 20, Now: time.Now,
		Vouch: func(s store.Session) { sessions.Vouch(s.Identity, s.Role) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- sessions.Run(ctx) }()
	var pods []store.Session
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
	if !batch && (inner.made != 1 || inner.count() != len(pods)) {
		t.Errorf("%d logins and %d credentials for %d pods", inner.made, inner.count(), len(pods))
	}
}

// denying is a store that denies and a login that works once.
type denying struct {
	kind error
	made int
}

func (d *denying) Login(context.Context, auth.Identity, secret.Bytes, string) (auth.Login, error) {
	if d.made++; d.made > 1 {
		return auth.Login{}, fmt.Errorf("login: %w", store.ErrUnavailable)
	}
	return auth.Login{Token: secret.New([]byte("token"))}, nil
}

func (d *denying) Read(context.Context, store.Session, store.Ref) (store.Value, error) {
	return store.Value{}, d.kind
}

// A denial stays one although no login can be had to see whether it would be one with
// another login, too; a login that has ended is no denial.
func TestDenialWhileNobodyCanLogIn(t *testing.T) {
	for kind, want := range map[error]error{store.ErrDoubt: store.ErrDoubt, store.ErrSession: store.ErrUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			inner := &denying{kind: kind}
			s := store.LogIn(inner, auth.NewSessions(inner, false, time.Now), time.Now)
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
