package cluster

import (
	"context"
	"fmt"
	"time"
)

// pause lies between two attempts.
const pause = 50 * time.Millisecond

// poll calls attempt until it succeeds or the context ends.
func poll(ctx context.Context, what string, attempt func(context.Context) error) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; at last: %w", what, context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}
