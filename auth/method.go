package auth

import (
	"context"
	"errors"
	"time"

	"github.com/keymount/keymount/internal/secret"
)

// ErrRefused marks the answer of a store that says no: asking again at once
// changes nothing.
var ErrRefused = errors.New("refused")

// ErrLast marks a renewal that a store refuses of a login that lives on to its end.
var ErrLast = errors.New("not renewed any more")

// Refused is err marked with [ErrRefused], its text unchanged.
func Refused(err error) error { return marked{err, ErrRefused} }

// Last is err marked with [ErrLast], its text unchanged.
func Last(err error) error { return marked{err, ErrLast} }

type marked struct {
	error
	kind error
}

func (m marked) Unwrap() []error { return []error{m.error, m.kind} }

// Method logs in to a store with a service account token.
type Method interface {
	// Login exchanges the token of a verified identity for the store's own. It
	// returns soon after ctx ends; its errors wrap a kind of package store, and
	// ErrRefused when the store says no, and hold no token.
	Login(ctx context.Context, identity Identity, token secret.Bytes, role string) (Login, error)
}

// Renewer is a Method whose logins can be prolonged and ended. Its errors are like
// those of Login; both calls may be repeated.
type Renewer interface {
	// Renew asks that a login may live as long again, and returns it as it is then:
	// its life may be shorter, and Renewable false when it cannot be prolonged any
	// more. ErrRefused says that the login is not to be used any more, ErrLast that it is
	// to be used to its end.
	Renew(ctx context.Context, identity Identity, login Login) (Login, error)
	// Revoke ends a login and whatever was made with it. ErrRefused says that there is
	// nothing to end.
	Revoke(ctx context.Context, identity Identity, login Login) error
}

// Login is what a store gave at a login.
type Login struct {
	Token secret.Bytes
	// Expires is the end of the token's life; zero for one that does not end.
	Expires time.Time
	// Renewable says that the store may prolong its life.
	Renewable bool
}
