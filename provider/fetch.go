package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// identify proves who the pod is, once for each store that it reads from.
// Nothing is read, and nothing cached is used, before this has said yes.
func (p *Provider) identify(ctx context.Context, r Request) (map[string]auth.Identity, error) {
	identities := map[string]auth.Identity{} // by store
	var mistakes []error
	for _, o := range r.Objects {
		if _, done := identities[o.Secret.Store]; done {
			continue
		}
		identity, err := p.verify(ctx, r, p.backends[o.Secret.Store])
		if err != nil && !slices.ContainsFunc(mistakes, sameText(err)) {
			mistakes = append(mistakes, err)
		}
		identities[o.Secret.Store] = identity
	}
	return identities, errors.Join(mistakes...)
}

func (p *Provider) verify(ctx context.Context, r Request, b Backend) (auth.Identity, error) {
	token, err := r.Tokens.For(b.Audience)
	if err != nil {
		return auth.Identity{}, err
	}
	return p.verifier.Verify(ctx, token, auth.Expected{Audience: b.Audience, Pod: r.Pod, WithoutPod: b.TokensWithoutPod})
}

func sameText(err error) func(error) bool {
	return func(other error) bool { return other.Error() == err.Error() }
}

// read is one secret to read, for all objects that want something of it.
type read struct {
	secret   Secret
	backend  Backend
	identity auth.Identity
	token    secret.Bytes
	objects  []Object
	shared   *sharing // with the other reads of the mount
}

// authorize judges every secret of every object, the ones in templates too, and
// gathers the objects of one secret into one read, so that a username and its
// password are of the same moment.
func (p *Provider) authorize(r Request, identities map[string]auth.Identity) ([]read, error) {
	var reads []read
	var denials []error
	index := map[Secret]int{}
	shared := &sharing{reads: map[sharedKey]func() (store.Value, error){}}
	for _, o := range r.Objects {
		for _, s := range o.Secrets() {
			at, ok := index[s]
			if !ok {
				next := read{secret: s, backend: p.backends[s.Store], identity: identities[s.Store], shared: shared}
				next.token, _ = r.Tokens.For(next.backend.Audience) // verified by identify
				at = len(reads)
				index[s] = at
				reads = append(reads, next)
			}
			reads[at].objects = append(reads[at].objects, o)
			if err := reads[at].judge(); err != nil {
				denials = append(denials, fmt.Errorf("objects[%d]: %w", o.Index, err))
			}
		}
	}
	return reads, joined(denials)
}

// judge decides what can be decided before a login: everything, unless the store
// has to be asked first what a path is.
func (r read) judge() error {
	if _, asks := r.backend.Store.(store.Resolver); asks {
		return r.backend.Rules.JudgeLogin(r.query())
	}
	return r.backend.Rules.Judge(r.query())
}

func (r read) query() access.Query {
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
func fetch(ctx context.Context, reads []read, parallel int) (map[Secret]store.Value, error) {
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
func (r read) run(ctx context.Context) (o outcome) {
	o.done = true
	defer func() {
		if p := recover(); p != nil {
			o.err = newPanicError(p)
		}
	}()
	o.value, o.err = store.Patiently(ctx, func() (store.Value, error) { return r.once(ctx) })
	return o
}

// once reads with the login that there is; when that has ended without our knowing,
// with a new one.
func (r read) once(ctx context.Context) (store.Value, error) {
	if r.backend.Sessions == nil {
		return r.in(ctx, auth.Login{})
	}
	login, err := r.backend.Sessions.Open(ctx, r.identity, r.token, r.secret.Role)
	if err != nil {
		return store.Value{}, err
	}
	value, err := r.in(ctx, login)
	ended := errors.Is(err, store.ErrSession)
	if (!ended && !errors.Is(err, store.ErrDoubt)) || !r.backend.Sessions.Forget(r.identity, r.secret.Role, login, ended) {
		return value, err
	}
	if login, err = r.backend.Sessions.Open(ctx, r.identity, r.token, r.secret.Role); err != nil {
		return store.Value{}, err
	}
	return r.in(ctx, login)
}

// in reads in one session, after the rules have said yes to what the path is.
func (r read) in(ctx context.Context, login auth.Login) (store.Value, error) {
	session := store.Session{Identity: r.identity, Role: r.secret.Role, Token: login.Token}
	ref := store.Ref{Path: r.secret.Path, Version: r.secret.Version, Query: r.secret.Query, Args: r.secret.Args}
	resolver, ok := r.backend.Store.(store.Resolver)
	if !ok {
		return r.backend.Store.Read(ctx, session, ref)
	}
	resolved, err := resolver.Resolve(ctx, session, ref)
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
	return r.shared.read(same, func() (store.Value, error) { return resolver.Read(ctx, session, ref) })
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
func collect(ctx context.Context, reads []read, outcomes []outcome) (map[Secret]store.Value, error) {
	values := map[Secret]store.Value{}
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
func (r read) wanting(err error) string {
	var names []string
	for _, o := range r.objects {
		if !o.Optional || !errors.Is(err, store.ErrNotFound) {
			names = append(names, fmt.Sprintf("objects[%d]", o.Index))
		}
	}
	return strings.Join(names, ", ")
}
