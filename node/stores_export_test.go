package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/state"
	"github.com/keymount/keymount/store/kind"
)

// Clock is that of a node.
func Clock() time.Time { return clock() }

// OpenPlayed opens the first store of c as Open does, with a Vault that is played: its
// logins and its secrets. It returns the function that runs in the background, too, and
// the one that hears of volumes that are gone.
func OpenPlayed(c *config.Config, layers kind.Layers, now func() time.Time, log *slog.Logger) (
	_ provider.Backend, run func(context.Context) error, left func(namespace, podUID, class string),
) {
	r := &removals{}
	backend, keeping := builder{newMetrics(Options{}), nil, &observe.Rotation{}, r, c.Limits, sharedMemory(c, now, log), nil, nil, log, nil, nil}.backend(c.Stores[0], layers, now)
	left = func(namespace, podUID, class string) {
		r.removed(auth.Volume{Namespace: namespace, PodUID: podUID, Class: class}, true)
	}
	return backend, parts{serving: keeping}.run, left
}

// OpenStores opens the stores of c as Open does. What it returns beside them runs in
// the background.
func OpenStores(ctx context.Context, c *config.Config, rotation *observe.Rotation, log *slog.Logger) ([]provider.Backend, func(context.Context) error, error) {
	backends, keeping, err := builder{rotation: rotation, removals: &removals{}, limits: c.Limits, memory: sharedMemory(c, clock, log), log: log}.open(ctx, c.Stores)
	return backends, func(ctx context.Context) error { return parts{serving: keeping}.run(ctx) }, err
}

// OpenIn opens the stores of c as Open does, with their state in folder.
func OpenIn(ctx context.Context, c *config.Config, folder *state.Folder, log *slog.Logger) ([]provider.Backend, error) {
	backends, _, err := builder{rotation: &observe.Rotation{}, removals: &removals{}, limits: c.Limits, memory: sharedMemory(c, clock, log), state: folder, log: log}.open(ctx, c.Stores)
	return backends, err
}

// OpenPlayedIn is OpenPlayed with the state of the store in folder.
func OpenPlayedIn(folder *state.Folder, c *config.Config, layers kind.Layers, log *slog.Logger) (provider.Backend, func(context.Context) error) {
	b := builder{rotation: &observe.Rotation{}, removals: &removals{}, limits: c.Limits, memory: sharedMemory(c, clock, log), state: folder, log: log}
	backend, keeping := b.backend(c.Stores[0], layers, clock)
	return backend, parts{serving: keeping}.run
}

// Recorders are those of a node, in their order.
func Recorders(events observe.EventWriter, metrics *observe.Metrics, rotation *observe.Rotation, log *slog.Logger) []provider.Recorder {
	return recorders(nil, events, metrics, rotation, observe.NewLog(log))
}

// RunParts runs a server and background work, as Run does.
func RunParts(ctx context.Context, serving, background func(context.Context) error) error {
	return parts{serving: []part{serving}, background: []part{background}}.run(ctx)
}
