package main

import (
	"testing"
	"time"
)

// node110 is the node that was measured: 110 pods of 10 secrets.
func node110() options {
	o := usual()
	o.Pods, o.Secrets, o.Rotations, o.Rollout, o.Outage = 110, 10, 0, 0, 0
	return o
}

// What e2e/bench measures of keymount before a real Vault, and was measured of
// vault-csi-provider 1.7.4 before the same: all pods start, are mounted ten times within
// refresh, and once after it.
func TestTheModelAgreesWithMeasuredNodes(t *testing.T) {
	for name, test := range map[string]struct {
		provider        string
		accounts        int
		logins          float64
		start, ten, one float64 // reads: of the start, of ten rounds, of the one after refresh
	}{
		"keymount, own accounts":    {nameKeymount, 110, 110, 1100, 0, 1100},
		"keymount, shared accounts": {nameKeymount, 10, 10, 100, 0, 100},
		"vault-csi-provider":        {namePeer, 110, 110, 1100, 11_000, 1100},
	} {
		t.Run(name, func(t *testing.T) {
			o := node110()
			o.Kubelet = span{time.Minute, time.Minute} // a round each minute
			o.Refresh, o.RefreshMax = 13*time.Minute, 13*time.Minute
			n := variant{test.provider, test.accounts}.simulate(o, 0)
			from := n.world.minutes[:]
			is := func(what string, got, want float64) {
				t.Helper()
				if got != want {
					t.Errorf("%s: %g, measured %g", what, got, want)
				}
			}
			is("logins", sum(from[:20]).Logins, test.logins)
			is("reads of the start", from[0].Reads, test.start)
			is("reads of ten rounds", sum(from[1:11]).Reads, test.ten)
			if test.provider == nameKeymount { // jitter spreads the next reads over some rounds
				is("reads after refresh", sum(from[11:15]).Reads, test.one)
			} else {
				is("reads after refresh", from[11].Reads, test.one)
			}
		})
	}
}

// The formula of docs/load.md.
func TestTheModelAgreesWithTheFormula(t *testing.T) {
	const call = 75.0 // seconds
	for name, test := range map[string]struct {
		change   func(*options)
		accounts int
		secrets  float64 // of a login, all logins together
	}{
		"own accounts":          {func(*options) {}, 110, 1100},
		"shared accounts":       {func(*options) {}, 10, 100},
		"ten minutes":           {func(o *options) { o.RefreshMax = 10 * time.Minute }, 110, 1100},
		"two minutes, shared":   {func(o *options) { o.RefreshMax = 2 * time.Minute }, 10, 100},
		"a small node":          {func(o *options) { o.Pods, o.Secrets = 30, 4 }, 30, 120},
		"longer tokens, shared": {func(o *options) { o.TokenTTL = 4 * time.Hour }, 10, 100},
	} {
		t.Run(name, func(t *testing.T) {
			o := node110()
			test.change(&o)
			v := variant{nameKeymount, test.accounts}
			got := v.scale(1, []*node{v.simulate(o, 0)}, o)
			sharing := float64(o.Pods / test.accounts)
			near(t, "reads a second", got.Steady.Reads, test.secrets/(0.95*o.RefreshMax.Seconds()+call/(sharing+1)), 0.05)
			near(t, "renewals a second", got.Steady.Renewals, float64(test.accounts)/(o.TokenTTL.Seconds()*2/3), 0.1)
			o.Batch = true
			got = v.scale(1, []*node{v.simulate(o, 0)}, o)
			near(t, "logins of a day with batch tokens", got.Day.Logins, float64(test.accounts)*(1+86_400/(o.TokenTTL-spare).Seconds()), 0.1)
			peer := variant{namePeer, test.accounts}
			got = peer.scale(1, []*node{peer.simulate(o, 0)}, o)
			near(t, "reads a second of vault-csi-provider", got.Steady.Reads, float64(o.Pods*o.Secrets)/call, 0.05)
			near(t, "logins of a day of vault-csi-provider", got.Day.Logins, float64(o.Pods)*86_400/o.TokenTTL.Seconds(), 0.1)
		})
	}
}
