// Package login exchanges a pod's service account token for a login with a store.
//
// A [Method] makes one login. [Sessions] remembers the logins, so that the pods of a service
// account share one, and renews and revokes them. [Open] puts both in front of a store:
// memory and queue above it pass a [Request], and only this package makes a [store.Caller] of
// it. The pod's token goes to a Method and nowhere else.
package login

import (
	"context"
	"errors"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// Method logs in to a store with a service account token.
type Method interface {
	// Login exchanges the token of a verified identity for a login. It returns soon after ctx
	// ends; its errors are those of a store and hold no token. An answer of the store without
	// a login is a refusal: Sessions repeats it for a while and does not ask the store again
	// with that token.
	Login(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (Login, error)
}

// Renewer is a Method that can renew and revoke its logins. Its errors are like those of
// Login; both calls may be repeated.
type Renewer interface {
	// Renew asks for the full life again and returns the renewed login: its life may be
	// shorter, and Renewable is false when no further renewal is possible. After Ended the
	// login must not be used any more; after Denied or Doubt it may be used to its end; after
	// any other error the call is repeated.
	Renew(ctx context.Context, identity auth.Identity, login Login) (Login, error)
	// Revoke ends a login and the leases made with it. After Ended, Denied or Doubt nothing
	// more can be done; after any other error the call is repeated.
	Revoke(ctx context.Context, identity auth.Identity, login Login) error
}

// Login is the store's token with its life.
type Login struct {
	Token secret.Bytes
	// Expires is the end of the token's life; zero for a token without end.
	Expires time.Time
	// Renewable says that the store may prolong the life.
	Renewable bool
}

// Request is a mount's question to a store, before login.
type Request struct {
	Identity auth.Identity
	// Role is the store's role; empty for a login without one.
	Role string
	// Proof is the service account token that proved Identity in this very request, for a
	// login.
	Proof secret.Bytes
	// Volume is the volume to mount, the only owner of a credential made for it.
	Volume auth.Volume
	// Waiting says that a pod cannot start without the answer: it has priority over requests
	// of running pods.
	Waiting bool
	// Joined is closed when a pod that cannot start begins to wait for the same answer; nil
	// is never.
	Joined <-chan struct{}
	// Lasting is the least life of a credential to make, and so of its login; zero for a
	// plain read.
	Lasting time.Duration
}

// refusal marks an error as the answer of a store to a login.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// Refused tells whether err is the answer of a store to a login: it is about the token of the
// pod and not about a secret.
func Refused(err error) bool {
	_, refused := errors.AsType[refusal](err)
	return refused
}

// refused marks answers of the store, but no outage.
func refused(err error) error {
	if store.Answered(err) {
		return refusal{err}
	}
	return err
}
