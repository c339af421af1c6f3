package cli

import (
	"context"
	"log/slog"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/provider"
)

// OpenStores opens the stores of c as serve does. What it returns beside them runs in
// the background.
func OpenStores(ctx context.Context, c *config.Config, rotation *provider.Rotation, log *slog.Logger) ([]provider.Backend, func(context.Context) error, error) {
	backends, parts, err := opener{rotation: rotation, limits: c.Limits, log: log}.open(ctx, c.Stores)
	return backends, func(ctx context.Context) error { return runAll(ctx, parts) }, err
}
