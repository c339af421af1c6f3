package keep_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// mountEvery is how often the kubelet calls.
const mountEvery = 75 * time.Second

// running keeps s until the story ends.
func running(t *testing.T, s kept, story func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Run(ctx) }()
	story()
	cancel()
	<-ended
}

// A credential stays the same while its lease can be renewed, is another pod's never,
// and is renewed at two thirds of its life.
func TestLeaseIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		running(t, s, func() {
			for end := time.Now().Add(24 * time.Hour); time.Now().Before(end); <-time.After(mountEvery) {
				expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", max(1, inner.count()))
				got(t, s, session("api", "b"), "make/db")
			}
			if n := inner.count(); n != 2 {
				t.Errorf("%d credentials for two pods in a day, want 2", n)
			}
			if n := inner.renews; n < 2*36 || n > 2*42 { // every 36 to 40 minutes
				t.Errorf("%d renewals", n)
			}
		})
	})
}

// A short life is prolonged before it would be replaced.
func TestLeaseIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: 7 * time.Minute, Renewable: true}}
		s := remember(inner)
		running(t, s, func() {
			for end := time.Now().Add(24 * time.Hour); time.Now().Before(end); <-time.After(mountEvery) {
				expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
			}
		})
	})
}

// One that cannot be renewed is replaced so early that the replacement reaches the
// pod before the end, and not earlier.
func TestLeaseIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		s := remember(inner)
		made, last := time.Now(), ""
		running(t, s, func() {
			for end := time.Now().Add(24 * time.Hour); time.Now().Before(end); <-time.After(mountEvery) {
				text := got(t, s, session("api", "a"), "make/db")
				if text != last {
					age := time.Since(made)
					if last != "" && (age > time.Hour-replace+mountEvery || age < time.Hour-replace) {
						t.Errorf("replaced after %s", age)
					}
					made, last = time.Now(), text
				}
			}
		})
		if n := inner.count(); n != 27 { // one in each 55 minutes
			t.Errorf("%d credentials in a day, want 27", n)
		}
	})
}

// A lease ends with the login that made it, and is replaced before that.
func TestLeaseEndsWithItsLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: 24 * time.Hour, Renewable: true}, login: time.Now().Add(30 * time.Minute)}
		s := remember(inner)
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
		<-time.After(24 * time.Minute)
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
		inner.set(func(c *counting) { c.login = time.Now().Add(30 * time.Minute) })
		<-time.After(24 * time.Minute) // the login was renewed, and the lease lives on
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
		<-time.After(2 * time.Minute)
		inner.set(func(c *counting) { c.login = time.Time{} })
		expect(t, inner, s, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
	})
}

// A lease without recent mounts is not renewed.
func TestLeaseOfAPodThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		running(t, s, func() {
			got(t, s, session("api", "a"), "make/db")
			<-time.After(3 * time.Hour)
		})
		if inner.renews != 0 {
			t.Errorf("%d renewals of a pod that is gone", inner.renews)
		}
	})
}

// While the store is away a credential is used until its end, and no longer.
func TestLeaseInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		running(t, s, func() {
			got(t, s, session("api", "a"), "make/db")
			inner.set(func(c *counting) { c.fail = store.Unavailable.Errorf("away") })
			began := time.Now()
			for time.Since(began) < time.Hour-mountEvery {
				if text := got(t, s, session("api", "a"), "make/db"); !strings.HasPrefix(text, "make/db of api as shop, 1") {
					t.Fatalf("after %s: %s", time.Since(began), text)
				}
				<-time.After(mountEvery)
			}
			<-time.After(2 * mountEvery)
			if text := got(t, s, session("api", "a"), "make/db"); text != "store unavailable: away" {
				t.Errorf("after its end: %s", text)
			}
		})
	})
}

// A renewal that the store refuses ends a lease that is gone.
func TestLeaseThatWasRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		running(t, s, func() {
			got(t, s, session("api", "a"), "make/db")
			for range 7 {
				<-time.After(5 * time.Minute)
				got(t, s, session("api", "a"), "make/db")
			}
			inner.set(func(c *counting) { c.fail = store.Invalid.Errorf("no such lease") })
			<-time.After(6 * time.Minute) // its renewal is due after 36 to 40 minutes
			inner.set(func(c *counting) { c.fail = nil })
			expectText(t, got(t, s, session("api", "a"), "make/db"), "make/db of api as shop, 2")
		})
	})
}

// A life that is too short to be kept is refused, and the store is not asked for
// another one at every mount.
func TestLeaseTooShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Minute, Renewable: true}}
		s := remember(inner)
		for range 10 {
			expectText(t, got(t, s, session("api", "a"), "make/db"),
				"invalid: what the store made lives for 1m0s, and the least is 7m0s; raise the ttl of its role, or that of the login")
			<-time.After(time.Second)
		}
		if n := inner.count(); n != 1 {
			t.Errorf("%d credentials were made", n)
		}
	})
}

// A driver that asks less often than others keeps a credential, too.
func TestLeaseWithALongInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 30 * time.Minute
		inner := &counting{lease: store.Lease{Duration: 3 * time.Hour, Renewable: true}}
		s := newKept(asked(inner), keep.Options{Refresh: refresh, Replace: interval + 3*time.Minute, Pool: poolOf(1 << 20), Now: time.Now})
		running(t, s, func() {
			for range 24 {
				expectText(t, got(t, s, session("api", "a"), "make/db"), "make/db of api as shop, 1")
				<-time.After(interval + mountEvery)
			}
			renewed := inner.renews
			<-time.After(3 * time.Hour)
			if inner.renews > renewed+1 {
				t.Errorf("%d renewals of a pod that is gone", inner.renews-renewed)
			}
		})
	})
}

// Pods share a credential where the class says so.
func TestLeaseShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		ref := refTo(t, "make/db")
		ref.Shared = true
		for _, pod := range []string{"a", "b", "c"} {
			if _, err := s.Read(t.Context(), session("api", pod), ref); err != nil {
				t.Fatal(err)
			}
		}
		if n := inner.count(); n != 1 {
			t.Errorf("%d credentials, want 1", n)
		}
	})
}

// The next end is that of the credential that goes first, until it is renewed; what volumes
// have left behind does not count.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		began := time.Now()
		running(t, s, func() {
			if got := s.Ends(); got != (keep.Ends{}) {
				t.Errorf("before: %+v", got)
			}
			got(t, s, session("api", "a"), "make/db")
			time.Sleep(time.Minute)
			got(t, s, session("api", "b"), "make/db")
			if got := s.Ends(); got.Leases != 2 || !got.Lease.Equal(began.Add(time.Hour)) || !got.Value.IsZero() {
				t.Errorf("%+v, want two leases, the first until %s", got, began.Add(time.Hour))
			}
			time.Sleep(time.Hour)
			if got := s.Ends(); got.Leases != 0 {
				t.Errorf("without mounts: %+v", got)
			}
		})
	})
}
