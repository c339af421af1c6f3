// Package provider answers the Secrets Store CSI driver.
//
// [Provider.Mount] is the story of a mount and reads as one: each call in it is a
// step and a file of this package. request.go reads what the driver sent, class.go
// what that asks for and dialect_vault.go the same of other providers' classes,
// fetch.go asks who the pod is (package auth), what it may read (package access) and
// reads it (package store; step.go has what is not at hand asked for in parallel),
// render.go makes files of it and version.go their versions. status.go decides which
// gRPC code an error gets, serve.go owns the sockets.
package provider

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// Name is what the driver is told the provider is called.
const Name = "keymount"

// maxTurns is how many mounts parse or render at a time; more would wait for a
// processor anyway.
const maxTurns = 4

// largeClass is the length of attributes beyond which a class is parsed alone: its
// parsed form takes a hundred times as much.
const largeClass = 64 << 10

// Backend is one store of keymount.yaml, ready to be read.
type Backend struct {
	Name     string
	Store    store.Store // logs in by itself, see [store.LogIn]
	Rules    access.Rules
	Audience string // of the tokens it accepts
	Features Features
	// TokensWithoutPod accepts tokens that are bound to no pod.
	TokensWithoutPod bool
}

// Options are what a Provider is made of. All fields but the last three are required.
type Options struct {
	Version    string // of keymount, as a semantic version
	Backends   []Backend
	Verifier   *auth.Verifier
	VersionKey secret.Bytes // what versions are derived from, at least 32 bytes
	Deadline   time.Duration
	// ParallelReads is how many secrets of one mount are read at a time.
	ParallelReads int
	// Observers are told of every Mount.
	Observers []Observer
	// Metrics count mounts and reads; nil counts nothing. Logins are counted where
	// Sessions are made, see [Metrics.CountLogins].
	Metrics *Metrics
	// Rotation is told what is mounted; nil for none.
	Rotation *Rotation
}

// Provider implements the driver's gRPC service. Between calls it knows which volumes
// it has mounted and what classes mean, and nothing of what is in the files. It is safe
// for concurrent use.
type Provider struct {
	v1alpha1.UnimplementedCSIDriverProviderServer

	version  string
	dialect  Dialect
	backends map[string]Backend
	classes  *classes
	verifier *auth.Verifier
	versions versioner
	deadline time.Duration
	parallel int
	turns    chan struct{}
	large    chan struct{}

	observers []Observer
	metrics   *Metrics
	served    *volumes
}

// New makes a Provider; it opens nothing and starts nothing.
func New(o Options) *Provider {
	p := &Provider{
		version: o.Version, dialect: DialectKeymount, verifier: o.Verifier, versions: versioner{o.VersionKey},
		deadline: o.Deadline, parallel: o.ParallelReads, observers: o.Observers, metrics: o.Metrics,
		large: make(chan struct{}, 1), served: &volumes{},
		turns:    make(chan struct{}, min(maxTurns, runtime.GOMAXPROCS(0))),
		backends: make(map[string]Backend, len(o.Backends)),
	}
	if o.Rotation != nil {
		p.served = &o.Rotation.volumes
	}
	if p.metrics != nil {
		p.observers = append(slices.Clone(p.observers), p.metrics.observe)
	}
	features := make(map[string]Features, len(o.Backends)) // what a class may ask of each
	for _, b := range o.Backends {
		p.backends[b.Name] = b
		features[b.Name] = b.Features
	}
	p.classes = newClasses(features)
	return p
}

// Version tells the driver who answers.
func (p *Provider) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: Name, RuntimeVersion: p.version}, nil
}

// Mount answers with every file of a class, or with an error and none.
func (p *Provider) Mount(ctx context.Context, m *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	ctx, cancel := withDeadline(ctx, p.deadline)
	defer cancel()
	defer p.metrics.mounting()()

	request, err := p.parse(ctx, m)
	noteRequest(ctx, request)
	waiting := !p.served.again(volumeOf(request)) // also of a class that was broken meanwhile
	if err != nil {
		return nil, err
	}
	askers, err := p.identify(ctx, request, waiting)
	if err != nil {
		return nil, err
	}
	reads, err := authorize(request, askers)
	if err != nil {
		return nil, err
	}
	if err := reads.fetch(ctx, p.parallel); err != nil {
		return nil, err
	}
	return p.answer(ctx, request, reads)
}

// parse reads the request in its dialect, when it is its turn; large ones one by one.
func (p *Provider) parse(ctx context.Context, m *v1alpha1.MountRequest) (r Request, err error) {
	read := func() (err error) {
		text := classText{dialect: p.dialect, permission: m.GetPermission()}
		r, err = parseRequest(m.GetAttributes(), text, p.classes.parse)
		return err
	}
	if len(m.GetAttributes()) <= largeClass {
		err = inTurn(ctx, p.turns, "mounts", read)
		return r, err
	}
	err = inTurn(ctx, p.large, "large classes", func() error { return inTurn(ctx, p.turns, "mounts", read) })
	return r, err
}

// answer makes files and versions of what was read.
func (p *Provider) answer(ctx context.Context, r Request, all *reads) (*v1alpha1.MountResponse, error) {
	for _, one := range all.list {
		if stale := one.value.Stale; stale != nil {
			warn(ctx, fmt.Sprintf("%s: the last known value stands in, since the store gives no answer: %s", one.secret, stale))
			p.metrics.standIn(one.secret.Store)
		}
	}
	files, err := p.render(ctx, r.Objects, all.of)
	if err != nil {
		return nil, err
	}
	note(ctx, slog.Int("files", len(files)), slog.Int("reads", all.values()))
	warn(ctx, warnings(files)...)
	response, err := p.respond(r, files)
	if err == nil {
		p.served.add(volumeOf(r))
	}
	return response, err
}

// inTurn computes when one of few places is free: parsing and rendering take
// memory, tens of megabytes at worst, and a storm of mounts must not multiply it.
func inTurn(ctx context.Context, places chan struct{}, queue string, f func() error) error {
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
		return f()
	case <-ctx.Done():
		return fmt.Errorf("no time was left in the queue of %s: %w", queue, ctx.Err())
	}
}

// withDeadline ends the work after limit, or earlier when the caller would stop
// waiting: an answer of ours must come before grpc makes up its own.
func withDeadline(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		limit = min(limit, left-min(time.Second, left/2))
	}
	return context.WithTimeout(ctx, limit)
}
