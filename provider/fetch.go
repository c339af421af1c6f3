package provider

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

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
	waiting  bool           // the pod cannot start without an answer
	resolver store.Resolver // nil for a store that need not be asked what a path is
	recaller store.Recaller // nil for one that remembers nothing
}

// identify proves who the pod is, once for each store that it reads from.
// Nothing is read, and nothing cached is used, before this has said yes.
func (p *Provider) identify(ctx context.Context, r Request, waiting bool) (map[string]*asker, error) {
	askers := map[string]*asker{} // by store
	var mistakes []error
	for i := range r.Objects {
		name := r.Objects[i].Secret.Store
		if askers[name] != nil {
			continue
		}
		a := &asker{backend: p.backends[name], class: r.Class, waiting: waiting}
		a.resolver, _ = a.backend.Store.(store.Resolver)
		a.recaller, _ = a.backend.Store.(store.Recaller)
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
	secret   Secret
	objects  []*Object
	resolved store.Resolved
	value    store.Value
	err      error // why there is no value
}

// reads are the secrets of a mount, each once.
type reads struct {
	list []*read
	of   map[Secret]*read
}

// authorize judges every secret of every object, the ones in templates too, and
// gathers the objects of one secret into one read, so that a username and its
// password are of the same moment.
func authorize(r Request, askers map[string]*asker) (*reads, error) {
	all := &reads{list: make([]*read, 0, len(r.Objects)), of: make(map[Secret]*read, len(r.Objects))}
	var denials []error
	for i := range r.Objects {
		o := &r.Objects[i]
		for s := range o.Secrets() {
			of := all.of[s]
			if of == nil {
				of = &read{asker: askers[s.Store], secret: s}
				all.of[s] = of
				all.list = append(all.list, of)
			}
			of.objects = append(of.objects, o)
			if err := of.judge(); err != nil {
				denials = append(denials, fmt.Errorf("objects[%d]: %w", o.Index, err))
			}
		}
	}
	return all, joined(denials)
}

// judge decides what can be decided before a login: everything, unless the store
// has to be asked first what a path is.
func (r *read) judge() error {
	if r.resolver != nil {
		return r.backend.Rules.JudgeLogin(r.query())
	}
	r.resolved.Path = r.secret.Path
	return r.backend.Rules.Judge(r.query())
}

func (r *read) query() access.Query {
	return access.Query{
		Store: r.secret.Store, Namespace: r.identity.Namespace, ServiceAccount: r.identity.ServiceAccount,
		Role: r.secret.Role, Path: r.resolved.Path, Literal: r.resolved.Literal, Write: r.secret.Args != "",
	}
}

// maxRead is what the secrets of a mount may have together as a store sends them:
// the driver's limit, and half as much again for what is around them.
const maxRead = maxResponse + maxResponse/2

// fetch reads everything, at most parallel at a time, once all of it is judged; of a
// secret that is absent and optional there is no value.
func (r *reads) fetch(ctx context.Context, parallel int) error {
	runtime.Gosched() // grpc's writer has its turn here: on another processor it costs a warm mount a quarter of its time
	ctx = store.WithBudget(ctx, maxRead)
	step{(*read).recallPath, (*read).resolve}.take(ctx, r.list, parallel)
	if err := r.failures(); err != nil {
		return err
	}
	r.merge()
	step{(*read).recall, (*read).ask}.take(ctx, r.list, parallel)
	for _, one := range r.list {
		for _, text := range one.value.Warnings {
			warn(ctx, fmt.Sprintf("%s: %s", one.secret, text))
		}
	}
	return r.failures()
}

// recallPath is resolve where nobody has to be asked.
func (r *read) recallPath(context.Context) (done bool) {
	switch {
	case r.resolver == nil:
		return true // and judged
	case r.recaller == nil:
		return false
	}
	if r.resolved, done = r.recaller.RecallPath(r.session(), r.ref()); done {
		r.err = r.backend.Rules.Judge(r.query())
	}
	return done
}

// resolve finds out what the path is, and has the rules judge that.
func (r *read) resolve(ctx context.Context) (err error) {
	if r.resolved, err = r.resolver.Resolve(ctx, r.session(), r.ref()); err != nil {
		return err
	}
	return r.backend.Rules.Judge(r.query())
}

// recall is ask where nobody has to be asked.
func (r *read) recall(ctx context.Context) (done bool) {
	if r.recaller == nil {
		return false
	}
	if r.value, done = r.recaller.Recall(r.session(), r.ref(), r.resolved); done {
		r.err = store.Spend(ctx, r.value.Data.Size())
	}
	return done
}

func (r *read) ask(ctx context.Context) (err error) {
	r.value, err = r.backend.Store.Read(ctx, r.session(), r.ref())
	return err
}

func (r *read) session() store.Session {
	return store.Session{Identity: r.identity, Role: r.secret.Role, Class: r.class, Proof: r.token, Waiting: r.waiting}
}

func (r *read) ref() store.Ref {
	return store.Ref{Path: r.secret.Path, Version: r.secret.Version, Query: r.secret.Query, Args: r.secret.Args, Shared: r.secret.Shared}
}

// oneSpelling is a secret in its one spelling; what is no ordinary secret shares nothing
// with a secret of that name.
type oneSpelling struct {
	Secret
	literal string
}

// merge makes one read of two spellings of a secret, so that a username and its
// password are of the same moment however they are spelt.
func (r *reads) merge() {
	if !slices.ContainsFunc(r.list, (*read).respelt) {
		return // no two are alike
	}
	known := make(map[oneSpelling]*read, len(r.list))
	list := r.list
	r.list = make([]*read, 0, len(list))
	for _, one := range list {
		spelt := oneSpelling{one.secret, one.resolved.Literal}
		spelt.Path = one.resolved.Path
		if first := known[spelt]; first != nil {
			first.objects = append(first.objects, one.objects...)
			r.of[one.secret] = first
			continue
		}
		known[spelt] = one
		r.list = append(r.list, one)
	}
}

func (r *read) respelt() bool { return r.resolved.Path != r.secret.Path || r.resolved.Literal != "" }

// values is how many there are.
func (r *reads) values() int {
	n := 0
	for _, one := range r.list {
		if one.err == nil {
			n++
		}
	}
	return n
}

// failures says of each read why there is no value.
func (r *reads) failures() error {
	var failures []error
	for _, one := range r.list {
		if one.err == nil {
			continue
		}
		if wanting := one.wanting(); wanting != "" {
			failures = append(failures, fmt.Errorf("%s: %s: %w", wanting, one.secret, one.err))
		}
	}
	return joined(failures)
}

// wanting names the objects that cannot be made without a value.
func (r *read) wanting() string {
	var names []string
	for _, o := range r.objects {
		if !o.Optional || !errors.Is(r.err, store.ErrNotFound) {
			names = append(names, fmt.Sprintf("objects[%d]", o.Index))
		}
	}
	return strings.Join(names, ", ")
}
