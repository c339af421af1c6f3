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

// Read asks the store.
func (d Direct) Read(ctx context.Context, request login.Request, ref store.Ref, _ store.Resolved) (Answer, error) {
	value, err := d.store.Read(ctx, request, ref)
	return Answer{Value: &value, Source: FromStore}, err
}

// Recall answers with the values that the store has at hand.
func (d Direct) Recall(request login.Request) Recollection { return atHand{d, request} }

// atHand is a store that answers without a question.
type atHand struct {
	Direct

	request login.Request
}

// Path implements [Recollection].
func (a atHand) Path(ref store.Ref) (store.Resolved, bool) {
	return store.Resolved{Path: ref.Path}, a.store.Resolver == nil
}

// Value implements [Recollection].
func (a atHand) Value(ref store.Ref, _ store.Resolved) (Answer, bool) {
	if a.store.Recaller == nil {
		return Answer{}, false
	}
	value, known := a.store.Recall(a.request, ref)
	return Answer{Value: &value, Source: FromStore}, known
}

// Refresh does nothing: every read asks the store.
func (Direct) Refresh() {}
