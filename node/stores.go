package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/state"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/queue"
)

const (
	// requestsAtOnce bounds the requests in flight to one store, and about its
	// connections: no fewer than one mount may have.
	requestsAtOnce = 64
	// deliverWithin is the time beyond the driver's interval until a credential is in the
	// pod: for the kubelet's call, and a few failed ones.
	deliverWithin = 3 * time.Minute
)

// builder makes the stores of keymount.yaml ready to be read.
type builder struct {
	metrics  *observe.Metrics
	trail    *audit.Trail
	rotation *observe.Rotation
	removals *removals // gets every store with credentials of volumes
	limits   config.Limits
	memory   *keep.Pool // of all stores without their own
	state    *state.Folder
	answers  *room.Answers // of all stores
	log      *slog.Logger

	readiness *readiness // hears of every store that can be probed; nil probes none
	report    *reporter  // tells of every store; nil tells of none
}

// open opens each store. One that cannot be read yet is not fatal: others may serve,
// and it may become readable.
func (b builder) open(ctx context.Context, stores []config.Store) ([]provider.Backend, []part, error) {
	backends := make([]provider.Backend, 0, len(stores))
	var parts []part
	for _, s := range stores {
		opened, running, err := b.one(ctx, s)
		if err != nil {
			return nil, nil, fmt.Errorf("store %q: %w", s.Name, err)
		}
		backends, parts = append(backends, opened), append(parts, running...)
	}
	return backends, parts, nil
}

func (b builder) one(ctx context.Context, s config.Store) (provider.Backend, []part, error) {
	b.log = b.log.With(slog.String("store", s.Name))
	layers, err := s.Settings.Open(kind.Env{Log: b.log, Now: clock, Answers: b.answers, Loaded: b.metrics.Loaded(s.Name)})
	if err != nil {
		return provider.Backend{}, nil, err
	}
	backend, parts := b.backend(s, layers, clock)
	if layers.Probe == nil || b.readiness == nil {
		return backend, parts, nil
	}
	watched := b.readiness.watch(s.Name, layers.Probe)
	if !s.Kind.Traits().Memory { // or else it is far away, and mounts do not wait for it
		watched.ask(ctx)
	}
	return backend, append(parts, watched.run), nil
}

// backend puts the layers of keymount in front of those of a store: its requests are
// counted, logged in and bounded, and its answers remembered.
func (b builder) backend(s config.Store, layers kind.Layers, now func() time.Time) (provider.Backend, []part) {
	backend := provider.Backend{
		Name: s.Name, Rules: s.Rules(), Audience: s.Settings.Audience(), TokensWithoutPod: s.TokensWithoutPod,
		Class: class.Store{Traits: s.Kind.Traits(), Settings: s.Settings}, Resolves: layers.Resolver != nil,
	}
	layers = b.trail.Watch(s.Name, b.metrics.Count(s.Name, layers))
	l := layer{builder: b, store: s, replace: b.limits.RotationPollInterval + deliverWithin, now: now}
	if layers.Login != nil || s.Kind.Traits().Memory { // or else there is no state
		l.file = b.state.File(s.Name, append(s.Settings.Fingerprint(), s.Session))
	}
	var parts []part
	sessions := l.sessions(layers.Login)
	if sessions != nil {
		parts = append(parts, sessions.Run)
	}
	opened := login.Open(login.Options{
		Store: layers.Store, Resolver: layers.Resolver, Leaser: layers.Leaser, Recaller: layers.Recaller, Sessions: sessions, Now: now,
	})
	if !s.Kind.Traits().Memory {
		b.report.add(&storeReport{name: s.Name})
		backend.Store = keep.NewDirect(opened)
		l.persist(sessions, nil)
		return backend, parts
	}
	places := queue.New(requestsAtOnce)
	kept := l.keep(places.Before(opened), sessions)
	one := &storeReport{s.Name, sessions, kept, places}
	b.metrics.MeasureStore(s.Name, one.sources())
	b.report.add(one)
	backend.Store = kept
	l.persist(sessions, kept)
	return backend, append(parts, kept.Run)
}

// layer is the context that the layers of one store share.
type layer struct {
	builder
	store   config.Store
	file    *state.File   // nil keeps nothing
	replace time.Duration // before the end of a credential, for its successor
	now     func() time.Time
}

func (l layer) perPod() bool { return l.store.Session == config.SessionPod }

// sessions are the logins of a store; nil for one without.
func (l layer) sessions(method login.Method) *login.Sessions {
	if method == nil {
		return nil
	}
	sessions := login.NewSessions(method, l.perPod(), l.now)
	sessions.Spare, sessions.Log, sessions.Changed = l.replace+keep.LeastLife, l.log, l.file.Change
	return sessions
}

// keep remembers the answers of a store.
func (l layer) keep(below login.Store, sessions *login.Sessions) *keep.Keeper {
	o := keep.Options{
		Refresh: *l.store.Refresh, RefreshMax: *l.store.RefreshMax, Stale: *l.store.Stale, PerPod: l.perPod(), Replace: l.replace, Pool: l.pool(),
		Now: l.now, Log: l.log, Forgotten: l.rotation.Forgotten(l.store.Name, l.log), Changed: l.file.Change,
	}
	if sessions != nil {
		o.Vouch = func(r login.Request) { sessions.Vouch(r.Identity, r.Role) }
	}
	kept := keep.New(below, o)
	l.removals.add(kept, sessions)
	l.metrics.MeasureMemory(l.store.Name, kept)
	return kept
}

// pool is the memory of a store: its own if keymount.yaml says how large it is.
func (l layer) pool() *keep.Pool {
	if mib := l.store.MemoryMiB; mib != nil {
		return keep.NewPool(int64(*mib)<<20, l.now, l.log)
	}
	return l.memory
}

// persist has the state folder keep logins and values: a restart must not make them anew.
func (l layer) persist(sessions *login.Sessions, kept *keep.Keeper) {
	var logins, values state.Stateful
	if sessions != nil {
		logins = sessions
	}
	if kept != nil {
		values = kept
	}
	l.file.Hold(logins, values)
}
