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
	secret  Secret
	backend Backend
	session store.Session
	ref     store.Ref
	objects []Object
}

// authorize judges every secret of every object, the ones in templates too, and
// gathers the objects of one secret into one read, so that a username and its
// password are of the same moment.
func (p *Provider) authorize(r Request, identities map[string]auth.Identity) ([]read, error) {
	var reads []read
	var denials []error
	index := map[Secret]int{}
	for _, o := range r.Objects {
		for _, s := range o.Secrets() {
			if err := p.judge(s, identities[s.Store]); err != nil {
				denials = append(denials, fmt.Errorf("objects[%d]: %w", o.Index, err))
				continue
			}
			at, ok := index[s]
			if !ok {
				at = len(reads)
				index[s] = at
				reads = append(reads, p.newRead(s, identities[s.Store]))
			}
			reads[at].objects = append(reads[at].objects, o)
		}
	}
	return reads, joined(denials)
}

func (p *Provider) judge(s Secret, who auth.Identity) error {
	return p.backends[s.Store].Rules.Judge(access.Query{
		Store: s.Store, Namespace: who.Namespace, ServiceAccount: who.ServiceAccount, Role: s.Role, Path: s.Path,
	})
}

func (p *Provider) newRead(s Secret, who auth.Identity) read {
	return read{
		secret: s, backend: p.backends[s.Store],
		session: store.Session{Identity: who, Role: s.Role},
		ref:     store.Ref{Path: s.Path, Version: s.Version},
	}
}

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
// and optional there is no value. It returns when
// ctx ends even if a store does not: such a read is left to end by itself, since
// an answer too late is one that grpc makes up (promise 1).
func fetch(ctx context.Context, reads []read, parallel int) (map[Secret]store.Value, error) {
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
			return collect(reads, outcomes)
		}
	}
	return collect(reads, outcomes)
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

// collect gathers the values, or says of each read why there is none.
func collect(reads []read, outcomes []outcome) (map[Secret]store.Value, error) {
	values := map[Secret]store.Value{}
	var failures []error
	for i, o := range outcomes {
		if !o.done {
			o.err = fmt.Errorf("%w: no answer before the mount's deadline", store.ErrUnavailable)
		}
		if o.err == nil {
			values[reads[i].secret] = o.value
			continue
		}
		if wanting := reads[i].wanting(o.err); wanting != "" {
			failures = append(failures, fmt.Errorf("%s: secret %q of store %q: %w", wanting, reads[i].ref.Path, reads[i].backend.Name, o.err))
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
