package store_test

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

	"github.com/keymount/keymount/store"
)

// revoked are the leases that were given back so far, by pod and class.
func (c *counting) revoked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.revokes...)
}

// The credential of a volume that is gone is given back soon, and no other one.
func TestLeaseOfAVolumeThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		s := keep(inner)
		other := session("api", "a")
		other.Class = "other"
		running(t, s, func() {
			for _, as := range []store.Session{session("api", "a"), session("api", "b"), other} {
				got(t, s, as, "make/db")
			}
			got(t, s, session("api", "a"), "kv/db")
			s.Leave("shop", "uid-of-a", "app")
			s.Leave("shop", "uid-of-nobody", "app")
			s.Leave("blog", "uid-of-b", "app") // nobody there
			<-time.After(time.Minute)
			if diff := cmp.Diff([]string{"a app"}, inner.revoked()); diff != "" {
				t.Error(diff)
			}
			expect(t, inner, s, session("api", "b"), "make/db", "make/db of api as shop, 2", 4)
			expect(t, inner, s, other, "make/db", "make/db of api as shop, 3", 4)
		})
	})
}

// What cannot be given back now is given back later, but not after its end.
func TestLeaseIsGivenBackAfterAnOutage(t *testing.T) {
	for after, want := range map[time.Duration][]string{50 * time.Minute: {"a app"}, 70 * time.Minute: {}} {
		synctest.Test(t, func(t *testing.T) {
			inner := &counting{lease: store.Lease{Duration: time.Hour}}
			s := keep(inner)
			running(t, s, func() {
				got(t, s, session("api", "a"), "make/db")
				inner.set(func(c *counting) { c.fail = fmt.Errorf("%w: away", store.ErrUnavailable) })
				s.Leave("shop", "uid-of-a", "app")
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

// What a policy forbids is said once, with the cure.
func TestLeaseThatMayNotBeGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		var log bytes.Buffer
		s := store.Keep(inner, store.KeepOptions{Replace: replace, Bytes: 1 << 20, Now: time.Now, Log: slog.New(slog.NewTextHandler(&log, nil))})
		running(t, s, func() {
			got(t, s, session("api", "a"), "make/db")
			inner.set(func(c *counting) { c.fail = fmt.Errorf("%w: no policy", store.ErrDenied) })
			s.Leave("shop", "uid-of-a", "app")
			<-time.After(time.Minute)
		})
		want := `level=WARN msg="a lease is left to expire" tried=return namespace=shop service_account=api pod=a class=app ` +
			`error="denied by the store: no policy; a policy of the role could allow to update sys/leases/revoke"`
		if _, line, _ := strings.Cut(log.String(), " "); strings.TrimSpace(line) != want {
			t.Errorf("got  %s\nwant %s", line, want)
		}
	})
}

// What is too short to be kept is not left behind.
func TestLeaseTooShortIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Minute}}
		s := keep(inner)
		running(t, s, func() {
			got(t, s, session("api", "a"), "make/db")
			<-time.After(30 * time.Second)
			if diff := cmp.Diff([]string{"a app"}, inner.revoked()); diff != "" {
				t.Error(diff)
			}
		})
	})
}

// What comes for a volume that left while it was asked for is given back, too.
func TestLeaseOfAVolumeThatLeavesWhileItIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}, delay: 5 * time.Second}
		s := keep(inner)
		running(t, s, func() {
			done := make(chan string)
			go func() { done <- got(t, s, session("api", "a"), "make/db") }()
			<-time.After(time.Second)
			s.Leave("shop", "uid-of-a", "app")
			expectText(t, <-done, "make/db of api as shop, 1")
			<-time.After(time.Minute)
			if diff := cmp.Diff([]string{"a app"}, inner.revoked()); diff != "" {
				t.Error(diff)
			}
		})
	})
}

// stuck is a store that does not answer when a lease is given back.
type stuck struct{ *counting }

func (s stuck) Revoke(ctx context.Context, _ store.Session, _ store.Lease) error {
	<-ctx.Done()
	return fmt.Errorf("%w: hangs", store.ErrUnavailable)
}

// Leases that cannot be given back hold up none that goes on.
func TestReturnsThatHangHoldUpNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := stuck{&counting{lease: store.Lease{Duration: 12 * time.Minute, Renewable: true}}}
		s := keep(inner)
		running(t, s, func() {
			first := got(t, s, session("api", "a"), "make/db")
			for n := range 400 {
				got(t, s, session("api", fmt.Sprint(n)), "make/db")
				s.Leave("shop", "uid-of-"+fmt.Sprint(n), "app")
			}
			for range 30 {
				<-time.After(mountEvery)
				expectText(t, got(t, s, session("api", "a"), "make/db"), first)
			}
		})
	})
}

// The end of Run waits for what is asked for, which would be lost.
func TestRunWaitsForWhatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}, delay: 20 * time.Second}
		s := keep(inner)
		began := time.Now()
		running(t, s, func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := s.Read(ctx, session("api", "a"), refTo(t, "make/db")); err == nil {
				t.Error("read within a second what takes twenty")
			}
		})
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("it took %s", took)
		}
		expectText(t, got(t, s, session("api", "a"), "make/db"), "make/db of api as shop, 1")
	})
}
