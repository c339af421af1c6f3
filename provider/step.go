package provider

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/store"
)

// maxGrace bounds the wait for a store's own reason after the end of ctx; with little time
// at all it is a quarter of that.
const maxGrace = 500 * time.Millisecond

// errUnanswered is the error of a read left behind.
var errUnanswered error = store.Unavailable.Errorf("no answer before the mount's deadline")

// step is done for all reads of a mount before the next one begins.
type step struct {
	recall func(*read, context.Context) (done bool) // without a request
	ask    func(*read, context.Context) error
}

// take recalls the reads at hand, and asks for the rest.
func (s step) take(ctx context.Context, all []*read, parallel int) {
	var away []*read
	for i, r := range all {
		if r.err == nil && !s.recall(r, ctx) {
			if away == nil {
				away = make([]*read, 0, len(all)-i)
			}
			away = append(away, r)
		}
	}
	if len(away) > 0 {
		s.askAll(ctx, away, parallel)
	}
}

// askAll asks for all reads, at most parallel at a time, and returns soon after ctx ends,
// even if a store does not: after a late answer the driver would have one made up by grpc
// (promise 1). A read without an answer then is left behind: it ends by itself, on a copy.
func (s step) askAll(ctx context.Context, all []*read, parallel int) {
	grace := graceOf(ctx)
	copies := make([]read, len(all))
	answers := make(chan int, len(all)) // room for all: a late one blocks no goroutine
	for i, r := range all {
		copies[i] = *r
		r.err = errUnanswered // until it is
	}
	var begun atomic.Int64
	for range min(parallel, len(all)) {
		go func() {
			for ctx.Err() == nil { // else the mount has ended
				i := int(begun.Add(1)) - 1
				if i >= len(copies) {
					return
				}
				s.askPatiently(ctx, &copies[i])
				answers <- i
			}
		}()
		runtime.Gosched() // a quick store needs no second goroutine
		if int(begun.Load()) >= len(all) {
			break
		}
	}
	ended, late := ctx.Done(), (<-chan time.Time)(nil)
	for answered := 0; answered < len(all); {
		select {
		case i := <-answers:
			*all[i] = copies[i]
			answered++
		case <-ended:
			ended, late = nil, time.After(grace)
		case <-late:
			leave(all, context.Cause(ctx))
			return
		}
	}
}

// leave tells the reads left behind at a stop from those at a deadline.
func leave(all []*read, cause error) {
	for _, r := range all {
		if r.err == errUnanswered && errors.Is(cause, errStopping) { //nolint:errorlint // no answer wraps it
			r.err = errStopping
		}
	}
}

// askPatiently contains a panic of the store, which becomes this read's error.
func (s step) askPatiently(ctx context.Context, r *read) {
	r.err = contain.Run(func() error {
		_, err := store.Patiently(ctx, func() (struct{}, error) { return struct{}{}, s.ask(r, ctx) })
		return err
	})
}

// graceOf is how long late answers are waited for after the end of ctx.
func graceOf(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(maxGrace, time.Until(end)/4)
	}
	return maxGrace
}
