// Package store is the contract between keymount and the stores.
//
// A [Store] reads one secret for one [Caller]. A store with more abilities is a [Resolver], a
// [PathRecaller], a [Leaser] or a [Recaller] as well. Each real store lives in a folder of its
// own, the only place that knows its protocol; package kind says what such a folder brings.
// The layers between a mount and a store have folders, too: login makes a Caller of a pod's
// token, queue bounds and orders the requests, keep remembers the answers. The package
// storetest has the suites that every store passes.
package store

import (
	"context"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
)

// Store reads secrets. Implementations are safe for concurrent use.
type Store interface {
	// Read returns the secret at ref as caller may see it. It returns soon after ctx ends and
	// does not retry, see [Patiently]; its errors are of type [*Error], with one reason, and
	// hold no part of a secret. The caller of Read owns the Value, and its content is never
	// changed.
	Read(ctx context.Context, caller Caller, ref Ref) (Value, error)
}

// Resolver is a store in which a secret has several spellings, or in which some paths are no
// secrets.
type Resolver interface {
	// Resolve returns the one spelling of ref's path for access rules. It may ask the store,
	// and fails like Read.
	Resolve(ctx context.Context, caller Caller, ref Ref) (Resolved, error)
}

// PathRecaller is a Resolver that knows what most paths are before anybody logs in.
type PathRecaller interface {
	// RecallPath returns the answer of Resolve without a login, a request or a wait; false
	// where Resolve would need one, or would fail.
	RecallPath(caller Caller, ref Ref) (Resolved, bool)
}

// Leaser is a store with renewable leases.
type Leaser interface {
	// Renew asks for the full life of a lease again, with the login that made it, and returns
	// the renewed lease, whose life may be shorter. It fails like Read.
	Renew(ctx context.Context, caller Caller, lease Lease) (Lease, error)
	// Revoke ends a lease with the login that made it. It may be repeated, and fails like
	// Read: NotFound means that nothing is left to revoke.
	Revoke(ctx context.Context, caller Caller, lease Lease) error
}

// Recaller is a store with its secrets at hand. A mount of recalled secrets alone needs no
// waiting goroutine.
type Recaller interface {
	// Recall returns the Value of Read without a request or a wait; false where Read would
	// need either, or would fail.
	Recall(caller Caller, ref Ref) (Value, bool)
}

// Resolved is a path after Resolve.
type Resolved struct {
	Path Path
	// Makes says that a read may make a credential or certificate: it belongs to one volume,
	// unless Ref.Shared says otherwise.
	Makes bool
	// Literal is a segment that a rule must name without wildcards, because the path is no
	// ordinary secret; empty otherwise.
	Literal string
}

// Caller is an identity with its role and login, as a store sees it.
type Caller struct {
	Identity auth.Identity
	// Role is the store's role; empty for a login without one.
	Role string
	// Login is the token that the store gave at login; empty for a store without logins.
	Login secret.Bytes
}

// Ref names one secret of a store.
type Ref struct {
	Path Path
	// Version is the wanted version, in the store's own count; empty for the latest. A store
	// without versions answers any other with Invalid.
	Version string
	// Query are parameters of the path, name=value pairs as [net/url.Values.Encode] writes
	// them; only a store whose paths take parameters gets any.
	Query string
	// Args is the JSON object to send: it makes the read a write with an answer. Empty for a
	// plain read.
	Args string
	// Shared lets all volumes of a login share one credential.
	Shared bool
}

// Value is the result of a read.
type Value struct {
	// Data is usually a map of names to values.
	Data secret.Tree
	// About are the keys of Data that say something about the secret and are no part of it,
	// such as how long it stays. They may change while the secret does not, so that only
	// a form that names one has it.
	About []string
	// Envelope is the store's whole answer, as its API has it; the zero Tree without one.
	Envelope secret.Tree
	// Version and RequestID are the store's own, for the record; empty without one.
	Version, RequestID string
	// Lease is the lease of a credential; nil for a value without end.
	Lease *Lease
	// NotAfter is the end of a certificate, or of a password rotated by the store; zero if
	// the store does not say.
	NotAfter time.Time
	// Warnings are the store's remarks beside the answer. They hold no secret.
	Warnings []string
}

// Lease is a store's promise of a credential's life.
type Lease struct {
	ID        secret.Bytes // a secret, because it can revoke the lease
	Login     secret.Bytes // of the Caller that made the lease, which ends with it; set by package login
	Duration  time.Duration
	Renewable bool
}
