package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

// Patiently calls f again while a store is unavailable, with a growing and jittered pause or
// the one requested by the store, and at once when it answers again, until ctx ends. Then the
// last cause is the error. The driver must never see "try again": see promise 1 in
// docs/architecture.md. An Uncertain request is not repeated, nor one whose failure is Lasting.
func Patiently[T any](ctx context.Context, f func() (T, error)) (T, error) {
	pause := retryFirst
	var cause error // of the attempt before
	for {
		value, err := f()
		if err != nil && cause != nil && ctx.Err() != nil {
			return value, cause // the last attempt was cut off and says nothing
		}
		e, _ := errors.AsType[*Error](err)
		if !errors.Is(err, Unavailable) || e != nil && (e.Uncertain || e.Lasting) {
			return value, err
		}
		least := pause/2 + rand.N(pause/2) //nolint:gosec // a jitter needs no unguessable numbers
		var back <-chan struct{}
		if e != nil {
			least, back = max(least, e.RetryAfter), e.Back
		}
		pause, cause = min(2*pause, retryMost), err
		select {
		case <-ctx.Done():
			return value, err
		case <-back:
			pause = retryFirst
		case <-time.After(least):
		}
	}
}
