package keep_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/inflight"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// revoked are the leases revoked so far, by pod and class.
func (c *counting) revoked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.revokes...)
}

// The lease of a volume that is gone is revoked soon, and no other one.
func TestLeaseOfAVolumeThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := remember(inner)
		other := session("api", "a")
		other.Volume.Class = "other"
		running(t, s, func() {
			for _, as := range []login.Request{session("api", "a"), session("api", "b"), other} {
				got(t, s, as, "make/db")
			}
			got(t, s, session("api", "a"), "kv/db")
			s.Leave(auth.Volume{Namespace: "shop", PodUID: "uid-of-a", Class: "app"})
			s.Leave(auth.Volume{Namespace: "shop", PodUID: "uid-of-nobody", Class: "app"})
			s.Leave(auth.Volume{Namespace: "blog", PodUID: "uid-of-b", Class: "app"}) // nobody there
			<-time.After(time.Minute)
			if diff := cmp.Diff([]string{"a app"}, inner.revoked()); diff != "" {
				t.Error(diff)
			}
			expect(t, inner, s, session("api", "b"), "make/db", "make/db of api as shop, 2", 4)
			expect(t, inner, s, other, "make/db", "make/db of api as shop, 3", 4)
		})
	})
}

// A revocation that fails in an outage is tried again, but not after the end of the lease.
func TestLeaseIsGivenBackAfterAnOutage(t *testing.T) {
	for after, want := range map[time.Duration][]string{50 * time.Minute: {"a app"}, 70 * time.Minute: {}} {
		synctest.Test(t, func(t *testing.T) {
			inner := &counting{lease: store.Lease{Duration: time.Hour}}
			s := remember(inner)
			running(t, s, func() {
				got(t, s, session("api", "a"), "make/db")
				inner.set(func(c *counting) { c.fail = store.Unavailable.Errorf("away") })
				s.Leave(auth.Volume{Namespace: "shop", PodUID: "uid-of-a", Class: "app"})
				<-time.After(after)
				inner.set(func(c *counting) { c.fail, c.revokes = nil, nil })
				<-time.After(time.Minute)
				if diff := cmp.Diff(want, inner.revoked()); diff != "" {
					t.Errorf("after %s: %s", after, diff)
				}
			})
		})
	}
}

// A revocation forbidden by a policy is logged once, with the cure.
func TestLeaseThatMayNotBeGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		var log bytes.Buffer
		s := newKept(asked(inner), keep.Options{Replace: replace, Pool: poolOf(1 << 20), Now: time.Now, Log: slog.New(slog.NewTextHandler(&log, nil))})
		running(t, s, func() {
			got(t, s, session("api", "a"), "make/db")
			inner.set(func(c *counting) { c.fail = store.Denied.Errorf("no policy") })
			s.Leave(auth.Volume{Namespace: "shop", PodUID: "uid-of-a", Class: "app"})
			<-time.After(time.Minute)
		})
		want := `level=WARN msg="a lease is left to expire" tried=return namespace=shop service_account=api pod=a class=app ` +
			`error="denied by the store: no policy; a policy of the role could allow to update sys/leases/revoke"`
		if _, line, _ := strings.Cut(log.String(), " "); strings.TrimSpace(line) != want {
			t.Errorf("got  %s\nwant %s", line, want)
		}
	})
}

// A lease too short to be kept is revoked.
func TestLeaseTooShortIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Minute}}
		s := remember(inner)
		running(t, s, func() {
			got(t, s, session("api", "a"), "make/db")
			<-time.After(30 * time.Second)
			if diff := cmp.Diff([]string{"a app"}, inner.revoked()); diff != "" {
				t.Error(diff)
			}
		})
	})
}

// A credential made while its volume goes is revoked, too.
func TestLeaseOfAVolumeThatLeavesWhileItIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}, delay: 5 * time.Second}
		s := remember(inner)
		running(t, s, func() {
			done := make(chan string)
			go func() { done <- got(t, s, session("api", "a"), "make/db") }()
			<-time.After(time.Second)
			s.Leave(auth.Volume{Namespace: "shop", PodUID: "uid-of-a", Class: "app"})
			expectText(t, <-done, "make/db of api as shop, 1")
			<-time.After(time.Minute)
			if diff := cmp.Diff([]string{"a app"}, inner.revoked()); diff != "" {
				t.Error(diff)
			}
		})
	})
}

// stuck is a store that does not answer revocations.
type stuck struct{ *counting }

func (s stuck) Revoke(ctx context.Context, _ login.Request, _ store.Lease) error {
	<-ctx.Done()
	return store.Unavailable.Errorf("hangs")
}

// Revocations that hang do not delay renewals.
func TestReturnsThatHangHoldUpNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := stuck{&counting{lease: store.Lease{Duration: 12 * time.Minute, Renewable: true}}}
		s := remember(inner)
		running(t, s, func() {
			first := got(t, s, session("api", "a"), "make/db")
			for n := range 400 {
				got(t, s, session("api", fmt.Sprint(n)), "make/db")
				s.Leave(auth.Volume{Namespace: "shop", PodUID: "uid-of-" + fmt.Sprint(n), Class: "app"})
			}
			for range 30 {
				<-time.After(mountEvery)
				expectText(t, got(t, s, session("api", "a"), "make/db"), first)
			}
		})
	})
}

// Run waits for in-flight reads at its end, or their credentials would be lost, and ends those
// that take long.
func TestRunWaitsForWhatIsAskedFor(t *testing.T) {
	for name, test := range map[string]struct {
		takes, waits time.Duration
		want         string
	}{
		"soon":  {1500 * time.Millisecond, 500 * time.Millisecond, "make/db of api as shop, 1"},
		"never": {time.Minute, inflight.Grace, "make/db of api as shop, 2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &counting{lease: store.Lease{Duration: time.Hour}, delay: test.takes}
				s := remember(inner)
				began := time.Now()
				running(t, s, func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if _, err := s.Read(ctx, session("api", "a"), refTo(t, "make/db")); err == nil {
						t.Error("read within a second what takes longer")
					}
				})
				if waited := time.Since(began) - time.Second; waited != test.waits {
					t.Errorf("it waited %s, want %s", waited, test.waits)
				}
				inner.set(func(c *counting) { c.delay = 0 })
				next := s
				if test.takes > time.Second+inflight.Grace { // it has stopped
					next = remember(inner)
				}
				expectText(t, got(t, next, session("api", "a"), "make/db"), test.want)
			})
		})
	}
}

// Leases that wait to be given back are bounded; the others expire.
func TestReturnsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 1024
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		s := newKept(asked(inner), keep.Options{Refresh: refresh, Replace: replace, Pool: poolOf(64 << 20), Now: time.Now})
		for pod := range 2 * most {
			as := session("api", fmt.Sprint(pod))
			got(t, s, as, "make/db")
			s.Leave(as.Volume)
		}
		running(t, s, func() { <-time.After(time.Minute) })
		if n := len(inner.revokes); n != most {
			t.Errorf("%d leases were given back, want %d", n, most)
		}
	})
}
