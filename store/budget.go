package store

import (
	"context"
	"fmt"
	"sync/atomic"
)

// ErrBudget marks an ErrInvalid: the secrets that are read together are too large.
var ErrBudget = fmt.Errorf("%w: too large", ErrInvalid)

type budgetKey struct{}

// WithBudget bounds how many bytes all reads with this context may take in, as the
// store sends them: parsed they can take thirty times as much.
func WithBudget(ctx context.Context, bytes int64) context.Context {
	left := new(atomic.Int64)
	left.Store(bytes)
	return context.WithValue(ctx, budgetKey{}, left)
}

// Spend takes n bytes from the budget before they are parsed. Without a budget
// there is no bound.
func Spend(ctx context.Context, n int) error {
	left, ok := ctx.Value(budgetKey{}).(*atomic.Int64)
	if ok && left.Add(-int64(n)) < 0 {
		return fmt.Errorf("%w: the secrets of one mount are larger together than what the driver takes; split the class", ErrBudget)
	}
	return nil
}
