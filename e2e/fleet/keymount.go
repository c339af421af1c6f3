package main

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keymount/keymount/store/keep"
)

// What keymount's packages say; a test holds the model against them.
const (
	replaceEarly = 5 * time.Minute               // node: a credential before its end, at the driver's default interval
	spare        = replaceEarly + keep.LeastLife // login: a login that cannot be renewed before its end
	idleAfter    = 10 * time.Minute              // login: a login without a mount is revoked
	spareLeast   = time.Minute                   // login: no login is used in the last minute of its life
	retryFirst   = 5 * time.Second               // login: after a failed renewal, doubling up to retryMost
	retryMost    = time.Minute                   // login
	probeEvery   = 2190 * time.Millisecond       // store/vault: of an address out of reach, 2.5 s less up to a quarter
	jitterShare  = 10                            // a tenth
)

// keymount is a model of what it asks a store for: secrets and logins are remembered by the
// rules of packages keep and login.
type keymount struct {
	o        options
	world    *world
	random   *rand.Rand
	values   map[place]*value
	ofPod    map[*pod][]*value // of values
	sessions map[int]*session
	order    []*session // of sessions, the oldest first: a map has none
	probe    time.Duration
}

func newKeymount(o options, w *world, number int) *keymount {
	return &keymount{
		o: o, world: w, values: map[place]*value{}, ofPod: map[*pod][]*value{}, sessions: map[int]*session{},
		random: rand.New(rand.NewPCG(2, uint64(number))), //nolint:gosec // a story that can be told again
	}
}

// place is where a value is remembered: for the login that read it.
type place struct {
	account int
	secret  *secret
}

// value is a remembered secret.
type value struct {
	place

	known   bool // it was read
	version int
	read    time.Duration // when
	fresh   time.Duration // how long
	steady  time.Duration // the same without jitter
}

// valuesOf are those that a pod mounts, in the order of its secrets.
func (k *keymount) valuesOf(p *pod) []*value {
	if values, ok := k.ofPod[p]; ok {
		return values
	}
	var values []*value
	for _, s := range p.secrets {
		where := place{p.account, s}
		if k.values[where] == nil {
			k.values[where] = &value{place: where}
		}
		values = append(values, k.values[where])
	}
	k.ofPod[p] = values
	return values
}

// mount implements provider.
func (k *keymount) mount(at time.Duration, p *pod, got []int) bool {
	all := true
	for i, v := range k.valuesOf(p) {
		if !v.known || at-v.read >= v.fresh {
			all = k.ask(at, v) && all
		}
		got[i] = v.version
	}
	if one := k.sessions[p.account]; one != nil {
		one.used = at
	}
	return all
}

// ask reads a secret; false without a value.
func (k *keymount) ask(at time.Duration, v *value) bool {
	if k.world.away(at) {
		return k.miss(at, v)
	}
	k.open(at, v.account)
	k.world.count(at, counts{Reads: 1})
	steady := k.o.Refresh
	if version := len(v.secret.changes); v.known && v.version == version {
		steady = max(k.o.Refresh, min(2*v.steady, k.o.RefreshMax))
	} else {
		v.known, v.version = true, version
	}
	v.read, v.steady, v.fresh = at, steady, steady-k.upTo(steady/jitterShare)
	return true
}

// miss is a read in an outage, for which the old value stands in as long as stale. Few reads
// reach the store: an address out of reach is probed by one of them at a time.
func (k *keymount) miss(at time.Duration, v *value) bool {
	if at >= k.probe {
		k.probe = at + probeEvery
		k.world.count(at, counts{Vain: 1})
	}
	v.steady = 0 // it may change meanwhile
	return v.known && at-v.read < k.o.Stale
}

// session is a login.
type session struct {
	account    int
	since      time.Duration // of its life, which a renewal starts anew
	renewAfter time.Duration
	used       time.Duration
	retry      time.Duration // no renewal before
	pause      time.Duration // before retry
}

// open logs in, if there is no login that can be used.
func (k *keymount) open(at time.Duration, account int) {
	one := k.sessions[account]
	if one != nil && at-one.since < k.usable() {
		return
	}
	if one == nil {
		one = &session{account: account, used: at}
		k.sessions[account] = one
		k.order = append(k.order, one)
	}
	k.world.count(at, counts{Logins: 1})
	k.begin(at, one)
}

// usable is the part of a life in which a login is used.
func (k *keymount) usable() time.Duration {
	life := k.o.TokenTTL
	margin := min(life/10, spareLeast)
	if k.o.Batch {
		margin = min(max(margin, spare), life/2)
	}
	return life - margin
}

// begin starts the life of a login.
func (k *keymount) begin(at time.Duration, one *session) {
	life := k.o.TokenTTL
	after := min(life*2/3, max(life/3, life-spare*5/4))
	one.since, one.pause, one.retry = at, 0, 0
	one.renewAfter = after - after/jitterShare + k.upTo(2*(after/jitterShare))
}

// tend implements provider: it renews and revokes logins.
func (k *keymount) tend(at time.Duration) {
	k.order = slices.DeleteFunc(k.order, func(one *session) bool {
		if at-one.used >= idleAfter {
			return k.revoke(at, one)
		}
		age := at - one.since
		if !k.o.Batch && age >= one.renewAfter && age < k.usable() && at >= one.retry {
			k.renew(at, one)
		}
		return false
	})
}

func (k *keymount) renew(at time.Duration, one *session) {
	if k.world.away(at) {
		one.pause = min(max(2*one.pause, retryFirst), retryMost)
		one.retry = at + one.pause
		return
	}
	k.world.count(at, counts{Renewals: 1})
	k.begin(at, one)
}

// revoke ends a login without a use; false in an outage. A batch token only expires, and so does
// one without a renewal in time.
func (k *keymount) revoke(at time.Duration, one *session) bool {
	switch expired := at-one.since >= k.o.TokenTTL; {
	case k.o.Batch, expired:
	case k.world.away(at):
		return false
	default:
		k.world.count(at, counts{Revocations: 1})
	}
	delete(k.sessions, one.account)
	return true
}

func (k *keymount) upTo(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(k.random.Int64N(int64(most)))
}
