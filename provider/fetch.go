package provider

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// asker is who asks one store, the same for all that a mount reads there.
type asker struct {
	backend  Backend
	identity auth.Identity
	token    secret.Bytes // which proves the identity
	class    string
	waiting  bool     // the pod cannot start without an answer
	shared   *sharing // with all reads of the mount
}

// identify proves who the pod is, once for each store that it reads from.
// Nothing is read, and nothing cached is used, before this has said yes.
func (p *Provider) identify(ctx context.Context, r Request) (map[string]*asker, error) {
	askers := map[string]*asker{} // by store
	var mistakes []error
	waiting := !p.served.again(volumeOf(r))
	shared := &sharing{reads: map[sharedKey]func() (store.Value, error){}}
	for i := range r.Objects {
		name := r.Objects[i].Secret.Store
		if askers[name] != nil {
			continue
		}
		a := &asker{backend: p.backends[name], class: r.Class, waiting: waiting, shared: shared}
		if err := a.prove(ctx, r, p.verifier); err != nil && !slices.ContainsFunc(mistakes, sameText(err)) {
			mistakes = append(mistakes, err)
		}
		askers[name] = a
	}
	return askers, errors.Join(mistakes...)
}

func (a *asker) prove(ctx context.Context, r Request, verifier *auth.Verifier) (err error) {
	if a.token, err = r.Tokens.For(a.backend.Audience); err != nil {
		return err
	}
	a.identity, err = verifier.Verify(ctx, a.token, auth.Expected{
		Audience: a.backend.Audience, Pod: r.Pod, WithoutPod: a.backend.TokensWithoutPod,
	})
	return err
}

func sameText(err error) func(error) bool {
	return func(other error) bool { return other.Error() == err.Error() }
}

// read is one secret to read, for all objects that want something of it.
type read struct {
	*asker
	secret  Secret
	objects []*Object
}

// authorize judges every secret of every object, the ones in templates too, and
// gathers the objects of one secret into one read, so that a username and its
// password are of the same moment.
func authorize(r Request, askers map[string]*asker) ([]*read, error) {
	reads := make([]*read, 0, len(r.Objects))
	index := make(map[Secret]*read, len(r.Objects))
	var denials []error
	for i := range r.Objects {
		o := &r.Objects[i]
		for _, s := range o.Secrets() {
			of := index[s]
			if of == nil {
				of = &read{asker: askers[s.Store], secret: s}
				index[s] = of
				reads = append(reads, of)
			}
			of.objects = append(of.objects, o)
			if err := of.judge(); err != nil {
				denials = append(denials, fmt.Errorf("objects[%d]: %w", o.Index, err))
			}
		}
	}
	return reads, joined(denials)
}

// judge decides what can be decided before a login: everything, unless the store
// has to be asked first what a path is.
func (r *read) judge() error {
	if _, asks := r.backend.Store.(store.Resolver); asks {
		return r.backend.Rules.JudgeLogin(r.query())
	}
	return r.backend.Rules.Judge(r.query())
}

func (r *read) query() access.Query {
	return access.Query{
		Store: r.secret.Store, Namespace: r.identity.Namespace, ServiceAccount: r.identity.ServiceAccount,
		Role: r.secret.Role, Path: r.secret.Path, Write: r.secret.Args != "",
	}
}

// maxRead is what the secrets of a mount may have together as a store sends them:
// the driver's limit, and half as much again for what is around them.
const maxRead = maxResponse + maxResponse/2

// maxGrace is how long fetch waits for stores to give their reason after ctx
// ended, at most; with little time at all it is a quarter of that.
const maxGrace = 500 * time.Millisecond

// outcome is what came of one read.
type outcome struct {
	value store.Value
	err   error
	done  bool
}

// fetch reads everything, at most parallel at a time; of a secret that is absent
// and optional there is no value. It returns when ctx ends even if a store does
// not: such a read is left to end by itself, since an answer too late is one that
// grpc makes up (promise 1).
func fetch(ctx context.Context, reads []*read, parallel int) (map[Secret]store.Value, error) {
	ctx = store.WithBudget(ctx, maxRead)
	type answer struct {
		read int
		outcome
	}
	answers := make(chan answer, len(reads)) // room for all: a late one blocks nobody
	next := make(chan int, len(reads))
	for i := range reads {
		next <- i
	}
	close(next)
	for range min(parallel, len(reads)) {
		go func() {
			for i := range next {
				if ctx.Err() != nil {
					return // nobody waits any more
				}
				answers <- answer{i, reads[i].run(ctx)}
			}
		}()
		runtime.Gosched() // to see how far it comes: values at hand need no second one
		if len(next) == 0 {
			break
		}
	}
	late, cancel := graceAfter(ctx)
	defer cancel()
	outcomes := make([]outcome, len(reads))
	for range reads {
		select {
		case a := <-answers:
			outcomes[a.read] = a.outcome
		case <-late.Done():
			return collect(ctx, reads, outcomes)
		}
	}
	return collect(ctx, reads, outcomes)
}

// graceAfter ends a moment after ctx does.
func graceAfter(ctx context.Context) (context.Context, context.CancelFunc) {
	grace := maxGrace
	if end, ok := ctx.Deadline(); ok {
		grace = min(grace, time.Until(end)/4)
	}
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return late, func() { stop(); cancel() }
}

// run reads, patiently; a panic of the store becomes this read's error.
func (r *read) run(ctx context.Context) (o outcome) {
	o.done = true
	defer func() {
		if p := recover(); p != nil {
			o.err = store.Recovered(p)
		}
	}()
	o.value, o.err = store.Patiently(ctx, func() (store.Value, error) { return r.once(ctx) })
	return o
}

// once reads, after the rules have said yes to what the path is.
func (r *read) once(ctx context.Context) (store.Value, error) {
	resolver, ok := r.backend.Store.(store.Resolver)
	if !ok {
		return r.backend.Store.Read(ctx, r.session(), r.ref())
	}
	resolved, err := resolver.Resolve(ctx, r.session(), r.ref())
	if err != nil {
		return store.Value{}, err
	}
	query := r.query()
	query.Path, query.Literal = resolved.Path, resolved.Literal
	if err := r.backend.Rules.Judge(query); err != nil {
		return store.Value{}, err
	}
	same := sharedKey{r.secret, resolved.Literal}
	same.Path = resolved.Path
	return r.shared.read(same, func() (store.Value, error) { return resolver.Read(ctx, r.session(), r.ref()) })
}

func (r *read) session() store.Session {
	return store.Session{Identity: r.identity, Role: r.secret.Role, Class: r.class, Proof: r.token, Waiting: r.waiting}
}

func (r *read) ref() store.Ref {
	return store.Ref{Path: r.secret.Path, Version: r.secret.Version, Query: r.secret.Query, Args: r.secret.Args, Shared: r.secret.Shared}
}

// sharing makes one read of two spellings of a secret in one mount, so that a
// username and its password are of the same moment however they are spelt.
type sharing struct {
	mu    sync.Mutex
	reads map[sharedKey]func() (store.Value, error)
}

// sharedKey is a secret in its one spelling; what is no ordinary secret shares
// nothing with a secret of that name.
type sharedKey struct {
	Secret
	literal string
}

func (s *sharing) read(secret sharedKey, f func() (store.Value, error)) (store.Value, error) {
	s.mu.Lock()
	shared, ok := s.reads[secret]
	if !ok {
		shared = sync.OnceValues(f)
		s.reads[secret] = shared
	}
	s.mu.Unlock()
	value, err := shared()
	if err != nil { // the next try is a new one
		s.mu.Lock()
		delete(s.reads, secret)
		s.mu.Unlock()
	}
	return value, err
}

// collect gathers the values, or says of each read why there is none.
func collect(ctx context.Context, reads []*read, outcomes []outcome) (map[Secret]store.Value, error) {
	values := make(map[Secret]store.Value, len(reads))
	var failures []error
	for i, o := range outcomes {
		if !o.done {
			o.err = fmt.Errorf("%w: no answer before the mount's deadline", store.ErrUnavailable)
		}
		if o.err == nil {
			values[reads[i].secret] = o.value
			for _, text := range o.value.Warnings {
				warn(ctx, fmt.Sprintf("%s: %s", reads[i].secret, text))
			}
			continue
		}
		if wanting := reads[i].wanting(o.err); wanting != "" {
			failures = append(failures, fmt.Errorf("%s: %s: %w", wanting, reads[i].secret, o.err))
		}
	}
	return values, joined(failures)
}

// wanting names the objects that cannot be made because of err.
func (r *read) wanting(err error) string {
	var names []string
	for _, o := range r.objects {
		if !o.Optional || !errors.Is(err, store.ErrNotFound) {
			names = append(names, fmt.Sprintf("objects[%d]", o.Index))
		}
	}
	return strings.Join(names, ", ")
}
