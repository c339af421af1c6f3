package cli

import (
	"context"
	"log/slog"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store"
)

// Clock is what keymount serve goes by.
func Clock() time.Time { return clock() }

// OpenPlayed opens the first store of c as serve does, with somebody who plays the
// Vault: its logins and its secrets. What it returns beside it runs in the background.
func OpenPlayed(c *config.Config, method auth.Method, asked store.Store, now func() time.Time, log *slog.Logger) (provider.Backend, func(context.Context) error, error) {
	backend, err := backendOf(c.Stores[0])
	var parts []part
	backend.Store, parts = opener{newMetrics(c), &provider.Rotation{}, &leavers{}, c.Limits, nil, log}.pile(c.Stores[0], method, asked, now)
	return backend, func(ctx context.Context) error { return runAll(ctx, parts) }, err
}

// OpenStores opens the stores of c as serve does. What it returns beside them runs in
// the background.
func OpenStores(ctx context.Context, c *config.Config, rotation *provider.Rotation, log *slog.Logger) ([]provider.Backend, func(context.Context) error, error) {
	backends, parts, err := opener{rotation: rotation, gone: &leavers{}, limits: c.Limits, log: log}.open(ctx, c.Stores)
	return backends, func(ctx context.Context) error { return runAll(ctx, parts) }, err
}
