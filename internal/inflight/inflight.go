// Package inflight counts work that outlives its caller, such as a read that several mounts
// wait for, and ends it soon after a stop.
package inflight

import (
	"context"
	"sync"
	"time"
)

const (
	// Grace is the time that work in flight has after a stop: what a store makes should not
	// be lost for that, and a stop should not wait for a store that hangs.
	Grace = time.Second
	// Last is the time beyond it for the work to end. What does not is left behind.
	Last = 250 * time.Millisecond
)

// Group is the work in flight. It is safe for concurrent use.
type Group struct {
	stopping context.Context
	stop     context.CancelFunc

	mu        sync.Mutex
	count     int
	abandoned bool       // what is left, by Settle
	changed   *sync.Cond // count or abandoned
}

// NewGroup is empty.
func NewGroup() *Group {
	g := &Group{}
	g.changed = sync.NewCond(&g.mu)
	g.stopping, g.stop = context.WithCancel(context.Background())
	return g
}

// Begin counts one piece of work until end is called. Its context has the values of ctx, and
// not its end: it ends after limit, or soon after a stop.
func (g *Group) Begin(ctx context.Context, limit time.Duration) (own context.Context, end func()) {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	forget := context.AfterFunc(g.stopping, cancel)
	g.add(1)
	return own, func() {
		forget()
		cancel()
		g.add(-1)
	}
}

func (g *Group) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count += n
	g.changed.Broadcast()
}

// Settle is the stop. It returns when all work has ended: after [Grace] and [Last] at most.
func (g *Group) Settle() {
	defer g.stop() // of what would begin later
	defer time.AfterFunc(Grace, g.stop).Stop()
	defer time.AfterFunc(Grace+Last, g.abandon).Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.count > 0 && !g.abandoned {
		g.changed.Wait()
	}
}

func (g *Group) abandon() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.abandoned = true
	g.changed.Broadcast()
}
