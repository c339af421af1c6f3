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

// Retry reads again while the inner store is unavailable, with a growing and
// jittered pause, until ctx ends. Then the last cause is the answer. The driver
// must never see "try again": see promise 1 in docs/architecture.md.
func Retry(inner Store) Store { return retry{inner} }

type retry struct{ inner Store }

func (r retry) Read(ctx context.Context, session Session, ref Ref) (Value, error) {
	pause := retryFirst
	for {
		value, err := r.inner.Read(ctx, session, ref)
		if !errors.Is(err, ErrUnavailable) {
			return value, err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2)) //nolint:gosec // a jitter needs no unguessable numbers
		select {
		case <-ctx.Done():
			timer.Stop()
			return Value{}, err
		case <-timer.C:
		}
		pause = min(2*pause, retryMost)
	}
}
