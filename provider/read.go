package provider

import (
	"context"
	"errors"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// read is one secret to read, for all objects that want something of it.
type read struct {
	*asker
	secret   *class.Secret
	resolved store.Resolved
	share    *room.Share // of the mount, for all that it holds
	answer   keep.Answer
	verdict  *verdict // on the login
	rule     access.Decision
	files    []string  // that were made of it
	first    [1]string // room for files: most secrets are in one
	err      error     // why there is no value
}

// judge decides what can be decided before a login: everything, unless the store
// has to be asked first what a path is.
func (r *read) judge() {
	r.verdict = r.judgeLogin(r.secret.Role)
	if r.backend.Resolves {
		r.rule, r.err = r.verdict.rule, r.verdict.err
		return
	}
	r.resolved.Path = r.secret.Path
	r.err = r.judgePath()
}

// judgePath decides on what the path is.
func (r *read) judgePath() (err error) {
	r.rule, err = r.verdict.rules.Judge(r.query())
	return err
}

func (r *read) query() access.Query {
	return access.Query{
		Store: r.secret.Store, Namespace: r.identity.Namespace, ServiceAccount: r.identity.ServiceAccount,
		Role: r.secret.Role, Path: r.resolved.Path, Literal: r.resolved.Literal, Write: r.secret.Args != "",
	}
}

// recallPath is resolve where the store need not be asked.
func (r *read) recallPath(context.Context) (done bool) {
	if !r.backend.Resolves {
		return true // and judged
	}
	if r.resolved, done = r.recollection(r.secret.Role).Path(r.ref()); done {
		r.err = r.judgePath()
	}
	return done
}

// resolve finds out what the path is, and has the rules judge that.
func (r *read) resolve(ctx context.Context) (err error) {
	if r.resolved, err = r.backend.Store.Resolve(ctx, r.request(r.secret.Role), r.ref()); err != nil {
		return err
	}
	return r.judgePath()
}

// recall is ask where the store need not be asked.
func (r *read) recall(context.Context) (done bool) {
	if r.answer, done = r.recollection(r.secret.Role).Value(r.ref(), r.resolved); done {
		r.err = r.charge()
	}
	return done
}

func (r *read) ask(ctx context.Context) (err error) {
	if r.share.Full() {
		return errHoldsMuch
	}
	if r.answer, err = r.backend.Store.Read(ctx, r.request(r.secret.Role), r.ref(), r.resolved); err != nil {
		return err
	}
	return r.charge()
}

// errHoldsMuch says that a mount holds more than its share. It is final for a mount in
// its place, and has one that has none wait for it.
var errHoldsMuch error = store.Invalid.Errorf("too large: the secrets of one mount are larger together than what the driver takes, and take more than 12 MiB of memory; split the class")

// charge counts an answer into the share of the mount, and drops it when that is full.
func (r *read) charge() error {
	if r.share.Charge(r.answer.Data.Held() + r.answer.Envelope.Held()) {
		return nil
	}
	r.answer = keep.Answer{}
	return errHoldsMuch
}

func (r *read) ref() store.Ref {
	return store.Ref{Path: r.secret.Path, Version: r.secret.Version, Query: r.secret.Query, Args: r.secret.Args, Shared: r.secret.Shared}
}

func (r *read) respelt() bool { return r.resolved.Path != r.secret.Path || r.resolved.Literal != "" }

func (r *read) failed() bool { return r.err != nil }

// wantedBy tells whether an object cannot be made for lack of the value.
func (r *read) wantedBy(o *class.Object) bool {
	return r.failed() && (!o.Optional || !errors.Is(r.err, store.NotFound))
}

// named is a secret without what may be one: a thousand that have no such thing are shared.
func named(s *class.Secret) *class.Secret {
	if s.Args == "" && s.Query == "" {
		return s
	}
	name := *s
	name.Args, name.Query = "", ""
	return &name
}

// record is what came of the read.
func (r *read) record() record.Read {
	one := record.Read{
		Secret: named(r.secret), Write: r.secret.Args != "", Identity: r.identity, Rule: r.rule, Path: r.resolved.Path, Literal: r.resolved.Literal, Files: r.files, Err: r.err,
	}
	if r.err == nil && r.answer.Value != nil {
		one.Version, one.RequestID, one.Source = r.answer.Version, r.answer.RequestID, record.Source(r.answer.Source)
		one.Read, one.Ends = r.answer.Read, r.answer.Ends
		if r.answer.Cause != nil {
			one.Cause = r.answer.Cause.Error()
		}
	}
	if failed, ok := errors.AsType[*store.Error](r.err); ok {
		one.RequestID = failed.RequestID
	}
	return one
}
