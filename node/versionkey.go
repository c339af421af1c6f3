package node

import (
	"context"
	"crypto/rand"
	"log/slog"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider"
)

// NewVersionKey makes a key to derive versions of files from, 32 random bytes.
func NewVersionKey() secret.Bytes {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return secret.New(key)
}

func versionKey(ctx context.Context, file string, log *slog.Logger) (secret.Bytes, error) {
	if file != "" {
		return provider.ReadVersionKey(file)
	}
	log.LogAttrs(ctx, slog.LevelWarn, "no versionKeyFile: versions hold for this process alone; "+
		"at every restart all files get new versions, and synced Secrets and workloads that watch them are updated")
	return NewVersionKey(), nil
}
