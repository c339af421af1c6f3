package auth_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
)

// A clock that is ahead for a moment costs no login: when it is right again, so is what
// is known of the one that there is.
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

// The end of a login that was made before the clock was set back is not known to those
// who ask for what lives by it either.
func TestFindAfterTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		ahead.Store(int64(30 * time.Minute))
		v := newTokens(time.Hour, 0)
		v.fixed, v.now = true, func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }
		n := startNode(t, v)
		login := n.open(t, who())
		if found, known := n.Find(who(), "shop", login.Token); !known || !found.Expires.Equal(v.now().Add(time.Hour)) {
			t.Errorf("it ends at %s (%t)", found.Expires, known)
		}
		ahead.Store(0)
		if found, known := n.Find(who(), "shop", login.Token); known {
			t.Errorf("it ends at %s", found.Expires)
		}
	})
}
