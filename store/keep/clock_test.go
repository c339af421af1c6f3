package keep_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// keepBy is a Keeper with a clock ahead, or behind.
func keepBy(ahead *atomic.Int64, inner login.Reader) kept {
	return newKept(asked(inner), keep.Options{
		Refresh: refresh, Stale: stale, Replace: replace, Pool: poolOf(1 << 20), Now: func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) },
	})
}

// A clock that jumps makes a secret read again at worst.
func TestKeepWithAJumpingClock(t *testing.T) {
	inner := &counting{}
	now := time.Now()
	s := newKept(asked(inner), keep.Options{Refresh: refresh, Stale: stale, Pool: poolOf(1 << 20), Now: func() time.Time { return now }})
	expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
	now = now.Add(-time.Hour)
	expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 2", 2)
	now = now.Add(2 * time.Hour)
	expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 3", 3)
}

// The rest of a lease is unknown after the clock was set back. Its pod gets another
// credential, and none in an outage of the store.
func TestLeaseAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		var ahead atomic.Int64
		ahead.Store(int64(30 * time.Minute))
		s := keepBy(&ahead, inner)
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
		ahead.Store(0)
		inner.set(func(c *counting) { c.fail = store.Unavailable.Errorf("away") })
		expectText(t, got(t, s, session("api", "a"), "make/db"), "store unavailable: away")
		inner.set(func(c *counting) { c.fail = nil })
		<-time.After(10 * time.Second)
		expectText(t, got(t, s, session("api", "a"), "make/db"), "make/db of api as shop, 3")
	})
}

// It is renewed at once where that is possible, and goes on being renewed in time.
func TestLeaseIsRenewedAfterTheClockWasSetBack(t *testing.T) {
	for _, wrong := range [][2]time.Duration{{30 * time.Minute, 0}, {0, -30 * time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
			var ahead atomic.Int64
			ahead.Store(int64(wrong[0]))
			s := keepBy(&ahead, inner)
			running(t, s, func() {
				expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
				ahead.Store(int64(wrong[1]))
				<-time.After(11 * time.Second)
				if n := renewals(inner); n != 1 {
					t.Fatalf("%d renewals after the clock was set from %s to %s", n, wrong[0], wrong[1])
				}
				for range 40 * time.Minute / mountEvery {
					<-time.After(mountEvery)
					expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
				}
				if n := renewals(inner); n != 2 {
					t.Errorf("%d renewals in the 40 minutes after it", n-1)
				}
			})
		})
	}
}

func renewals(c *counting) (n int) {
	c.set(func(c *counting) { n = c.renews })
	return n
}

// Values outlive a clock ahead for a moment, because no pod could mount meanwhile.
func TestMemoryOutlivesAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: 24 * time.Hour}}
		var ahead atomic.Int64
		s := keepBy(&ahead, inner)
		running(t, s, func() {
			expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
			ahead.Store(int64(time.Hour))
			<-time.After(5 * time.Minute)
			ahead.Store(0)
			expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
			<-time.After(12 * time.Minute)
			expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 2", 2)
		})
	})
}

// A denial does not last longer because the clock was set back.
func TestDenialAfterTheClockWasSetBack(t *testing.T) {
	inner := &counting{fail: store.Denied}
	ahead := time.Hour
	s := newKept(readOnly(inner), keep.Options{
		Refresh: refresh, Pool: poolOf(1 << 20), Now: func() time.Time { return time.Now().Add(ahead) },
	})
	expectText(t, got(t, s, session("api", "a"), "kv/db"), "denied by the store")
	ahead, inner.fail = 0, nil
	expectText(t, got(t, s, session("api", "a"), "kv/db"), "kv/db of api as shop, 2")
}

// Neither does the wish to have everything read again.
func TestRefreshAfterTheClockWasSetBack(t *testing.T) {
	inner := &counting{}
	var ahead atomic.Int64
	ahead.Store(int64(time.Hour))
	s := keepBy(&ahead, inner)
	s.Refresh()
	ahead.Store(0)
	expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
	expect(t, inner, s, session("api", "a"), "kv/db", "kv/db of api as shop, 1", 1)
}
