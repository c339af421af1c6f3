// Package provider answers the Secrets Store CSI driver.
//
// [Provider.Mount] is the story of a mount and reads as one: each call in it is a step and
// a file of this package. Package class reads the driver's request. identify.go verifies
// the pod (package auth). fetch.go has the rules (package access) decide on each secret
// and then reads them all; read.go has the life of one secret, and step.go asks the stores
// in parallel for all secrets not at hand. render.go makes files of the secrets,
// version.go their versions, and respond.go the answer. status.go chooses the gRPC code of
// an error, serve.go owns the sockets, and admin.go answers the calls of keymount's own
// commands.
//
// The outcome of a mount is a value of package record, and every [Recorder] gets it before
// the driver gets its answer. No file of this package uses a file that uses it.
package provider

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"google.golang.org/grpc/codes"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/turns"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store/keep"
)

// Name is the provider's name for the driver.
const Name = "keymount"

// largeClass is the length in bytes beyond which a class is parsed alone: its parsed
// form takes a hundred times as much.
const largeClass = 64 << 10

// maxProcessors bounds the memory that parsing and rendering take at a time.
const maxProcessors = 4

// Recorder gets every Mount exactly once, with its outcome and before the driver's answer.
// It is safe for concurrent use; it does not change m and keeps no reference to it. Its
// error fails the mount: no secret may leave without that record. An observer always
// returns nil, and does not wait. A panic changes no answer: the later Recorders find it
// in [record.Mount].
type Recorder interface {
	Record(ctx context.Context, m *record.Mount) error
}

// Options are the parts of a Provider. All but the last four are required.
type Options struct {
	Version    string // of keymount, as a semantic version
	Backends   []Backend
	Verifier   *auth.Verifier
	VersionKey secret.Bytes // of the versions of files, at least 32 bytes
	Deadline   time.Duration
	// ParallelReads bounds the secrets of one mount read at a time.
	ParallelReads int
	// Recorders get every Mount in this order: the later ones see in it the failures of the
	// earlier ones.
	Recorders []Recorder
	// Turns are the places for parsing and rendering; nil for the usual number.
	Turns *turns.Queue
	// Room bounds what all mounts hold together; nil for the usual size.
	Room *room.Mounts
	// Mounting is called at the beginning of a Mount, and the function that it returns at
	// its end; nil for none.
	Mounting func() (ended func())
	// Ready tells whether a rollout may go on to the next node; nil is always. Mounts are
	// answered either way.
	Ready func() bool
}

// Provider implements the driver's gRPC service. Between calls it remembers the mounted
// volumes and the parsed classes, and no content of files. It is safe for concurrent use.
type Provider struct {
	v1alpha1.UnimplementedCSIDriverProviderServer

	version  string
	dialect  class.Dialect
	backends map[string]Backend
	classes  *class.Cache
	verifier *auth.Verifier
	versions versioner
	deadline time.Duration
	parallel int
	turns    *turns.Queue
	large    *turns.Queue // of mounts with a class to be parsed alone
	room     *room.Mounts
	served   *served
	flights  *flights

	recorders []Recorder
	mounting  func() (ended func())
	ready     func() bool // nil is always
}

// New makes a Provider; it opens nothing and starts nothing.
func New(o Options) *Provider {
	p := &Provider{
		version: o.Version, dialect: class.DialectKeymount, verifier: o.Verifier, versions: versioner{o.VersionKey},
		deadline: o.Deadline, parallel: o.ParallelReads, recorders: o.Recorders, mounting: o.Mounting, ready: o.Ready,
		large: turns.New("large classes", 1, 1, time.Now), turns: o.Turns, room: o.Room, served: newServed(), flights: &flights{},
		backends: make(map[string]Backend, len(o.Backends)),
	}
	if p.turns == nil {
		p.turns = turns.New("mounts", processors()+1, processors(), time.Now)
	}
	if p.room == nil {
		p.room = room.NewMounts(room.Pool, room.Places, time.Now)
	}
	if p.mounting == nil {
		p.mounting = func() func() { return func() {} }
	}
	stores := make(map[string]class.Store, len(o.Backends))
	for _, b := range o.Backends {
		p.backends[b.Name] = b
		stores[b.Name] = b.Class
	}
	p.classes = class.NewCache(stores)
	return p
}

// processors is the number of mounts of one namespace that parse or render at a time: more
// would wait for a processor anyway. One more place is left to the other namespaces.
func processors() int { return min(maxProcessors, max(1, runtime.GOMAXPROCS(0)-1)) }

// Speaking is the same Provider for classes of a dialect.
func (p *Provider) Speaking(d class.Dialect) *Provider {
	speaker := *p
	speaker.dialect = d
	return &speaker
}

// InFlight are the mounts that are being answered, the longest first.
func (p *Provider) InFlight() []InFlight { return p.flights.list() }

// Version tells the driver the name and version of keymount.
func (p *Provider) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: Name, RuntimeVersion: p.version}, nil
}

// Mount answers with every file of a class, or with an error and none. Its errors have
// their gRPC code.
func (p *Provider) Mount(ctx context.Context, m *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	return p.recorded(ctx, func(ctx context.Context, r *record.Mount, f *flight) (*v1alpha1.MountResponse, error) {
		request, err := p.parse(ctx, m)
		p.note(r, request) // also of a class with mistakes
		f.named(request, r.First)
		if err != nil {
			return nil, err
		}
		askers, err := identify(ctx, request, p.verifier, p.backends, r.First)
		if err != nil {
			return nil, err
		}
		reads := gather(request, askers)
		defer reads.end(r)
		if err := reads.authorize(); err != nil {
			return nil, err
		}
		f.asks(awaitsStores, askers)
		if err := p.fetch(ctx, r, reads); err != nil {
			return nil, err
		}
		f.comesTo(awaitsFiles)
		return p.answer(ctx, r, reads)
	})
}

// fetch reads everything. A mount that finds no room for what it holds drops that, waits for
// a place with nothing in its hands, and reads again.
func (p *Provider) fetch(ctx context.Context, m *record.Mount, all *reads) error {
	err := all.fetch(ctx, m, p.parallel, p.room.Share(m.Pod.Namespace))
	if !errors.Is(err, errHoldsMuch) {
		return err
	}
	all.drop()
	share, err := p.room.Place(ctx, turnOf(m))
	if err != nil {
		return err
	}
	return all.fetch(ctx, m, p.parallel, share)
}

// recorded takes the steps of a mount within its deadline, and answers after every
// Recorder has got the outcome, an error or a panic among them.
func (p *Provider) recorded(
	ctx context.Context, steps func(context.Context, *record.Mount, *flight) (*v1alpha1.MountResponse, error),
) (*v1alpha1.MountResponse, error) {
	defer p.mounting()()
	r := &record.Mount{Dialect: p.dialect, Began: time.Now()}
	f := p.flights.begin(r.Began)
	defer f.end()
	response, err := contain.Do(func() (*v1alpha1.MountResponse, error) {
		limited, cancel := withDeadline(ctx, p.deadline)
		defer cancel()
		return steps(limited, r, f)
	})
	r.Took = time.Since(r.Began)
	settle(r, err)
	f.comesTo(awaitsRecord)
	for _, recorder := range p.recorders {
		tell(ctx, recorder, r)
	}
	if r.Err != nil {
		return nil, statusOf(r.Err)
	}
	p.served.add(volume{r.Pod.UID, r.Class})
	return response, nil
}

// tell gives a mount to a Recorder. An error of it fails the mount, a panic does not.
func tell(ctx context.Context, recorder Recorder, r *record.Mount) {
	err := contain.Run(func() error { return recorder.Record(ctx, r) })
	if bug, panicked := errors.AsType[*contain.Panic](err); panicked {
		r.Bug = errors.Join(r.Bug, bug)
	} else if err != nil { // the mount's own error, if any, keeps its code
		settle(r, errors.Join(r.Err, fmt.Errorf("%w: %s", errRecord, err.Error())))
	}
}

// settle puts the outcome into the record.
func settle(r *record.Mount, err error) {
	r.Err, r.Code, r.Message = err, codes.OK, ""
	if err != nil {
		r.Code, r.Message = codeOf(err), message(err)
	}
}

// note puts the pod and its class into the record.
func (p *Provider) note(r *record.Mount, request class.Request) {
	r.Pod, r.Class = request.Pod, request.Class
	r.Warnings = append(r.Warnings, request.Warnings...)
	r.First = p.isFirst(request)
}

// isFirst tells whether the pod cannot start until its mount is answered.
func (p *Provider) isFirst(r class.Request) bool { return !p.served.has(volume{r.Pod.UID, r.Class}) }

// parse reads the request in its dialect. A class not seen before waits for its turn, and
// a large one for the end of any other large one.
func (p *Provider) parse(ctx context.Context, m *v1alpha1.MountRequest) (class.Request, error) {
	call := class.Call{Attributes: m.GetAttributes(), Permission: m.GetPermission(), Dialect: p.dialect}
	return p.classes.Parse(call, func(r class.Request, bytes int, work func()) error {
		of := turns.Of{Namespace: r.Pod.Namespace, Waiting: p.isFirst(r)}
		parse := func(ctx context.Context) error {
			return p.turns.Do(ctx, of, func(context.Context) error { work(); return nil })
		}
		if bytes <= largeClass {
			return parse(ctx)
		}
		return p.large.Do(ctx, of, parse)
	})
}

// turnOf is the owner of a mount's turn.
func turnOf(m *record.Mount) turns.Of { return turns.Of{Namespace: m.Pod.Namespace, Waiting: m.First} }

// answer makes files and versions of the values.
func (p *Provider) answer(ctx context.Context, m *record.Mount, all *reads) (*v1alpha1.MountResponse, error) {
	for _, one := range all.list {
		if one.answer.Source == keep.Stale {
			m.Warnings = append(m.Warnings, fmt.Sprintf("%s: the last known value stands in, since the store gives no answer: %s", one.secret, one.answer.Cause))
		}
	}
	var files []File
	err := p.turns.Do(ctx, turnOf(m), func(ctx context.Context) (err error) {
		files, err = render(ctx, all)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.Files, m.Warnings = len(files), append(m.Warnings, warnings(files)...)
	files = atLeastOne(files)
	m.Delivered = p.versions.of(m.Pod, files)
	return respond(files, m.Delivered)
}

// withDeadline ends the work after limit, or earlier if the caller would stop waiting: the
// answer has to come before grpc makes up its own.
func withDeadline(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		limit = min(limit, left-min(time.Second, left/2))
	}
	return context.WithTimeout(ctx, limit)
}
