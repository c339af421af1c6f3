package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider"
)

// versionKeyBytes is the length of a key made at start.
const versionKeyBytes = 32

func newServe() *cobra.Command {
	var file, node, level string
	command := &cobra.Command{
		Use:   "serve",
		Short: "Answer the driver's Mount calls on this node",
		Long: `Answer the Secrets Store CSI driver's Mount calls on this node, on the sockets of
keymount.yaml, until SIGTERM or SIGINT. Logs go to standard error, as text on a terminal
and as JSON lines otherwise.`,
		Example: `  keymount serve --config /etc/keymount/keymount.yaml --node-name worker-1`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file)
			if err != nil {
				return err
			}
			log, err := newLog(cmd.ErrOrStderr(), level)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, node, log)
		},
	}
	command.Flags().StringVarP(&file, "config", "c", defaultConfigFile, "the operator's file")
	command.Flags().StringVar(&node, "node-name", os.Getenv("NODE_NAME"), "this node as the API server knows it (default $NODE_NAME)")
	command.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return command
}

// serve runs until ctx ends.
func serve(ctx context.Context, c *config.Config, node string, log *slog.Logger) error {
	run, err := ready(ctx, c, node, log)
	if err != nil {
		return err
	}
	log.LogAttrs(ctx, slog.LevelInfo, "serving", slog.Any("sockets", c.Sockets), slog.String("node", node),
		slog.Int("stores", len(c.Stores)), slog.Int("issuers", len(c.Issuers)), slog.Bool("events", c.Events), slog.String("metrics", c.Metrics),
		slog.Bool("watch_volumes", c.WatchVolumes),
		slog.String("mount_deadline", c.Limits.MountDeadline.String()))
	if err := run(ctx); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, "stopped")
	return nil
}

// part is something that runs until ctx ends.
type part func(ctx context.Context) error

// parts are what serves, and what stands behind it: a mount under way still needs it.
type parts struct{ serving, behind []part }

// run runs what serves until ctx ends or a part fails, then ends what stands behind it,
// and waits for all.
func (p parts) run(ctx context.Context) error {
	standing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	running, ctx := errgroup.WithContext(ctx)
	for _, run := range p.behind {
		running.Go(func() error { return run(standing) })
	}
	var serving sync.WaitGroup
	for _, run := range p.serving {
		serving.Add(1)
		running.Go(func() error {
			defer serving.Done()
			return run(ctx)
		})
	}
	serving.Wait()
	stop()
	return running.Wait()
}

// ready opens everything and returns what serves. The state is written once more after
// all else has ended.
func ready(ctx context.Context, c *config.Config, node string, log *slog.Logger) (part, error) {
	key, err := versionKey(ctx, c.VersionKeyFile, log)
	if err != nil {
		return nil, err
	}
	state, err := openState(c.StateFolder, key, node, log)
	if err != nil {
		return nil, err
	}
	all, err := listen(ctx, c, node, key, state, log)
	if err != nil {
		state.close()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer state.close()
		return state.during(ctx, func() error { return all.run(ctx) })
	}, nil
}

// listen wires everything together and opens the sockets.
func listen(ctx context.Context, c *config.Config, node string, key secret.Bytes, state *stateFolder, log *slog.Logger) (all parts, err error) {
	issuers, err := openIssuers(c.Issuers)
	if err != nil {
		return all, err
	}
	metrics := newMetrics(c)
	events, telling, err := openEvents(c, node, log)
	if err != nil {
		return all, err
	}
	rotation := &provider.Rotation{Metrics: metrics, Recorder: events}
	gone := &leavers{}
	backends, keeping, err := opener{metrics, rotation, gone, c.Limits, state, log}.open(ctx, c.Stores)
	if err != nil {
		return all, err
	}
	watching, err := watchVolumes(c, node, gone, log)
	if err != nil {
		return all, err
	}
	state.restore(ctx)
	server, err := provider.Listen(ctx, c.Sockets, provider.New(provider.Options{
		Version:       readBuild().Version,
		Backends:      backends,
		Verifier:      auth.NewVerifier(issuers, node, clock),
		VersionKey:    key,
		Deadline:      c.Limits.MountDeadline,
		ParallelReads: c.Limits.ParallelReads,
		Observers:     tellers(events),
		Metrics:       metrics,
		Rotation:      rotation,
	}), log)
	if err != nil {
		return all, err
	}
	all = parts{serving: append(watching, tidy, server.Run), behind: append(keeping, telling...)}
	if metrics == nil {
		return all, nil
	}
	scrapes, err := metrics.Listen(ctx, c.Metrics, log)
	if err != nil {
		return all, errors.Join(err, server.Close())
	}
	all.serving = append(all.serving, scrapes.Run)
	return all, nil
}

// newMetrics counts what serve does, if anybody asked for it.
func newMetrics(c *config.Config) *provider.Metrics {
	if c.Metrics == "" {
		return nil
	}
	b := readBuild()
	return provider.NewMetrics(b.Version, b.Revision)
}

// openEvents makes who writes events onto pods, if anybody asked for it.
func openEvents(c *config.Config, node string, log *slog.Logger) (provider.Recorder, []part, error) {
	if !c.Events {
		return nil, nil, nil
	}
	events, err := kube.ClusterEvents(node, time.Now)
	if err != nil {
		return nil, nil, err
	}
	run := func(ctx context.Context) error { events.Run(ctx, log); return nil }
	return events, []part{run}, nil
}

// tellers are those who tell of mounts outside of the log.
func tellers(events provider.Recorder) []provider.Observer {
	if events == nil {
		return nil
	}
	return []provider.Observer{provider.Tell(events)}
}

func openIssuers(issuers []config.Issuer) ([]*auth.Issuer, error) {
	opened := make([]*auth.Issuer, 0, len(issuers))
	for n, i := range issuers {
		source, err := keySource(i)
		if err != nil {
			return nil, fmt.Errorf("issuers[%d]: %w", n, err)
		}
		opened = append(opened, auth.NewIssuer(i.Issuer, source, clock))
	}
	return opened, nil
}

func keySource(i config.Issuer) (auth.KeySource, error) {
	switch i.Keys {
	case config.KeysFile:
		return auth.FileKeys{Issuer: i.Issuer, File: i.KeysFile}, nil
	case config.KeysDiscovery:
		return auth.NewDiscoveryKeys(i.Issuer, i.CAFile)
	default:
		return kube.ClusterKeys(i.Issuer)
	}
}

func versionKey(ctx context.Context, file string, log *slog.Logger) (secret.Bytes, error) {
	if file != "" {
		return provider.ReadVersionKey(file)
	}
	log.LogAttrs(ctx, slog.LevelWarn, "no versionKeyFile: versions hold for this process alone; "+
		"at every restart all files get new versions, and synced Secrets and workloads that watch them are updated")
	key := make([]byte, versionKeyBytes)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return secret.New(key), nil
}

// newLog writes text to a terminal and JSON lines to everything else.
func newLog(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("%w: --log-level is %q; it is debug, info, warn or error", errUsage, level)
	}
	options := &slog.HandlerOptions{Level: l}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}
