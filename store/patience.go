package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

// Patiently calls f again while a store is unavailable, with a growing and
// jittered pause or the one that the store asks for, until ctx ends. Then the last
// cause is the answer. The driver must never see "try again": see promise 1 in
// docs/architecture.md. What may have been carried out is not asked again.
func Patiently[T any](ctx context.Context, f func() (T, error)) (T, error) {
	pause := retryFirst
	var cause error // of the attempt before
	for {
		value, err := f()
		if err != nil && cause != nil && ctx.Err() != nil {
			return value, cause // the last attempt was cut off and says nothing
		}
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUncertain) {
			return value, err
		}
		jittered := pause/2 + rand.N(pause/2) //nolint:gosec // a jitter needs no unguessable numbers
		if !wait(ctx, max(asked(err), jittered)) {
			return value, err
		}
		pause, cause = min(2*pause, retryMost), err
	}
}

// wait is false when ctx ends first.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// ErrUncertain marks an ErrUnavailable after which nobody knows whether the store
// did what it was asked, such as making a credential: asking again may make two.
var ErrUncertain = errors.New("it may have been done")

// Uncertain is err marked with [ErrUncertain].
func Uncertain(err error) error { return fmt.Errorf("%w, and %w", err, ErrUncertain) }

// RetryAfter is err with the pause that the store asked for.
func RetryAfter(err error, pause time.Duration) error { return impatient{err, pause} }

type impatient struct {
	error
	pause time.Duration
}

func (i impatient) Unwrap() error { return i.error }

func asked(err error) time.Duration {
	if i, ok := errors.AsType[impatient](err); ok {
		return i.pause
	}
	return 0
}
