package cli

import "context"

// Tidy runs until ctx ends.
func Tidy(ctx context.Context) error { return tidy(ctx) }
