// Package store is the contract between keymount and what holds the secrets.
//
// A [Store] reads one secret for one [Session]; a [Resolver] is one that knows
// several spellings of a path. [Patiently] asks again while a store is out of
// reach, [Limit] has requests wait for their turn, and [Keep] remembers the answers.
// Each real store lives in a folder of its own and is the only place that knows its
// SDK. The package storetest has the conformance suite that every one of them passes.
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
	// Makes says that a read may make something for whoever asks, such as a credential
	// or a certificate: it is no other volume's, unless Ref.Shared says so.
	Makes bool
	// Literal is a segment that a rule has to name without wildcards, because the
	// path is no ordinary secret; empty for one that is.
	Literal string
}

// Session is on whose behalf a store is read.
type Session struct {
	Identity auth.Identity
	// Role is the store's role; empty for a store that has none.
	Role string
	// Class is the SecretProviderClass that is mounted: a credential that is made for
	// one volume is no other's.
	Class string
	// Waiting says that a pod cannot start until this is answered: it goes before what
	// pods that run are asking for, see [Limit].
	Waiting bool
	// Lasting is how long what is made for it has to live, and the login with it: see
	// [Keep]; zero for what is only read.
	Lasting time.Duration
	// hurry is closed when such a pod comes to wait for it, too.
	hurry <-chan struct{}
	// Proof is the service account token that proved Identity in this very request;
	// a login takes it.
	Proof secret.Bytes
	// Token is what the store gave at the login, see [LogIn]; empty before it, and
	// for a store without logins.
	Token secret.Bytes
}

// joined is a session of a request that others may come to wait for.
func (s Session) joined(hurry <-chan struct{}) Session {
	s.hurry = hurry
	return s
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
	// Shared lets all volumes of a session have one credential.
	Shared bool
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
	// Stale is why there is no newer value, where this one stands in for an answer that
	// the store did not give; nil where it did.
	Stale error

	made       bool          // reading again would make another one
	refresh    time.Duration // how long it counts, see [Keep]
	credential *credential   // the life of Lease, see [Keep]
	reader     *reader       // of what has an end, see [Forgotten]
}

// Lease is a store's promise that a credential lives for a while.
type Lease struct {
	ID        secret.Bytes // it can end the lease, so it is a secret, too
	Login     secret.Bytes // the token that it lives by, see [LogIn]
	Duration  time.Duration
	Renewable bool
}
