package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/store"
)

// identify proves who the pod is, once for each audience that its stores want.
// Nothing is read, and nothing cached is used, before this has said yes.
func (p *Provider) identify(ctx context.Context, r Request) (map[string]auth.Identity, error) {
	identities := map[string]auth.Identity{} // by store
	var mistakes []error
	for _, o := range r.Objects {
		if _, done := identities[o.Store]; done {
			continue
		}
		identity, err := p.verify(ctx, r, p.backends[o.Store])
		if err != nil && !slices.ContainsFunc(mistakes, sameText(err)) {
			mistakes = append(mistakes, err)
		}
		identities[o.Store] = identity
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
	backend Backend
	session store.Session
	ref     store.Ref
	objects []int // indices into Request.Objects
}

// authorize judges every object and gathers those of one secret into one read, so
// that a username and its password are of the same moment.
func (p *Provider) authorize(r Request, identities map[string]auth.Identity) ([]read, error) {
	type same struct {
		store, role string
		path        store.Path
	}
	var reads []read
	var denials []error
	index := map[same]int{}
	for i, o := range r.Objects {
		b, identity := p.backends[o.Store], identities[o.Store]
		err := b.Rules.Judge(access.Query{
			Store: b.Name, Namespace: identity.Namespace, ServiceAccount: identity.ServiceAccount, Role: o.Role, Path: o.Path,
		})
		if err != nil {
			denials = append(denials, fmt.Errorf("objects[%d]: %w", o.Index, err))
			continue
		}
		key := same{o.Store, o.Role, o.Path}
		at, ok := index[key]
		if !ok {
			at = len(reads)
			index[key] = at
			reads = append(reads, read{backend: b, session: store.Session{Identity: identity, Role: o.Role}, ref: store.Ref{Path: o.Path}})
		}
		reads[at].objects = append(reads[at].objects, i)
	}
	return reads, errors.Join(denials...)
}

// grace is how long fetch waits for stores to give their reason after ctx ended.
const grace = 500 * time.Millisecond

// outcome is what came of one read.
type outcome struct {
	value store.Value
	err   error
	done  bool
}

// fetch reads everything, at most parallel at a time, and returns the values by
// index of object; an optional object that is absent has none. It returns when
// ctx ends even if a store does not: such a read is left to end by itself, since
// an answer too late is one that grpc makes up (promise 1).
func fetch(ctx context.Context, r Request, reads []read, parallel int) (map[int]store.Value, error) {
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
			return collect(r, reads, outcomes)
		}
	}
	return collect(r, reads, outcomes)
}

// graceAfter ends a moment after ctx does.
func graceAfter(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return late, func() { stop(); cancel() }
}

// run reads once; a panic of the store becomes this read's error.
func (r read) run(ctx context.Context) (o outcome) {
	o.done = true
	defer func() {
		if p := recover(); p != nil {
			o.err = newPanicError(p)
		}
	}()
	o.value, o.err = r.backend.Store.Read(ctx, r.session, r.ref)
	return o
}

// collect hands each object its value, or says of each read why there is none.
func collect(r Request, reads []read, outcomes []outcome) (map[int]store.Value, error) {
	values := map[int]store.Value{}
	var failures []error
	for i, o := range outcomes {
		if !o.done {
			o.err = fmt.Errorf("%w: no answer before the mount's deadline", store.ErrUnavailable)
		}
		var wanting []string
		for _, object := range reads[i].objects {
			switch {
			case o.err == nil:
				values[object] = o.value
			case errors.Is(o.err, store.ErrNotFound) && r.Objects[object].Optional:
			default:
				wanting = append(wanting, fmt.Sprintf("objects[%d]", object))
			}
		}
		if wanting != nil {
			failures = append(failures, fmt.Errorf("%s: secret %q of store %q: %w",
				strings.Join(wanting, ", "), reads[i].ref.Path, reads[i].backend.Name, o.err))
		}
	}
	return values, errors.Join(failures...)
}
