// Package store is the contract between keymount and what holds the secrets.
//
// A [Store] reads one secret for one [Session]. What cuts across stores is a
// decorator, a Store around a Store ([Retry]); each real store lives in a folder
// of its own and is the only place that knows its SDK. The package storetest has
// the conformance suite that every one of them passes.
package store

import (
	"context"
	"errors"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
)

// The kinds of failure. A store wraps exactly one of them in every error.
var (
	// ErrNotFound: the store answered that it has no such secret.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the store knows who asks and says no.
	ErrDenied = errors.New("denied by the store")
	// ErrUnavailable: the store gave no answer; asking again may bring one.
	ErrUnavailable = errors.New("store unavailable")
	// ErrInvalid: the question or the answer makes no sense; asking again does not help.
	ErrInvalid = errors.New("invalid")
)

// Store reads secrets. Implementations are safe for concurrent use.
type Store interface {
	// Read returns the secret at ref as session may see it. It returns soon after
	// ctx ends, does not retry (see [Retry]), and its errors wrap one kind above
	// and hold no part of a secret. The Value belongs to the caller, who must not
	// change its content.
	Read(ctx context.Context, session Session, ref Ref) (Value, error)
}

// Session is on whose behalf a store is read.
type Session struct {
	Identity auth.Identity
	// Role is the store's role; empty for a store that has none.
	Role string
}

// Ref names one secret of a store.
type Ref struct {
	Path Path
	// Version is the one wanted, as the store counts them; empty for the latest. A
	// store that keeps none answers any other with ErrInvalid.
	Version string
}

// Value is a secret as it was read.
type Value struct {
	// Data is usually a map of names to values.
	Data secret.Tree
}
