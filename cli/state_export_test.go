package cli

import (
	"context"
	"log/slog"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// Stateful is a store whose state is kept.
type Stateful interface {
	store.Store
	store.Stateful
}

// ServeWithState is the life of a process with one store: what it takes over, serve,
// and what it leaves. changed says that there is something to be written.
func ServeWithState(
	ctx context.Context, folder string, key secret.Bytes, node string, c config.Store, logins store.Stateful, values Stateful, log *slog.Logger,
	serve func(changed func()) error,
) error {
	state, err := openState(folder, key, node, log)
	if err != nil {
		return err
	}
	defer state.close()
	file := state.file(c)
	file.hold(logins, values)
	state.restore(ctx)
	return state.during(ctx, func() error { return serve(file.change) })
}
