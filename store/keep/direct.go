package keep

import (
	"context"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// Direct reads a store that holds its secrets locally and needs no memory. It has the read
// methods of a Keeper and remembers nothing.
type Direct struct{ store login.Store }

// NewDirect reads s.
func NewDirect(s login.Store) Direct { return Direct{s} }

// Resolve returns the one spelling of a path.
func (d Direct) Resolve(ctx context.Context, request login.Request, ref store.Ref) (store.Resolved, error) {
	if d.store.Resolver == nil {
		return store.Resolved{Path: ref.Path}, nil
	}
	return d.store.Resolve(ctx, request, ref)
}

// RecallPath returns the answer of Resolve; false if Resolve would ask the store.
func (d Direct) RecallPath(_ login.Request, ref store.Ref) (store.Resolved, bool) {
	return store.Resolved{Path: ref.Path}, d.store.Resolver == nil
}

// Read asks the store.
func (d Direct) Read(ctx context.Context, request login.Request, ref store.Ref, _ store.Resolved) (Answer, error) {
	value, err := d.store.Read(ctx, request, ref)
	return Answer{Value: value, Source: FromStore}, err
}

// Recall returns the value if the store has it at hand; false if Read would have to ask.
func (d Direct) Recall(request login.Request, ref store.Ref, _ store.Resolved) (Answer, bool) {
	if d.store.Recaller == nil {
		return Answer{}, false
	}
	value, known := d.store.Recall(request, ref)
	return Answer{Value: value, Source: FromStore}, known
}

// Refresh does nothing: every read asks the store.
func (Direct) Refresh() {}
