package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// The providers.
const (
	nameKeymount = "keymount"
	namePeer     = "vault-csi-provider"
)

// report is what fleets of some sizes ask of a store.
type report struct {
	Options options `json:"options"`
	Fleets  []fleet `json:"fleets"`
}

// fleet is what some nodes ask of a store together. But for Day and Node all counts are
// requests a second.
type fleet struct {
	Nodes     int     `json:"nodes"`
	Simulated int     `json:"simulated"` // of the nodes
	Provider  string  `json:"provider"`
	Accounts  int     `json:"accounts"` // of a node
	Steady    counts  `json:"steady"`   // from one to twelve o'clock
	Start     float64 `json:"start"`    // the busiest minute after the start of all nodes
	Rollout   float64 `json:"rollout"`  // the busiest minute of the rollout
	Outage    float64 `json:"outage"`   // without an answer
	After     float64 `json:"after"`    // the busiest minute after the outage
	Day       counts  `json:"day"`      // requests of all nodes in a day
	Node      counts  `json:"node"`     // requests of one node in a steady hour
	// SeenMedian and SeenMost are the times from a change of a secret to its file, in seconds.
	SeenMedian float64 `json:"seenMedian"`
	SeenMost   float64 `json:"seenMost"`
	// Refused are mounts of running pods that failed; the files stay.
	Refused float64 `json:"refused"`
}

// variant is a provider with some accounts on each node.
type variant struct {
	provider string
	accounts int
}

func (o options) variants() (all []variant) {
	for _, accounts := range o.Accounts {
		all = append(all, variant{nameKeymount, accounts})
	}
	if o.Peer {
		all = append(all, variant{namePeer, o.Accounts[0]}) // they change nothing
	}
	return all
}

// day simulates each variant on as many nodes as needed, and counts fleets of all sizes.
func day(ctx context.Context, o options, progress io.Writer) (report, error) {
	variants := o.variants()
	sample := min(o.Sample, slices.Max(o.Nodes))
	lives := make([][]*node, len(variants))
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	done, stop := watch(progress, len(variants)*sample)
	defer stop()
	for i, v := range variants {
		lives[i] = make([]*node, sample)
		for number := range sample {
			work.Go(func() error {
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("simulate a node: %w", err)
				}
				lives[i][number] = v.simulate(o, number)
				done.Add(1)
				return nil
			})
		}
	}
	if err := work.Wait(); err != nil {
		return report{}, err
	}
	r := report{Options: o}
	for _, nodes := range o.Nodes {
		for i, v := range variants {
			r.Fleets = append(r.Fleets, v.scale(nodes, lives[i][:min(nodes, sample)], o))
		}
	}
	return r, nil
}

// watch tells every two seconds how much is done.
func watch(progress io.Writer, all int) (done *atomic.Int64, stop func()) {
	done, over := new(atomic.Int64), make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				_, _ = fmt.Fprintf(progress, "%d of %d days of a node\n", done.Load(), all)
			}
		}
	}()
	return done, func() { close(over); <-stopped }
}

// simulate is the day of one node.
func (v variant) simulate(o options, number int) *node {
	n := newNode(o, v.accounts, number)
	if v.provider == namePeer {
		n.live(newPeer(o, n.world))
	} else {
		n.live(newKeymount(o, n.world, number))
	}
	return n
}

// scale counts nodes like those that were simulated: they share nothing but the store.
func (v variant) scale(nodes int, lives []*node, o options) fleet {
	f := fleet{Nodes: nodes, Simulated: len(lives), Provider: v.provider, Accounts: v.accounts}
	times := float64(nodes) / float64(len(lives))
	var minutes [dayLength / time.Minute]counts
	var seen []time.Duration
	for _, n := range lives {
		for i, c := range n.world.minutes {
			minutes[i] = minutes[i].plus(c)
		}
		seen = append(seen, n.seen...)
		f.Refused += times * float64(n.failures)
	}
	part := func(from, to time.Duration) []counts { return minutes[from/time.Minute : to/time.Minute] }
	perSecond := times / time.Minute.Seconds()
	f.Day = sum(minutes[:]).scaled(times)
	steady := part(steadyAt, rolloutAt)
	f.Steady = sum(steady).scaled(perSecond / float64(len(steady)))
	f.Node = f.Steady.scaled(time.Hour.Seconds() / float64(nodes))
	f.Start = busiest(part(0, steadyAt)) * perSecond
	if o.Rollout > 0 {
		f.Rollout = busiest(part(rolloutAt, rolloutAt+o.Rollout+time.Minute)) * perSecond
	}
	if minutesAway := int(o.Outage / time.Minute); minutesAway > 0 {
		f.Outage = sum(part(outageAt, outageAt+o.Outage)).all() * perSecond / float64(minutesAway)
		f.After = busiest(part(outageAt+o.Outage, outageAt+o.Outage+time.Hour)) * perSecond
	}
	if len(seen) > 0 {
		slices.Sort(seen)
		f.SeenMedian, f.SeenMost = seen[len(seen)/2].Seconds(), seen[len(seen)-1].Seconds()
	}
	return f
}

func (c counts) scaled(times float64) counts {
	return counts{c.Reads * times, c.Logins * times, c.Renewals * times, c.Revocations * times, c.Vain * times}
}

func sum(minutes []counts) (all counts) {
	for _, c := range minutes {
		all = all.plus(c)
	}
	return all
}

// busiest is the number of requests in the minute with most of them.
func busiest(minutes []counts) (most float64) {
	for _, c := range minutes {
		most = max(most, c.all())
	}
	return most
}
