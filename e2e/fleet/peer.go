package main

import "time"

// tries is how often vault-csi-provider sends a request that gets no answer.
const tries = 3

// peer is a model of vault-csi-provider 1.7: each pod has a login of its own, which is not
// renewed, and every call reads every secret. A read with a login that has ended is denied,
// and sent again with a new one.
type peer struct {
	o      options
	world  *world
	logins map[*pod]time.Duration // when they were made
}

func newPeer(o options, w *world) *peer {
	return &peer{o: o, world: w, logins: map[*pod]time.Duration{}}
}

// mount implements provider.
func (v *peer) mount(at time.Duration, p *pod, got []int) bool {
	if v.world.away(at) {
		v.world.count(at, counts{Vain: tries})
		return false
	}
	made, known := v.logins[p]
	ended := known && at-made >= v.o.TokenTTL
	if !known || ended {
		v.logins[p] = at
		v.world.count(at, counts{Logins: 1})
	}
	if ended {
		v.world.count(at, counts{Reads: 1}) // denied
	}
	for i, s := range p.secrets {
		got[i] = len(s.changes)
	}
	v.world.count(at, counts{Reads: float64(len(p.secrets))})
	return true
}

// tend implements provider: nothing happens between mounts.
func (*peer) tend(time.Duration) {}
