package login_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// A login lives as long as the store lets it, and is used no longer.
func TestADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 24*time.Hour))
		mount := func(i auth.Identity) {
			given := n.open(t, i)
			if found, known := n.Find(i, "shop", given.Token); !known || time.Until(found.Expires) < time.Minute {
				t.Errorf("a login that is in use ends in %s (%t)", time.Until(found.Expires), known)
			}
		}
		n.day(t, 24*time.Hour-2*time.Minute, mount)
		if got := n.count(); got.logins != 1 || got.renewals < 32 || got.renewals > 40 || got.tries != got.renewals || got.revoked != 0 {
			t.Errorf("in a day %+v", got)
		}
		n.day(t, 24*time.Hour, mount)
		if got := n.count(); got.logins != 2 {
			t.Errorf("in two days %+v", got)
		}
	})
}

// Mounts answered from memory vouch for a login as well.
func TestVouchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 0))
		n.Vouch(until(time.Now().Add(time.Hour)), "shop")
		n.expect(t, 0, 0, 0)
		given := n.open(t, who())
		n.day(t, 6*time.Hour, func(i auth.Identity) {
			n.Vouch(i, "shop")
			n.use(t, given)
		})
		if got := n.count(); got.logins != 1 || got.renewals < 8 || got.revoked != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// A login is not renewed for a pod with an expired token.
func TestNoRenewalWithoutAFreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 0))
		mount := func(i auth.Identity, span time.Duration) {
			for range span / republish {
				n.open(t, i)
				time.Sleep(republish)
			}
		}
		mount(until(time.Now().Add(30*time.Minute)), 55*time.Minute)
		n.expect(t, 1, 0, 0)
		n.open(t, until(time.Now().Add(podToken)))
		time.Sleep(10 * time.Second)
		n.expect(t, 1, 1, 0)
		mount(until(time.Now().Add(-time.Second)), 20*time.Minute) // an older token takes nothing away
		mount(until(time.Now().Add(-time.Second)), 30*time.Minute)
		n.expect(t, 1, 2, 0)
	})
}

// Tokens that cannot be renewed are replaced, and those that do not end are not.
func TestNoRenewal(t *testing.T) {
	for name, test := range map[string]struct {
		ttl    time.Duration
		fixed  bool
		logins int
	}{"an hour": {time.Hour, true, 6}, "for ever": {0, true, 1}, "for ever, renewable": {0, false, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newTokens(test.ttl, 0)
				v.fixed = test.fixed
				n := startNode(t, v)
				n.day(t, 5*time.Hour+30*time.Minute, func(i auth.Identity) { n.open(t, i) })
				n.expect(t, test.logins, 0, 0)
				time.Sleep(11 * time.Minute)
				n.expect(t, test.logins, 0, 1)
			})
		})
	}
}

// After ten minutes without a mount a login is revoked, once, and no sooner.
func TestIdleLoginIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(12*time.Minute, 0))
		vouched := until(time.Now().Add(24 * time.Hour))
		n.open(t, vouched)
		time.Sleep(9*time.Minute + 50*time.Second)
		n.expect(t, 1, 1, 0)
		time.Sleep(20 * time.Second)
		n.expect(t, 1, 1, 1)
		time.Sleep(time.Hour)
		n.expect(t, 1, 1, 1)
		n.open(t, vouched)
		n.expect(t, 2, 1, 1)
	})
}

// A driver that asks less often than others is waited for: Spare says how long.
func TestIdleWithALongInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTokens(2*time.Hour, 0)
		v.spare = 38 * time.Minute
		n := startNode(t, v)
		for range 20 {
			n.open(t, until(time.Now().Add(24*time.Hour)))
			time.Sleep(31 * time.Minute)
		}
		if got := n.count(); got.logins != 1 || got.revoked != 0 {
			t.Errorf("%+v", got)
		}
		time.Sleep(10 * time.Minute)
		if got := n.count(); got.revoked != 1 {
			t.Errorf("idle: %+v", got)
		}
	})
}

// A login with a dependent lease is not revoked, and not renewed either.
func TestHeldLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(2*time.Hour, 0))
		i := until(time.Now().Add(24 * time.Hour))
		given := n.open(t, i)
		n.DelayRevocation(i, "shop", given.Token, time.Now().Add(time.Hour))
		n.DelayRevocation(i, "shop", given.Token, time.Now().Add(time.Minute)) // the longest counts
		n.DelayRevocation(i, "shop", secret.New([]byte("another")), time.Now().Add(24*time.Hour))
		n.DelayRevocation(i, "admin", given.Token, time.Now().Add(24*time.Hour))
		time.Sleep(59 * time.Minute)
		n.expect(t, 1, 0, 0)
		time.Sleep(2 * time.Minute)
		n.expect(t, 1, 0, 1)

		given = n.open(t, i)
		n.DelayRevocation(i, "shop", given.Token, time.Now().Add(12*time.Hour))
		time.Sleep(2*time.Hour + time.Minute)
		n.expect(t, 2, 0, 1)
		if _, known := n.Find(i, "shop", given.Token); known {
			t.Error("a login that has ended is still remembered")
		}
	})
}

// The login of a pod that is gone is revoked at once, despite dependent leases, unless pods
// share it or the pod turns out to be there.
func TestLeft(t *testing.T) {
	for _, perPod := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			v := newTokens(time.Hour, 0)
			n := startNodeOf(t, v, perPod)
			i := until(time.Now().Add(24 * time.Hour))
			given := n.open(t, i)
			n.DelayRevocation(i, "shop", given.Token, time.Now().Add(time.Hour))
			n.Left(i.Namespace, "another")
			n.Left("another", i.PodUID)
			time.Sleep(time.Minute)
			n.expect(t, 1, 0, 0)
			n.Left(i.Namespace, i.PodUID)
			n.Vouch(i, "shop")
			time.Sleep(time.Minute)
			n.expect(t, 1, 0, 0)
			n.Left(i.Namespace, i.PodUID)
			time.Sleep(10 * time.Second)
			n.expect(t, 1, 0, map[bool]int{true: 1, false: 0}[perPod])
		})
	}
}

// With a method that can neither renew nor revoke, logins end and are forgotten.
func TestIdleLoginIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := logins{life: 12 * time.Minute, renew: true}
		var log syncBuffer
		s := login.NewSessions(&method, false, time.Now)
		s.Log = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 1}, {9*time.Minute + 30*time.Second, 1}, {2 * time.Minute, 2}, {10*time.Minute + 10*time.Second, 3}} {
			time.Sleep(step.after)
			_, err := s.Open(t.Context(), until(time.Now().Add(time.Hour)), secret.Bytes{}, "shop")
			if err != nil || method.asked() != step.want {
				t.Errorf("%s later: %d logins, want %d (%v)", step.after, method.asked(), step.want, err)
			}
		}
		if got := log.lines(); got[0] != "" {
			t.Errorf("the log says %q", got)
		}
		cancel()
		running.Wait()
	})
}

// Pods go on when keymount ends: it revokes nothing. Tasks in flight end before Run does.
func TestEndOfRunRevokesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTokens(time.Hour, 0)
		v.slow = 10 * time.Second
		n := startNode(t, v)
		for at := range 45 * time.Minute / time.Second {
			if at%60 == 0 {
				n.Vouch(until(time.Now().Add(time.Hour)), "shop")
			}
			if at == 0 {
				n.open(t, until(time.Now().Add(time.Hour)))
			}
			time.Sleep(time.Second)
			if v.tried() == 1 {
				break
			}
		}
		n.stop()
		if got := n.count(); got.tries != 1 || got.atOnce != 0 {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Hour)
		n.expect(t, 1, 0, 0)
		if got := n.log.lines(); got[0] != "" {
			t.Errorf("the log says %q", got)
		}
	})
}

// A login that the store does not renew is not used any more.
func TestRefusedRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 0))
		n.fail(store.Ended.Errorf("invalid token"))
		n.day(t, 50*time.Minute, func(i auth.Identity) { n.open(t, i) })
		if n.expect(t, 2, 0, 0); n.tried() != 1 {
			t.Errorf("%d renewals were tried, want one", n.tried())
		}
		got := n.log.lines()
		if _, line, _ := strings.Cut(got[0], " "); len(got) != 1 || line !=
			`level=WARN msg="a login is not renewed or revoked" namespace=shop service_account=api role=shop error="the session has ended: invalid token"` {
			t.Errorf("the log says %q", got)
		}
	})
}

// While the store is out of reach it is asked again, less and less often, until the
// end is near; then a mount logs in.
func TestRenewalDuringAnOutage(t *testing.T) {
	for name, test := range map[string]struct {
		outage           time.Duration
		logins, renewals int
		says             error
	}{
		"that ends in time":            {50 * time.Minute, 1, 1, errors.New("store unavailable")},
		"that lasts":                   {58 * time.Minute, 2, 0, errors.New("store unavailable")},
		"with answers without a sense": {50 * time.Minute, 1, 1, store.Invalid.Errorf("store unavailable")},
		"with an address of nothing":   {50 * time.Minute, 1, 1, store.NotFound.Errorf("store unavailable")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := startNode(t, newTokens(time.Hour, 0))
				n.fail(test.says)
				n.day(t, test.outage, func(i auth.Identity) { n.open(t, i) })
				if n.tried() < 5 || n.tried() > 28 {
					t.Errorf("%d renewals were tried", n.tried())
				}
				if test.logins == 2 {
					n.day(t, 3*time.Minute, func(i auth.Identity) { n.open(t, i) })
				}
				n.fail(nil)
				n.day(t, 3*time.Minute, func(i auth.Identity) { n.open(t, i) })
				n.expect(t, test.logins, test.renewals, 0)
				if got := n.log.lines(); len(got) != 1 || !strings.Contains(got[0], "store unavailable") {
					t.Errorf("the log says %q, want one line", got)
				}
				n.fail(errors.New("store unavailable again"))
				n.day(t, 50*time.Minute, func(i auth.Identity) { n.open(t, i) })
				if got := n.log.lines(); len(got) != 2 || !strings.Contains(got[1], "store unavailable again") {
					t.Errorf("the log says %q, want one line for each outage", got)
				}
			})
		})
	}
}

// A revocation without an answer is tried again, and a mount meanwhile uses the login again.
func TestRevocationDuringAnOutage(t *testing.T) {
	for _, says := range []error{errors.New("store unavailable"), store.Invalid.Errorf("no sense"), store.NotFound.Errorf("nothing is there")} {
		synctest.Test(t, func(t *testing.T) {
			n := startNode(t, newTokens(24*time.Hour, 0))
			n.fail(says)
			n.open(t, who())
			time.Sleep(12 * time.Minute)
			n.expect(t, 1, 0, 0)
			n.open(t, who())
			n.expect(t, 1, 0, 0)
			n.fail(nil)
			time.Sleep(9 * time.Minute)
			n.expect(t, 1, 0, 0)
			time.Sleep(2*time.Minute + 10*time.Second)
			n.expect(t, 1, 0, 1)
		})
	}
}

// A login in revocation is not used any more.
func TestLoginDuringARevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTokens(24*time.Hour, 0)
		v.slow = 15 * time.Second
		n := startNode(t, v)
		first := n.open(t, who())
		for v.tried() == 0 {
			time.Sleep(time.Second)
		}
		second := n.open(t, who())
		if _, known := n.Find(who(), "shop", first.Token); known {
			t.Error("a login that is being revoked is taken for one that lives")
		}
		time.Sleep(9 * time.Minute)
		n.expect(t, 2, 0, 1)
		n.use(t, second)
		n.open(t, who())
		n.expect(t, 2, 0, 1)
		v.mu.Lock()
		defer v.mu.Unlock()
		if n.lives(string(first.Token.Reveal())) {
			t.Error("the first login is not revoked")
		}
	})
}

// A renewal of a login replaced meanwhile does not change the new one.
func TestReplacedDuringARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTokens(time.Hour, 0)
		v.slow = 15 * time.Second
		n := startNode(t, v)
		n.fail(store.Ended.Errorf("invalid token"))
		i := until(time.Now().Add(podToken))
		given := n.open(t, i)
		for v.tried() == 0 {
			time.Sleep(time.Second)
			n.Vouch(i, "shop")
		}
		n.Forget(i, "shop", given, true)
		n.open(t, i)
		time.Sleep(time.Minute)
		n.open(t, i)
		n.expect(t, 2, 0, 0)
	})
}

// A renewal with a shorter life than asked for is the last: the store's end is near, and the
// login is replaced in time for the credentials made with it.
func TestLastRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTokens(time.Hour, 90*time.Minute)
		v.spare = 10 * time.Minute
		n := startNode(t, v)
		n.day(t, 80*time.Minute-time.Second, func(i auth.Identity) { n.open(t, i) })
		if n.expect(t, 1, 1, 0); n.tried() != 1 {
			t.Errorf("%d renewals were tried, want one", n.tried())
		}
		n.open(t, until(time.Now().Add(podToken)))
		n.expect(t, 2, 1, 0)
	})
}

// A login that no policy lets renew itself lives on to its end; it is tried once.
func TestRenewalThatIsNotAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTokens(time.Hour, 0)
		v.spare = 10 * time.Minute
		n := startNode(t, v)
		n.open(t, until(time.Now().Add(podToken)))
		v.fail(store.Denied.Errorf("no policy"))
		for range 48 {
			n.Vouch(until(time.Now().Add(podToken)), "shop")
			time.Sleep(time.Minute)
		}
		v.fail(nil)
		n.open(t, until(time.Now().Add(podToken)))
		if n.expect(t, 1, 0, 0); n.tried() != 1 {
			t.Errorf("%d renewals were tried, want one", n.tried())
		}
		time.Sleep(2 * time.Minute)
		n.open(t, until(time.Now().Add(podToken)))
		n.expect(t, 2, 0, 0)
		if lines := n.log.lines(); len(strings.Join(lines, "")) > 0 {
			t.Errorf("logged %q", lines)
		}
	})
}

// A short life, too, always has enough left for the credentials made with the login.
func TestShortLivesAreRenewedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTokens(10*time.Minute, 0)
		v.spare = 10 * time.Minute
		n := startNode(t, v)
		n.day(t, time.Hour, func(i auth.Identity) {
			given := n.open(t, i)
			if found, _ := n.Find(i, "shop", given.Token); time.Until(found.Expires) < 6*time.Minute {
				t.Errorf("%s are left", time.Until(found.Expires))
			}
		})
		if got := n.count(); got.logins != 1 || got.renewals < 15 || got.renewals > 20 {
			t.Errorf("%+v", got)
		}
	})
}

// Many logins that were made at once are not renewed all at once.
func TestRenewalsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 200
		v := newTokens(time.Hour, 0)
		v.slow = 15 * time.Second
		n := startNode(t, v)
		n.day(t, 58*time.Minute, func(i auth.Identity) {
			for service := range many {
				i.ServiceAccount = fmt.Sprint(service)
				n.open(t, i)
			}
		})
		if got := n.count().mostAtOnce; got != 4 {
			t.Errorf("%d renewals at once, want 4", got)
		}
		n.expect(t, many, many, 0)
	})
}

// The login with the soonest end is renewed first.
func TestWhatEndsFirstIsRenewedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset atomic.Int64
		v := newTokens(0, 0)
		v.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		n := startNode(t, v)
		for service := range 12 {
			v.ttl = time.Duration(2+(7*service)%12) * time.Hour
			i := until(time.Now().Add(time.Hour))
			i.ServiceAccount = fmt.Sprint(v.ttl)
			n.open(t, i)
		}
		v.slow = time.Second
		offset.Store(int64(-time.Minute)) // the ends of all are not known any more
		time.Sleep(7 * time.Second)
		n.stop()
		if len(v.order) < 8 {
			t.Fatalf("%q were renewed", v.order)
		}
		for n, service := range v.order[:8] {
			hours, _ := strconv.Atoi(strings.TrimSuffix(service, "h0m0s"))
			if n/4 != (hours-2)/4 { // four at a time
				t.Errorf("%s was renewed as number %d of %q", service, n, v.order)
			}
		}
	})
}

// The clock of a node may be set at any time. Logins go on being shared, renewed and revoked,
// and none is used after its end.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		for _, after := range []time.Duration{5 * time.Minute, 30 * time.Minute, 50 * time.Minute} {
			t.Run(fmt.Sprintf("%s after %s", jump, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testClockJump(t, jump, after) })
			})
		}
	}
}

func testClockJump(t *testing.T, jump, after time.Duration) {
	t.Helper()
	var offset atomic.Int64
	v := newTokens(time.Hour, 0)
	v.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())).Round(0) }
	n := startNode(t, v)
	var last login.Login
	mounts := func(span time.Duration) {
		for range span / republish {
			last = n.open(t, until(v.now().Add(podToken)))
			time.Sleep(republish)
		}
	}
	mounts(after)
	offset.Store(int64(jump))
	mounts(3 * time.Hour)
	offset.Store(0)
	mounts(3 * time.Hour)
	before := n.count()
	if before.logins > 3 || before.renewals < 6 || before.revoked != 0 {
		t.Errorf("%+v", before)
	}
	time.Sleep(8 * time.Minute)
	offset.Store(int64(jump))
	time.Sleep(9 * time.Minute)
	if n.count().revoked != 0 {
		t.Error("a clock that was set made a login idle")
	}
	time.Sleep(2 * time.Minute)
	if _, known := n.Find(who(), "shop", last.Token); known || n.count().logins != before.logins {
		t.Errorf("a login that is idle is kept (%t); %+v", known, n.count())
	}
}

// The end of a login that cannot be renewed is not known after the clock was set back.
func TestClockSetBackAfterALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var offset time.Duration
		method := logins{life: time.Hour}
		s := login.NewSessions(&method, false, func() time.Time { return time.Now().Add(offset) })
		for _, step := range []struct {
			offset time.Duration
			want   int
		}{{0, 1}, {-time.Second, 2}, {-time.Hour, 3}, {-time.Hour, 3}} {
			offset = step.offset
			if _, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop"); err != nil || method.asked() != step.want {
				t.Errorf("%s: %d logins, want %d (%v)", offset, method.asked(), step.want, err)
			}
		}
	})
}

// A refusal does not last longer because the clock was set back.
func TestClockJumpsAfterARefusal(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		var offset time.Duration
		method := logins{err: store.Denied.Errorf("denied")}
		s := login.NewSessions(&method, false, func() time.Time { return time.Unix(1e9, 0).Add(offset) })
		for range 2 {
			_, _ = s.Open(t.Context(), who(), secret.Bytes{}, "shop")
			_, _ = s.Open(t.Context(), who(), secret.Bytes{}, "shop")
			offset += jump
		}
		if method.asked() != 2 {
			t.Errorf("%s: %d logins, want 2", jump, method.asked())
		}
	}
}

// A service account deleted and made anew is another identity: it gets a login of its own,
// and the old one is revoked.
func TestServiceAccountMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 0))
		old := n.open(t, until(time.Now().Add(podToken)))
		time.Sleep(time.Minute)
		n.day(t, 12*time.Minute, func(i auth.Identity) {
			i.ServiceAccountUID = "uid-2"
			if given := n.open(t, i); string(given.Token.Reveal()) == string(old.Token.Reveal()) {
				t.Fatal("the login of the old one")
			}
			if _, known := n.Find(i, "shop", old.Token); known {
				t.Error("the new one knows the login of the old one")
			}
		})
		n.expect(t, 2, 0, 1)
	})
}

// clumsy is a store that panics in every call but a login.
type clumsy struct{ logins }

func (*clumsy) Renew(context.Context, auth.Identity, login.Login) (login.Login, error) {
	panic("canary")
}
func (*clumsy) Revoke(context.Context, auth.Identity, login.Login) error { panic("canary") }

func TestPanicInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log syncBuffer
		s := login.NewSessions(&clumsy{logins{life: 12 * time.Minute, renew: true}}, false, time.Now)
		s.Log = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		if _, err := s.Open(t.Context(), until(time.Now().Add(time.Hour)), secret.Bytes{}, "shop"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		cancel()
		running.Wait()
		got := strings.Join(log.lines(), "\n")
		if strings.Contains(got, "canary") || !strings.Contains(got, "panic=string") || !strings.Contains(got, "(*clumsy).Renew") {
			t.Errorf("the log says %s", got)
		}
	})
}
