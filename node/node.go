// Package node is one node's keymount out of a keymount.yaml: [Open] wires stores, issuers,
// metrics and sockets together, and [Node.Run] serves until its context ends. It knows
// no command line: package cli reads one for it.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/state"
)

// Options are the settings from outside keymount.yaml.
type Options struct {
	// Node is this node's name at the API server. Without it, tokens that name a node are
	// refused.
	Node string
	// Version and Revision are those of this keymount, for the driver and for metrics.
	Version, Revision string
	Log               *slog.Logger
	// Stdout takes the audit trail, if keymount.yaml sends it there.
	Stdout io.Writer
}

// Node has its sockets open, and serves during Run.
type Node struct {
	parts parts
	state *state.Folder
	trail *audit.Trail
}

// Open opens stores and sockets, and takes over the state of the last process. A store
// that cannot be read yet is no error. Without an error, Run has to follow.
func Open(ctx context.Context, c *config.Config, o Options) (*Node, error) {
	key, err := versionKey(ctx, c.VersionKeyFile, o.Log)
	if err != nil {
		return nil, err
	}
	folder, err := state.Open(c.StateFolder, key, o.Node, o.Log)
	if err != nil {
		return nil, fmt.Errorf("stateFolder: %w", err)
	}
	trail, err := openTrail(ctx, c, o, key)
	if err != nil {
		folder.Close()
		return nil, err
	}
	all, err := listen(ctx, c, o, key, folder, trail)
	if err != nil {
		trail.Close(ctx)
		folder.Close()
		return nil, err
	}
	warn(ctx, c, o.Log)
	return &Node{all, folder, trail}, nil
}

// warn logs what keymount.yaml may say and seldom means.
func warn(ctx context.Context, c *config.Config, log *slog.Logger) {
	for _, w := range Warn(c) {
		log.LogAttrs(ctx, slog.LevelWarn, "keymount.yaml", slog.String("place", w.Place), slog.String("warning", w.Err.Error()))
	}
}

// Run serves until ctx ends or a part fails, and waits for the mounts in flight. It
// writes the state once more after all else has ended, and the end of the audit trail. A
// Node runs once.
func (n *Node) Run(ctx context.Context) error {
	defer n.state.Close()
	return n.trail.During(ctx, func() error {
		return n.state.During(ctx, func() error { return n.parts.run(ctx) })
	})
}

// part is a task that runs until ctx ends.
type part func(ctx context.Context) error

// parts are the servers, and the background work that mounts in flight still need.
type parts struct{ serving, background []part }

// run runs the servers until ctx ends or a part fails, then ends the background work,
// and waits for all.
func (p parts) run(ctx context.Context) error {
	outliving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	running, ctx := errgroup.WithContext(ctx)
	for _, run := range p.background {
		running.Go(func() error { return run(outliving) })
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

// listen wires everything together and opens the sockets.
func listen(ctx context.Context, c *config.Config, o Options, key secret.Bytes, folder *state.Folder, trail *audit.Trail) (all parts, err error) {
	issuers, err := openIssuers(c.Issuers)
	if err != nil {
		return all, err
	}
	metrics := newMetrics(o)
	metrics.MeasureTrail(trail)
	metrics.MeasureConfig(c.Source.SHA256)
	events, writing, err := openEvents(c, o, metrics)
	if err != nil {
		return all, err
	}
	rotation := &observe.Rotation{Metrics: metrics, Events: events}
	volumes := &removals{}
	readiness := &readiness{bound: c.Limits.ReadinessBound, began: time.Now(), metrics: metrics, events: events, pod: kube.OwnPod(), log: o.Log}
	metrics.MeasureReady(readiness.ready)
	report := newReporter(c, o, metrics, sharedMemory(c, clock, o.Log), readiness.ready)
	backends, keeping, err := builder{
		metrics, trail, rotation, volumes, c.Limits, report.memory, folder, room.NewAnswers(room.Parallel(), time.Now), o.Log, readiness, report,
	}.open(ctx, c.Stores)
	if err != nil {
		return all, err
	}
	watching, err := watchVolumes(c, o, volumes)
	if err != nil {
		return all, err
	}
	folder.Restore(ctx)
	metrics.MeasureVolumes(func() observe.States { return report.lines.States(time.Now().Add(-report.within)) })
	report.provider = provider.New(provider.Options{
		Version:       o.Version,
		Backends:      backends,
		Verifier:      auth.NewVerifier(issuers, o.Node, clock),
		VersionKey:    key,
		Deadline:      c.Limits.MountDeadline,
		ParallelReads: c.Limits.ParallelReads,
		Recorders:     recorders(trail, events, metrics, rotation, report.lines),
		Mounting:      metrics.Mounting,
		Ready:         readiness.ready,
	})
	server, err := provider.Listen(ctx, c.Sockets, report.provider, o.Log)
	if err != nil {
		return all, err
	}
	beside, err := listenBeside(ctx, c, metrics, report, o.Log)
	if err != nil {
		return all, errors.Join(err, server.Close())
	}
	serving := slices.Concat(watching, beside, []part{returnMemory, report.lines.Run, server.Run})
	return parts{serving: serving, background: append(keeping, writing...)}, nil
}

// listenBeside opens what the operator wants beside the driver's sockets.
func listenBeside(ctx context.Context, c *config.Config, metrics *observe.Metrics, report *reporter, log *slog.Logger) (serving []part, err error) {
	var answering *answering
	if c.StatusSocket != "" {
		if answering, err = report.listen(ctx, c.StatusSocket, log); err != nil {
			return nil, err
		}
		serving = append(serving, answering.run)
	}
	if c.Metrics == "" {
		return serving, nil
	}
	scrapes, err := metrics.Listen(ctx, c.Metrics, log)
	if err == nil {
		return append(serving, scrapes.Run), nil
	}
	if answering != nil {
		err = errors.Join(err, answering.socket.Close())
	}
	return nil, err
}

// newMetrics counts mounts, reads and logins, whether they are scraped or not: the status has
// some of that, too.
func newMetrics(o Options) *observe.Metrics { return observe.NewMetrics(o.Version, o.Revision) }

// openEvents writes events onto pods, if the operator wants them.
func openEvents(c *config.Config, o Options, metrics *observe.Metrics) (observe.EventWriter, []part, error) {
	if !c.Events {
		return nil, nil, nil
	}
	events, err := kube.ClusterEvents(o.Node, time.Now)
	if err != nil {
		return nil, nil, err
	}
	metrics.MeasureEvents(events.Dropped)
	run := func(ctx context.Context) error { events.Run(ctx, o.Log); return nil }
	return events, []part{run}, nil
}

// recorders hear of mounts: the trail first, whose failure is the mount's, and the log last,
// whose line has the code that the driver gets.
func recorders(trail *audit.Trail, events observe.EventWriter, metrics *observe.Metrics, rotation *observe.Rotation, lines *observe.Log) []provider.Recorder {
	all := []provider.Recorder{trail}
	if events != nil {
		all = append(all, observe.Tell(events))
	}
	return append(all, metrics, rotation, lines)
}
