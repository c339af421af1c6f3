package cli

import (
	"context"
	"log/slog"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store"
)

// Clock is what keymount serve goes by.
func Clock() time.Time { return clock() }

// OpenPlayed opens the first store of c as serve does, with somebody who plays the
// Vault: its logins and its secrets. What it returns beside it runs in the background,
// and is told of volumes that are gone.
func OpenPlayed(c *config.Config, method auth.Method, asked store.Store, now func() time.Time, log *slog.Logger) (
	backend provider.Backend, run func(context.Context) error, left func(namespace, podUID, class string), err error,
) {
	backend, err = backendOf(c.Stores[0])
	gone := &leavers{}
	var keeping []part
	backend.Store, keeping = opener{newMetrics(c), &provider.Rotation{}, gone, c.Limits, nil, log}.pile(c.Stores[0], method, asked, now)
	left = func(namespace, podUID, class string) {
		gone.left(kube.Volume{Namespace: namespace, PodUID: podUID, Class: class}, true)
	}
	return backend, parts{serving: keeping}.run, left, err
}

// OpenStores opens the stores of c as serve does. What it returns beside them runs in
// the background.
func OpenStores(ctx context.Context, c *config.Config, rotation *provider.Rotation, log *slog.Logger) ([]provider.Backend, func(context.Context) error, error) {
	backends, keeping, err := opener{rotation: rotation, gone: &leavers{}, limits: c.Limits, log: log}.open(ctx, c.Stores)
	return backends, func(ctx context.Context) error { return parts{serving: keeping}.run(ctx) }, err
}

// RunParts runs what serves and what stands behind it, as serve does.
func RunParts(ctx context.Context, serving, behind func(context.Context) error) error {
	return parts{serving: []part{serving}, behind: []part{behind}}.run(ctx)
}
