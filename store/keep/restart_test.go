package keep_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// restarted is the successor of s on the same node, with the number of values taken over.
func restarted(t *testing.T, s, next kept) (after kept, values int) {
	t.Helper()
	values, err := next.Restore(snapshotOf(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return next, values
}

// A day in which keymount is started anew every half hour is like any other: the same
// credentials, renewed as often.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		for begin := time.Now(); time.Since(begin) < 24*time.Hour; s, _ = restarted(t, s, remember(inner)) {
			running(t, s, func() {
				for range 24 { // half an hour
					expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", max(1, inner.count()))
					got(t, s, session("api", "b"), "make/db")
					<-time.After(mountEvery)
				}
			})
			<-time.After(10 * time.Second)
		}
		if n := inner.count(); n != 2 {
			t.Errorf("%d credentials for two pods in a day, want 2", n)
		}
		if n := inner.renews; n < 2*34 || n > 2*42 { // every 36 to 40 minutes, and a little later where nobody served
			t.Errorf("%d renewals", n)
		}
	})
}

// After a restart ordinary secrets are read again, even pinned versions and denials.
func TestRestartReadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		s := remember(inner)
		got(t, s, session("api", "a"), "kv/db")
		s, values := restarted(t, s, remember(inner))
		if expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 2", 2); values != 0 {
			t.Errorf("%d values are taken over, want none", values)
		}
	})
}

// counted is a store that counts its reads.
type counted interface {
	login.Reader
	count() int
}

// A certificate stays until two thirds of its life are over, and an answer of a write without
// an end stays for a day. Older ones are not taken over.
func TestRestartKeepsWhatAWriteBrought(t *testing.T) {
	for name, test := range map[string]struct {
		inner counted
		hours int // that it is kept, at most
		life  time.Duration
	}{
		"a certificate": {&twofold{life: 60 * time.Hour}, 40, 60 * time.Hour}, "no end": {&counting{}, 24, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, ref := remember(test.inner), refTo(t, "pki/issue")
				ref.Args = `{"common_name":"a"}`
				for hour := range test.hours + 2 {
					if _, err := s.Read(t.Context(), session("api", "a"), ref); err != nil {
						t.Fatal(err)
					}
					if n := test.inner.count(); hour < test.hours*9/10 && n != 1 || hour > test.hours && n != 2 {
						t.Errorf("%d were made within %d hours", n, hour)
					}
					<-time.After(time.Hour)
					s, _ = restarted(t, s, remember(test.inner))
				}
				<-time.After(test.life)
				if _, values := restarted(t, s, remember(test.inner)); values != 0 {
					t.Error("what has ended is taken over")
				}
			})
		})
	}
}

// After a restart a credential belongs to the same pod, class, identity and role, and to no
// other.
func TestRestartSharesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		first := session("api", "a")
		got(t, s, first, "make/db")
		s, _ = restarted(t, s, remember(inner))
		reads := 1
		others := strangers() // and two of the same session, but with a volume of their own
		others["class"] = func(s *login.Request) { s.Volume.Class = "other" }
		others["pod"] = func(s *login.Request) { s.Identity.PodUID, s.Volume.PodUID = "another", "another" }
		for name, change := range others {
			as := first
			change(&as)
			reads++
			if got(t, s, as, "make/db"); inner.count() != reads {
				t.Errorf("with another %s it is the same credential", name)
			}
		}
		expect(t, inner, s, first, "make/db", "make/db of api as shop, 1", reads)
		got(t, s, first, "make/other")
		ref := refTo(t, "make/db")
		ref.Args = "{}"
		if _, err := s.Read(t.Context(), first, ref); err != nil || inner.count() != reads+2 {
			t.Errorf("with another path or other arguments it is the same credential (%v)", err)
		}
	})
}

// A credential that has ended is not taken over: by the clock, by the word of the store, or
// with its login.
func TestRestartAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *counting, kept){
		"the lease": func(_ *testing.T, _ *counting, _ kept) { <-time.After(time.Hour) },
		"the login": func(_ *testing.T, c *counting, _ kept) { c.set(func(c *counting) { c.login = time.Now() }) },
		"a denial": func(t *testing.T, c *counting, s kept) {
			t.Helper()
			<-time.After(55*time.Minute - time.Second)
			got(t, s, session("api", "a"), "make/db") // and what the path is
			c.set(func(c *counting) { c.fail = store.Denied.Errorf("no") })
			<-time.After(2 * time.Second) // it is to be replaced
			got(t, s, session("api", "a"), "make/db")
		},
		"a renewal that is refused": func(t *testing.T, c *counting, s kept) {
			t.Helper()
			running(t, s, func() {
				for range 7 {
					<-time.After(5 * time.Minute)
					got(t, s, session("api", "a"), "make/db")
				}
				c.set(func(c *counting) { c.fail = store.NotFound.Errorf("no such lease") })
				<-time.After(6 * time.Minute) // its renewal is due after 36 to 40 minutes
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
				s := remember(inner)
				got(t, s, session("api", "a"), "make/db")
				end(t, inner, s)
				if _, values := restarted(t, s, remember(inner)); values != 0 {
					t.Error("it is taken over")
				}
			})
		})
	}
}

// In an outage only the paths of credentials are known after a restart.
func TestRestartInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		got(t, s, session("api", "a"), "make/db")
		got(t, s, session("api", "a"), "kv/db")
		inner.set(func(c *counting) { c.fail = store.Unavailable.Errorf("away") })
		<-time.After(2 * refresh)
		s, _ = restarted(t, s, remember(inner))
		running(t, s, func() {
			for range 20 { // mounts are what keeps it
				expectText(t, got(t, s, session("api", "a"), "make/db"), "make/db of api as shop, 1")
				<-time.After(mountEvery)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := s.Read(ctx, session("api", "a"), refTo(t, "kv/db")); err == nil {
				t.Error("what can be read again is kept")
			}
		})
	})
}

// Rules are judged on the resolved path, even if only the process before could resolve it.
func TestRestartKeepsWhatAPathIs(t *testing.T) {
	inner := &twofold{life: time.Hour}
	before, ref := remember(inner), refTo(t, "literal/a")
	ref.Args = "{}"
	if _, err := before.Read(t.Context(), session("api", "a"), ref); err != nil {
		t.Fatal(err)
	}
	after, _ := restarted(t, before, remember(inner))
	want := store.Resolved{Path: refTo(t, "kv/metadata/x").Path, Literal: "metadata", Makes: true}
	if got, err := after.Resolve(t.Context(), session("api", "a"), ref); err != nil || got != want {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
}

// A renewal that a policy forbids is not tried again by the next process: the lease lives
// on to its end.
func TestRestartAfterARefusedRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		mounts := func() {
			running(t, s, func() {
				<-time.After(time.Second) // never at the moment of a renewal
				for range 8 {
					got(t, s, session("api", "a"), "make/db")
					inner.set(func(c *counting) { c.fail = store.Denied.Errorf("no policy") })
					<-time.After(150 * time.Second)
					inner.set(func(c *counting) { c.fail = nil })
				}
			})
		}
		mounts()
		mounts()
		if inner.renews != 1 {
			t.Fatalf("%d renewals, want one that was refused", inner.renews)
		}
		s, _ = restarted(t, s, remember(inner))
		mounts()
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 2", 2) // replaced in time
		if inner.renews != 1 {
			t.Errorf("%d renewals, want one", inner.renews)
		}
	})
}

// Ten minutes without a mount begin with the start. Then a credential is evicted, and not
// renewed any more; only that of a volume that is gone is revoked before.
func TestRestartOfAPodThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		for _, pod := range []string{"a", "b", "c"} {
			got(t, s, session("api", pod), "make/db")
		}
		<-time.After(9 * time.Minute)
		s, _ = restarted(t, s, remember(inner))
		running(t, s, func() {
			s.Leave(auth.Volume{Namespace: "shop", PodUID: "uid-of-c", Class: "app"})
			<-time.After(9*time.Minute + 30*time.Second)
			expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 3)
			<-time.After(150 * time.Second)
			expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 3)
			expect(t, inner, s, session("api", "b"), "make/db", "make/db of api as shop, 4", 4)
		})
		if diff := cmp.Diff([]string{"c app"}, inner.revoked()); diff != "" || inner.renews != 0 {
			t.Errorf("given back: %s; %d renewals", diff, inner.renews)
		}
	})
}

// A credential that is never mounted again is reported, as without a restart.
func TestRestartAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s, _ := telling(inner)
		got(t, s, session("api", "a"), "make/db")
		next, told := telling(inner)
		s, _ = restarted(t, s, next)
		running(t, s, func() { <-time.After(12 * time.Minute) })
		if diff := cmp.Diff([]string{"shop/a (uid-of-a, api) app: make/db in 1h0m0s"}, told.all()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A clock that is wrong at the start ends nothing that it does not know the end of.
func TestRestartWithTheClockSetBack(t *testing.T) {
	now := time.Now()
	at := func() time.Time { return now }
	inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
	started := func() kept {
		return newKept(asked(inner), keep.Options{Refresh: refresh, Replace: replace, Pool: poolOf(1 << 20), Now: at})
	}
	s := started()
	got(t, s, session("api", "a"), "make/db")
	now = now.Add(-time.Hour)
	s, _ = restarted(t, s, started())
	now = now.Add(time.Hour + time.Minute)
	expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
}

// A credential depends on its login also after a restart: it is renewed with it, and ends
// where the login is unknown.
func TestRestartWithLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		stack := func() (kept, *login.Sessions) {
			sessions := login.NewSessions(inner, false, time.Now)
			return newKept(logIn(below{inner}, sessions, time.Now), keep.Options{
				Refresh: refresh, Stale: stale, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now,
			}), sessions
		}
		s, sessions := stack()
		for _, kept := range []bool{true, true, false} {
			expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
			next, after := stack()
			if kept {
				if _, err := after.Restore(snapshotOf(t, sessions)); err != nil {
					t.Fatal(err)
				}
			}
			s, _ = restarted(t, s, next)
			sessions = after
		}
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 2", 2)
	})
}

// Login gives one that does not end.
func (c *counting) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	return login.Login{Token: secret.New([]byte("login"))}, nil
}
