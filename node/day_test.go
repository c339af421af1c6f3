package node_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store/keep"
)

// The stories of these files play on one node. Everything is there that keymount serve
// piles up between the driver's call and a request to Vault (day_node_test.go), and
// Vault is played by somebody who knows the true end of all that it gave
// (day_vault_test.go). What stands in a file is the name of what it is, so that at any
// time one can see what a pod has, and whether it is still good for anything.

// What pods ask for.
const (
	// A credential of the pod's own, a password that Vault changes by itself, and a
	// secret that somebody changes now and then.
	appClass = `
- {path: database/creds/app, key: name, file: db}
- {path: database/static-creds/report, key: name, file: report}
- {path: secret/app, key: name, file: token}
`
	// A credential that the pods of the service account share.
	webClass = `
- {path: database/creds/web, key: name, file: db, lease: shared}
`
	// A credential that no renewal keeps for longer than five hours, and a certificate.
	shiftClass = `
- {path: database/creds/shift, key: name, file: db}
- {path: pki/issue/shift, args: {common_name: shift}, key: name, file: cert}
`
	// A credential that is needed for a few minutes.
	jobClass = `
- {path: database/creds/job, key: name, file: db}
`
)

// How long before its end something is replaced.
const (
	// A credential: the driver may leave a volume alone for its interval, and a few calls
	// may fail.
	leaseEarly = interval + 3*time.Minute
	// A login: what is made with it must live for a while.
	loginEarly = leaseEarly + keep.LeastLife
	// A certificate: at two thirds of its life.
	certEarly = certLife / 3
)

// day is one, and an hour more to see what becomes of it.
const day = 25 * time.Hour

// A day with pods of several service accounts that come and go. Whenever one looks into
// a pod's files, what is there has not ended. Nothing is asked for with a token or a
// login that has ended, and Vault has to make no more than the lives of things demand.
func TestADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimulation(t)
		pods := []*pod{
			newPod("shop/api", "api-0", appClass, 0, day),
			newPod("shop/api", "api-1", appClass, 10*time.Minute, day),
			newPod("shop/api", "api-2", appClass, 6*time.Hour, 12*time.Hour+30*time.Minute),
			newPod("blog/web", "web-0", webClass, 0, 12*time.Hour), // is updated at noon
			newPod("blog/web", "web-1", webClass, 12*time.Hour-time.Minute, day),
			newPod("shop/shift", "shift-0", shiftClass, 0, day),
		}
		jobs := 0
		for from := 30 * time.Minute; from < day; from += 3 * time.Hour {
			pods = append(pods, newPod("blog/job", fmt.Sprintf("job-%d", jobs), jobClass, from, from+20*time.Minute))
			jobs++
		}
		n.serve(func() {
			n.start(pods...)
			n.watch(day)
			<-time.After(2 * time.Hour)
		})
		want := map[string]int{
			"login of shop/api":                  least(t, day, loginMost, loginEarly),
			"login of blog/web":                  least(t, day, loginMost, loginEarly),
			"login of shop/shift":                least(t, day, loginMost, loginEarly),
			"login of blog/job":                  jobs, // each has gone before the next one comes
			"database/creds/app of shop/api":     0,    // each pod its own, see below
			"database/creds/web of blog/web":     least(t, day, leaseMost, leaseEarly),
			"database/creds/shift of shop/shift": least(t, day, shiftMost, leaseEarly),
			"database/creds/job of blog/job":     jobs,
			"pki/issue/shift of shop/shift":      least(t, day, certLife, certEarly),
		}
		for _, api := range pods[:3] {
			want["database/creds/app of shop/api"] += least(t, api.to-api.from, leaseMost, leaseEarly)
		}
		if diff := cmp.Diff(want, n.vault.made); diff != "" {
			t.Errorf("what Vault made (-want +got):\n%s", diff)
		}
		n.vault.expectNoneLate(t)
		n.vault.expectAllOver(t)
		if len(n.refused) > 0 {
			t.Errorf("mounts were refused: %v", n.refused)
		}
	})
}

// least is how many there have to be of something, one after the other: a first one,
// and another each time that one has come so near to its end that it is replaced,
//
//	1 + ⌊stay / (life − early)⌋
//
// The pod asks for that a little later, with its next call; the stays of the story are
// such that this makes no difference. A login ends the life of what was made with it:
// logins and leases of one age end at the same time, and cost no more for that.
func least(t *testing.T, stay, life, early time.Duration) int {
	t.Helper()
	n := 1 + int(stay/(life-early))
	if late := 1 + int(stay/(life-early+round)); late != n {
		t.Fatalf("it is %d or %d, as the calls come", n, late)
	}
	return n
}
