package login

import (
	"context"
	"errors"
	"time"

	"github.com/keymount/keymount/store"
)

// Store is a store that logs in by itself. A missing ability is nil.
type Store struct {
	Reader
	Resolver
	PathRecaller
	Leaser
	Recaller
}

// Reader is a [store.Store] asked with a Request.
type Reader interface {
	Read(ctx context.Context, request Request, ref store.Ref) (store.Value, error)
}

// Resolver is a [store.Resolver] asked with a Request.
type Resolver interface {
	Resolve(ctx context.Context, request Request, ref store.Ref) (store.Resolved, error)
}

// PathRecaller is a [store.PathRecaller] asked with a Request.
type PathRecaller interface {
	RecallPath(request Request, ref store.Ref) (store.Resolved, bool)
}

// Leaser is a [store.Leaser] asked with a Request. It never logs in: only the login that made
// a lease can renew or revoke it.
type Leaser interface {
	Renew(ctx context.Context, request Request, lease store.Lease) (store.Lease, error)
	Revoke(ctx context.Context, request Request, lease store.Lease) error
	// Ends is the end of the login that made a lease, which ends the lease; zero for a login
	// without end. final says that no renewal moves that end.
	Ends(request Request, lease store.Lease) (ends time.Time, final bool)
}

// Recaller is a [store.Recaller] asked with a Request.
type Recaller interface {
	Recall(request Request, ref store.Ref) (store.Value, bool)
}

// Options are a store and its logins. An ability that the store lacks is nil.
type Options struct {
	Store    store.Store
	Resolver store.Resolver // maybe a [store.PathRecaller] as well
	Leaser   store.Leaser
	Recaller store.Recaller
	// Sessions has the logins; nil for a store without logins.
	Sessions *Sessions
	Now      func() time.Time
}

// Open makes a store accept requests before login: each gets the login of its identity and
// role, and a new login if that one has ended unnoticed. A lease is renewed with the login
// that made it, and ends with it.
func Open(o Options) Store {
	s := Store{Reader: reader{o}}
	if o.Resolver != nil {
		s.Resolver = resolver{o}
		if paths, ok := o.Resolver.(store.PathRecaller); ok {
			s.PathRecaller = pathRecaller{paths}
		}
	}
	if o.Leaser != nil {
		s.Leaser = leaser{o}
	}
	if o.Recaller != nil && o.Sessions == nil { // with Sessions, asking would need a login
		s.Recaller = recaller{o}
	}
	return s
}

type reader struct{ Options }

// Read implements [Reader].
func (r reader) Read(ctx context.Context, request Request, ref store.Ref) (store.Value, error) {
	return as(ctx, r.Sessions, request, func(caller store.Caller) (store.Value, error) {
		value, err := r.Store.Read(ctx, caller, ref)
		if err == nil && value.Lease != nil {
			value.Lease.Login = caller.Login
			r.delayRevocation(caller, *value.Lease)
		}
		return value, err
	})
}

// delayRevocation delays revocation of the login, because a lease depends on it.
func (o Options) delayRevocation(caller store.Caller, lease store.Lease) {
	if o.Sessions != nil {
		o.Sessions.DelayRevocation(caller.Identity, caller.Role, lease.Login, o.Now().Add(lease.Duration))
	}
}

type resolver struct{ Options }

// Resolve implements [Resolver].
func (r resolver) Resolve(ctx context.Context, request Request, ref store.Ref) (store.Resolved, error) {
	return as(ctx, r.Sessions, request, func(caller store.Caller) (store.Resolved, error) { return r.Resolver.Resolve(ctx, caller, ref) })
}

type pathRecaller struct{ store.PathRecaller }

// RecallPath implements [PathRecaller].
func (r pathRecaller) RecallPath(request Request, ref store.Ref) (store.Resolved, bool) {
	return r.PathRecaller.RecallPath(store.Caller{Identity: request.Identity, Role: request.Role}, ref)
}

type recaller struct{ Options }

// Recall implements [Recaller].
func (r recaller) Recall(request Request, ref store.Ref) (store.Value, bool) {
	return r.Recaller.Recall(store.Caller{Identity: request.Identity, Role: request.Role}, ref)
}

type leaser struct{ Options }

// maker is the caller that made a lease.
func maker(request Request, lease store.Lease) store.Caller {
	return store.Caller{Identity: request.Identity, Role: request.Role, Login: lease.Login}
}

// Renew implements [Leaser].
func (l leaser) Renew(ctx context.Context, request Request, lease store.Lease) (store.Lease, error) {
	caller := maker(request, lease)
	renewed, err := l.Leaser.Renew(ctx, caller, lease)
	if err == nil {
		renewed.Login = lease.Login
		l.delayRevocation(caller, renewed)
	}
	return renewed, err
}

// Revoke implements [Leaser].
func (l leaser) Revoke(ctx context.Context, request Request, lease store.Lease) error {
	return l.Leaser.Revoke(ctx, maker(request, lease), lease)
}

// Ends implements [Leaser].
func (l leaser) Ends(request Request, lease store.Lease) (ends time.Time, final bool) {
	if l.Sessions == nil {
		return time.Time{}, false
	}
	login, known := l.Sessions.Find(request.Identity, request.Role, lease.Login)
	if !known {
		return l.Now(), true // the login is no longer renewed
	}
	return login.Expires, !login.Renewable && !login.Expires.IsZero()
}

// as calls f with the present login, and again with a new one when that has ended.
func as[T any](ctx context.Context, sessions *Sessions, request Request, f func(store.Caller) (T, error)) (T, error) {
	caller := store.Caller{Identity: request.Identity, Role: request.Role}
	if sessions == nil {
		return f(caller)
	}
	open := func() (Login, error) {
		return sessions.OpenLasting(ctx, request.Identity, request.Proof, request.Role, request.Lasting)
	}
	login, err := open()
	if err != nil {
		var none T
		return none, unanswered(ctx, err)
	}
	caller.Login = login.Token
	result, err := f(caller)
	ended := errors.Is(err, store.Ended)
	if !ended && !errors.Is(err, store.Doubt) {
		return result, err
	}
	try, dropped := sessions.Forget(request.Identity, request.Role, login, ended)
	if !try {
		return result, unheard(err)
	}
	again, failed := open()
	if failed != nil && ended {
		return result, unanswered(ctx, failed)
	}
	if failed == nil {
		caller.Login = again.Token
		result, err = f(caller)
	}
	if helped := err == nil || errors.Is(err, store.NotFound) || errors.Is(err, store.Invalid); dropped && !ended && !helped {
		sessions.Reinstate(request.Identity, request.Role, login, again)
	}
	return result, unheard(err) // of the old login, if there is no other
}

// unheard gives the end of a login its reason: it is no answer about a secret, and no
// policy's denial. Another login will bring one, as soon as one may be made.
func unheard(err error) error {
	e, ok := errors.AsType[*store.Error](err)
	if !errors.Is(err, store.Ended) {
		return err
	}
	silence := store.Unavailable.Errorf("the login has ended before its time, and the next one is made in a moment")
	if ok && e.Said != "" {
		silence.Said += ": " + e.Said
	}
	return silence
}

// unanswered makes a login cut off by ctx an Unavailable: the store has not refused it.
func unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil && !store.Answered(err) && !errors.Is(err, store.Unavailable) {
		return &store.Error{Reason: store.Unavailable, Cause: err}
	}
	return err
}
