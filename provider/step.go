package provider

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/keymount/keymount/store"
)

// maxGrace is how long a step waits for stores to give their reason after ctx
// ended, at most; with little time at all it is a quarter of that.
const maxGrace = 500 * time.Millisecond

// errUnanswered stands in for the answer of a read that is left behind.
var errUnanswered = fmt.Errorf("%w: no answer before the mount's deadline", store.ErrUnavailable)

// step is done for all reads of a mount before the next one begins.
type step struct {
	recall func(*read, context.Context) (done bool) // without asking anybody
	ask    func(*read, context.Context) error
}

// take does what it can at once, and asks for the rest.
func (s step) take(ctx context.Context, all []*read, parallel int) {
	var away []*read
	for _, r := range all {
		if r.err == nil && !s.recall(r, ctx) {
			away = append(away, r)
		}
	}
	if len(away) > 0 {
		s.askAll(ctx, away, parallel)
	}
}

// askAll asks for all reads, at most parallel at a time. It returns when ctx ends
// even if a store does not: such a read is left to end by itself, as a copy that
// nobody looks at any more, since an answer too late is one that grpc makes up
// (promise 1).
func (s step) askAll(ctx context.Context, all []*read, parallel int) {
	copies := make([]read, len(all))
	answers := make(chan int, len(all)) // room for all: a late one blocks nobody
	next := make(chan int, len(all))
	for i, r := range all {
		copies[i] = *r
		r.err = errUnanswered // until it is
		next <- i
	}
	close(next)
	for range min(parallel, len(all)) {
		go func() {
			for i := range next {
				if ctx.Err() != nil {
					return // nobody waits any more
				}
				s.askPatiently(ctx, &copies[i])
				answers <- i
			}
		}()
		runtime.Gosched() // to see how far it comes: what is quick needs no second one
		if len(next) == 0 {
			break
		}
	}
	late, cancel := graceAfter(ctx)
	defer cancel()
	for range all {
		select {
		case i := <-answers:
			*all[i] = copies[i]
		case <-late.Done():
			return
		}
	}
}

// askPatiently contains a panic of the store, which becomes this read's error.
func (s step) askPatiently(ctx context.Context, r *read) {
	defer func() {
		if p := recover(); p != nil {
			r.err = store.Recovered(p)
		}
	}()
	_, r.err = store.Patiently(ctx, func() (struct{}, error) { return struct{}{}, s.ask(r, ctx) })
}

// graceAfter ends a moment after ctx does.
func graceAfter(ctx context.Context) (context.Context, context.CancelFunc) {
	grace := maxGrace
	if end, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(end)/4)
	}
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return late, func() { stop(); cancel() }
}
