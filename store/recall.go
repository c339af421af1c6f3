package store

import "time"

// Recaller is a [Resolver] that remembers. What it answers at once, which is what most
// mounts ask for, needs no goroutine that waits for it.
type Recaller interface {
	// RecallPath is what Resolve would answer without asking; false where it would ask.
	RecallPath(session Session, ref Ref) (Resolved, bool)
	// Recall is what Read would answer without asking, of a path that was resolved so;
	// false where it would ask. The caller spends of the budget, see [Spend].
	Recall(session Session, ref Ref, resolved Resolved) (Value, bool)
}

// RecallPath implements [Recaller].
func (k *keptResolver) RecallPath(session Session, ref Ref) (Resolved, bool) {
	return k.paths.recall(k.pathKey(session, ref), k.freshPath)
}

// Recall implements [Recaller].
func (k *keptResolver) Recall(session Session, ref Ref, resolved Resolved) (Value, bool) {
	value, known := k.values.recall(k.key(session, ref, resolved), func(v Value, at time.Time) bool { return k.fresh(v, at, ref) })
	if known && k.o.Vouch != nil {
		k.o.Vouch(session)
	}
	return value, known
}
