package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keymount/keymount/auth"
)

// LogIn makes s take sessions that are not logged in: each gets the login that its
// identity and role have with sessions, and a new one where that has ended without
// our knowing. A lease that is made with a login is renewed with it, and ends with
// it. What it returns is a [Resolver] or a [Leaser] if s is one.
func LogIn(s Store, sessions *auth.Sessions, now func() time.Time) Store {
	return Decorate(s, loggedIn{Decorated{s}, sessions, now})
}

type loggedIn struct {
	Decorated
	sessions *auth.Sessions
	now      func() time.Time
}

// Read implements [Store].
func (l loggedIn) Read(ctx context.Context, session Session, ref Ref) (Value, error) {
	return as(ctx, l.sessions, session, func(session Session) (Value, error) {
		value, err := l.Store.Read(ctx, session, ref)
		if err == nil && value.Lease != nil {
			value.Lease.Login = session.Token
			l.hold(session, *value.Lease)
		}
		return value, err
	})
}

// Resolve implements [Resolver].
func (l loggedIn) Resolve(ctx context.Context, session Session, ref Ref) (Resolved, error) {
	return as(ctx, l.sessions, session, func(session Session) (Resolved, error) { return l.Decorated.Resolve(ctx, session, ref) })
}

// Renew implements [Leaser]. It never logs in: only the login that made a lease can
// prolong it.
func (l loggedIn) Renew(ctx context.Context, session Session, lease Lease) (Lease, error) {
	session.Token = lease.Login
	renewed, err := l.Decorated.Renew(ctx, session, lease)
	if err == nil {
		renewed.Login = lease.Login
		l.hold(session, renewed)
	}
	return renewed, err
}

// hold keeps the login as long as the lease could live.
func (l loggedIn) hold(session Session, lease Lease) {
	l.sessions.Hold(session.Identity, session.Role, lease.Login, l.now().Add(lease.Duration))
}

// Revoke implements [Leaser], with the login that made the lease.
func (l loggedIn) Revoke(ctx context.Context, session Session, lease Lease) error {
	session.Token = lease.Login
	return l.Decorated.Revoke(ctx, session, lease)
}

// Ends implements [Leaser].
func (l loggedIn) Ends(session Session, lease Lease) (ends time.Time, final bool) {
	login, known := l.sessions.Find(session.Identity, session.Role, lease.Login)
	if !known {
		return l.now(), true // nobody keeps that login alive any more
	}
	return login.Expires, !login.Renewable && !login.Expires.IsZero()
}

// as does f with the login that there is; when that has ended, with a new one.
func as[T any](ctx context.Context, sessions *auth.Sessions, session Session, f func(Session) (T, error)) (T, error) {
	login, err := sessions.OpenLasting(ctx, session.Identity, session.Proof, session.Role, session.Lasting)
	if err != nil {
		var none T
		return none, unanswered(ctx, err)
	}
	session.Token = login.Token
	result, err := f(session)
	ended := errors.Is(err, ErrSession)
	if !ended && !errors.Is(err, ErrDoubt) {
		return result, err
	}
	try, dropped := sessions.Forget(session.Identity, session.Role, login, ended)
	if !try {
		return result, err
	}
	again, failed := sessions.OpenLasting(ctx, session.Identity, session.Proof, session.Role, session.Lasting)
	if failed != nil && ended {
		return result, unanswered(ctx, failed)
	}
	if failed == nil {
		session.Token = again.Token
		result, err = f(session)
	}
	if helped := err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalid); dropped && !ended && !helped {
		sessions.Reinstate(session.Identity, session.Role, login, again)
	}
	return result, err // which is that of the old login where nobody could log in
}

// unanswered gives a login that was cut off its kind: nobody has said no.
func unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil && !isAnswer(err) && !errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}
