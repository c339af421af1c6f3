package node_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/node"
)

// On the node are three service accounts with four pods, two of which share a
// credential; one has a certificate. So much Vault has to make for them once.
const logins, leases, certificates = 3, 3, 1

// made counts what Vault makes.
type made map[string]int

func leased() made     { return made{"login": logins, "database": leases} }
func everything() made { return made{"login": logins, "database": leases, "pki": certificates} }

// wrong is a time in which the clock of the node is wrong, or the node sleeps.
type wrong struct {
	ahead, lasts time.Duration
	asleep       bool
	// refused is how mounts are refused meanwhile.
	refused []codes.Code
	// blind: leases end meanwhile, and keymount cannot prevent it.
	blind bool
	// during and after are what Vault makes at most: until the clock is right, and then.
	during, after made
}

// The clock of a node jumps by an hour, and later jumps back. Tokens seem to have ended,
// or not to have begun: mounts are refused with final codes, and pods keep their files.
// When the clock is right again no pod has ended credentials for longer than a round, and
// Vault makes no more than at the start of keymount; after a clock ahead for a moment,
// nothing at all. The clock of a sleeping node jumps together with the world's.
func TestAWrongClock(t *testing.T) {
	unproven := []codes.Code{codes.Unauthenticated}
	for name, w := range map[string]wrong{
		"an hour ahead for a moment":     {ahead: time.Hour, lasts: 5 * time.Minute, refused: unproven},
		"an hour ahead for long":         {ahead: time.Hour, lasts: 90 * time.Minute, refused: unproven, blind: true, after: everything()},
		"half an hour ahead for an hour": {ahead: 30 * time.Minute, lasts: time.Hour, during: leased(), after: leased()}, // no token has ended
		"an hour behind for a moment":    {ahead: -time.Hour, lasts: 5 * time.Minute, refused: unproven, after: leased()},
		"an hour behind for long": { // tokens that keymount takes for good have ended for Vault
			ahead: -time.Hour, lasts: 90 * time.Minute, refused: append(unproven, codes.PermissionDenied), blind: true,
			during: everything(), after: everything(),
		},
		"asleep for an hour": {asleep: true, lasts: time.Hour, blind: true, after: leased()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newSimulation(t).endure(w) })
		})
	}
}

// Keymount can only notice that the node slept by a clock that went on meanwhile.
func TestTheClockIsTheWalls(t *testing.T) {
	if now := node.Clock(); now != now.Round(0) {
		t.Errorf("%s has a reading of the process's own clock", now)
	}
}

func (n *simulation) endure(w wrong) {
	const moment, hour, renewals = 5 * time.Minute, time.Hour, logins + leases
	end := moment + hour + w.lasts + moment + hour + hour
	n.serve(func() {
		n.start(newPod("shop/api", "api-0", appClass, 0, end), newPod("shop/shift", "shift-0", shiftClass, 0, end),
			newPod("blog/web", "web-0", webClass, 0, end), newPod("blog/web", "web-1", webClass, 0, end))
		n.watch(moment)
		_, atStart := n.vault.take()
		n.watch(hour)
		n.expectRefused(nil)

		n.vault.take()
		n.getWrong(w)
		if !w.blind {
			n.vault.expectNoneLate(n.t)
		}
		got, requests := n.vault.take()
		n.expectMade("while the clock is wrong", got, w.during)
		n.expectRefused(w.refused)
		if w.lasts == moment && requests > renewals {
			n.t.Errorf("%d requests to Vault while mounts are refused, want %d at most", requests, renewals)
		}

		n.watch(moment)
		if !w.blind {
			n.vault.expectNoneLate(n.t)
		}
		got, requests = n.vault.take()
		n.expectMade("when the clock is right", got, w.after)
		if requests > atStart+renewals {
			n.t.Errorf("%d requests to Vault, want %d at most: those of a start, and renewals", requests, atStart+renewals)
		}

		n.watch(hour)
		n.vault.take()
		n.watch(hour)
		n.vault.expectNoneLate(n.t)
		got, _ = n.vault.take()
		n.expectMade("in the end", got, nil)
		n.expectRefused(nil)
	})
}

// getWrong is over when the clock is right again.
func (n *simulation) getWrong(w wrong) {
	if w.asleep {
		n.excuse(round)
		n.clocks.slept.Store(int64(w.lasts))
		return
	}
	if w.blind {
		n.excuse(w.lasts + round)
	}
	n.clocks.ahead.Store(int64(w.ahead))
	n.watch(w.lasts)
	n.clocks.ahead.Store(0)
}

func (n *simulation) expectMade(when string, got, most made) {
	n.t.Helper()
	for what, count := range got {
		if count > most[what] {
			n.t.Errorf("%s: %d of %s are made, want %d at most", when, count, what, most[what])
		}
	}
}

// expectRefused fails unless mounts were refused in these ways since it was last called.
// The driver would try again after any other code, see promise 1 in
// docs/architecture.md.
func (n *simulation) expectRefused(want []codes.Code) {
	n.change(func() {
		for code, count := range n.refused {
			if !slices.Contains(want, code) {
				n.t.Errorf("%d mounts are refused with %s", count, code)
			}
		}
		if len(want) > 0 && len(n.refused) == 0 {
			n.t.Error("no mount is refused")
		}
		clear(n.refused)
	})
}
