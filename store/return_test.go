package store_test

import (
	"bytes"
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
