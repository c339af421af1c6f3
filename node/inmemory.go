package node

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store/kind"
)

// InMemoryOptions are the settings of a node in memory.
type InMemoryOptions struct {
	Version string // of this keymount
	// Node is the node's name at the API server. Without it, tokens that name a node are
	// refused.
	Node string
	// Issuers are accepted in place of those of keymount.yaml.
	Issuers []auth.KeySource
	// Secrets stand in for stores, by store and path; a store without an entry is opened
	// as it is.
	Secrets   map[string]map[string]secret.Tree
	Recorders []provider.Recorder
	Log       *slog.Logger
}

// InMemory is a node for a few mounts of this process: what answers them is what answers the
// driver, but there is no socket, state, trail, metric, event or background work. Of
// keymount.yaml it takes the stores with their rules, and the limits.
func InMemory(ctx context.Context, c *config.Config, o InMemoryOptions) (*provider.Provider, error) {
	b := builder{
		rotation: &observe.Rotation{}, removals: &removals{}, limits: c.Limits, memory: sharedMemory(c, clock, o.Log),
		answers: room.NewAnswers(room.Parallel(), time.Now), log: o.Log,
	}
	backends, _, err := b.open(ctx, withSecrets(c.Stores, o.Secrets))
	if err != nil {
		return nil, err
	}
	var issuers []*auth.Issuer
	for _, keys := range o.Issuers {
		issuers = append(issuers, auth.NewIssuer("", keys, clock))
	}
	return provider.New(provider.Options{
		Version:       o.Version,
		Backends:      backends,
		Verifier:      auth.NewVerifier(issuers, o.Node, clock),
		VersionKey:    NewVersionKey(),
		Deadline:      c.Limits.MountDeadline,
		ParallelReads: c.Limits.ParallelReads,
		Recorders:     o.Recorders,
	}), nil
}

// withSecrets are the stores, of which some open with secrets from elsewhere.
func withSecrets(stores []config.Store, secrets map[string]map[string]secret.Tree) []config.Store {
	all := slices.Clone(stores)
	for i, s := range all {
		if in, wanted := secrets[s.Name]; wanted {
			all[i].Settings = filled{s.Settings, in}
		}
	}
	return all
}

// filled are the settings of a store which opens without looking at what they name: its
// secrets are given.
type filled struct {
	kind.Settings

	secrets map[string]secret.Tree
}

// Open implements [kind.Settings].
func (s filled) Open(env kind.Env) (kind.Layers, error) {
	return kind.OpenMadeUp(s.Settings, env, s.secrets)
}
