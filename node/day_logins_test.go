package node_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// However short logins are, whatever they lead to, and whenever a pod comes: it gets a
// credential, and none that has ended.
func TestADayOfShortLogins(t *testing.T) {
	for _, logins := range []struct{ life, most time.Duration }{
		{10 * time.Minute, 30 * time.Minute},
		{9 * time.Minute, time.Hour},
		{10 * time.Minute, time.Hour},
		{11 * time.Minute, 40 * time.Minute},
		{12 * time.Minute, 30 * time.Minute},
		{10 * time.Minute, 24 * time.Hour},
		{time.Hour, 90 * time.Minute},
	} {
		t.Run(fmt.Sprintf("%s of %s", logins.life, logins.most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newSimulation(t)
				n.vault.loginLife, n.vault.loginMost = logins.life, logins.most
				var pods []*pod
				for i := range 8 {
					pods = append(pods, newPod("shop/api", fmt.Sprintf("api-%d", i), jobClass, time.Duration(i)*47*time.Minute, 10*time.Hour))
				}
				n.serve(func() {
					n.start(pods...)
					n.watch(10 * time.Hour)
				})
				n.vault.expectNoneLate(t)
				if len(n.refused) > 0 {
					t.Errorf("mounts were refused: %v", n.refused)
				}
			})
		})
	}
}

// The credentials of a removed volume are over within a minute, and no others.
func TestADayIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimulation(t)
		stays := newPod("shop/api", "api-0", jobClass, 0, time.Hour)
		goes := newPod("shop/api", "api-1", jobClass, 0, 10*time.Minute)
		n.serve(func() {
			n.start(stays, goes)
			<-time.After(10*time.Minute + callMost)
			n.left(goes.Namespace, goes.UID, "class")
			<-time.After(time.Minute)
			if left := n.vault.leases(); left != 1 {
				t.Errorf("%d leases live, want that of the pod that stays", left)
			}
			n.watch(40 * time.Minute)
		})
		n.vault.expectNoneLate(t)
	})
}

// leases is how many there are that live.
func (j *judge) leases() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, one := range j.given {
		if strings.HasPrefix(name, "database/creds/") && j.clocks.world().Before(one.end()) {
			n++
		}
	}
	return n
}
