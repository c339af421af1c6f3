package login_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
)

// A clock ahead for a moment costs no login: once it is right again, the present login is
// used again.
func TestClockAheadForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		v := newTokens(time.Hour, 0)
		v.now = func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }
		n := startNode(t, v)
		mount := func(i auth.Identity) { n.open(t, i) }
		n.day(t, 30*time.Minute, mount)
		ahead.Store(int64(time.Hour)) // no token of the kubelet counts now
		time.Sleep(5 * time.Minute)
		ahead.Store(0)
		n.day(t, 3*time.Hour, mount)
		if got := n.count(); got.logins != 1 || got.revoked != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// Find does not know the end of a login made before the clock was set back.
func TestFindAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		ahead.Store(int64(30 * time.Minute))
		v := newTokens(time.Hour, 0)
		v.fixed, v.now = true, func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }
		n := startNode(t, v)
		given := n.open(t, who())
		if found, known := n.Find(who(), "shop", given.Token); !known || !found.Expires.Equal(v.now().Add(time.Hour)) {
			t.Errorf("it ends at %s (%t)", found.Expires, known)
		}
		ahead.Store(0)
		if found, known := n.Find(who(), "shop", given.Token); known {
			t.Errorf("it ends at %s", found.Expires)
		}
	})
}
