package bundle

import (
	"context"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// OpenMadeUp implements [kind.MadeUp].
func (*Settings) OpenMadeUp(_ kind.Env, secrets map[string]secret.Tree) (kind.Layers, error) {
	opened := inHand{Document{secrets}}
	return kind.Layers{Store: opened, Recaller: opened}, nil
}

// inHand is a bundle that has its document, and no file.
type inHand struct{ document Document }

// Read implements [store.Store].
func (b inHand) Read(ctx context.Context, _ store.Caller, ref store.Ref) (store.Value, error) {
	if err := readable(ctx, ref); err != nil {
		return store.Value{}, err
	}
	return b.document.read(ref)
}

// Recall implements [store.Recaller].
func (b inHand) Recall(_ store.Caller, ref store.Ref) (store.Value, bool) {
	return b.document.recall(ref)
}
