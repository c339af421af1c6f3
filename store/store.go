// Package store is the contract between keymount and what holds the secrets.
//
// A [Store] reads one secret for one [Session]; a [Resolver] is one that knows
// several spellings of a path. [Patiently] asks again while a store is out of
// reach. Each real store lives in a folder of its own and is the only place that
// knows its SDK. The package storetest has the conformance suite that every one of
// them passes.
package store

import (
	"context"
	"errors"
	"time"

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
	// ErrSession: the session has ended; a new login may help.
	ErrSession = errors.New("the session has ended")
	// ErrDoubt: a denial, or the session has ended; the store does not say which.
	ErrDoubt = errors.New("denied by the store, or the session has ended")
	// ErrInvalid: the question or the answer makes no sense; asking again does not help.
	ErrInvalid = errors.New("invalid")
)

// Store reads secrets. Implementations are safe for concurrent use.
type Store interface {
	// Read returns the secret at ref as session may see it. It returns soon after
	// ctx ends, does not retry (see [Patiently]), and its errors wrap one kind above
	// and hold no part of a secret. The Value belongs to the caller, who must not
	// change its content.
	Read(ctx context.Context, session Session, ref Ref) (Value, error)
}

// Resolver is a Store in which one secret has several spellings, or in which not
// every path is a secret.
type Resolver interface {
	Store
	// Resolve returns the one spelling of ref's path that access rules are judged
	// on. It may ask the store, and fails like Read.
	Resolve(ctx context.Context, session Session, ref Ref) (Resolved, error)
}

// Resolved is a path after the store was asked what it is.
type Resolved struct {
	Path Path
	// Literal is a segment that a rule has to name without wildcards, because the
	// path is no ordinary secret; empty for one that is.
	Literal string
}

// Session is on whose behalf a store is read.
type Session struct {
	Identity auth.Identity
	// Role is the store's role; empty for a store that has none.
	Role string
	// Token is what the store gave at the login; empty for a store without one.
	Token secret.Bytes
}

// Ref names one secret of a store.
type Ref struct {
	Path Path
	// Version is the one wanted, as the store counts them; empty for the latest. A
	// store that keeps none answers any other with ErrInvalid.
	Version string
	// Query is what the path is asked with besides, name=value pairs as
	// [net/url.Values.Encode] writes them; only a store whose paths have such a thing
	// is given any.
	Query string
	// Args make the read a write that answers: the JSON object to send. Empty for a
	// plain read.
	Args string
}

// Value is a secret as it was read.
type Value struct {
	// Data is usually a map of names to values.
	Data secret.Tree
	// Envelope is the store's whole answer, as its API has it; the zero Tree where
	// there is none.
	Envelope secret.Tree
	// Version is the store's own, for the record; empty where there is none.
	Version string
	// Lease is what a credential lives by; nil for what does not end.
	Lease *Lease
	// NotAfter is when a certificate ends, or a password that the store changes by
	// itself; zero when the store says nothing of it.
	NotAfter time.Time
	// Warnings are what the store said beside the answer. They hold no secret.
	Warnings []string
}

// Lease is a store's promise that a credential lives for a while.
type Lease struct {
	ID        secret.Bytes // it can end the lease, so it is a secret, too
	Duration  time.Duration
	Renewable bool
}
