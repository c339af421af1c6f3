package keep

import (
	"time"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// Recollection answers a request without asking the store, and says false where that takes a
// question. It is of the moment in which it began: whoever waits begins another one. It is
// for one goroutine.
type Recollection interface {
	// Path is the answer of Resolve.
	Path(ref store.Ref) (store.Resolved, bool)
	// Value is the answer of Read.
	Value(ref store.Ref, resolved store.Resolved) (Answer, bool)
}

// recollection is what a Keeper remembers for a request. A mount of a thousand secrets has
// one: the clock, the parts of the login in each key, and the use of the login are the same
// for all of them.
type recollection struct {
	*Keeper

	request login.Request
	keys    keys
	now     time.Time
	vouched bool
}

// Recall begins to answer a request from memory.
func (k *Keeper) Recall(request login.Request) Recollection {
	return &recollection{Keeper: k, request: request, keys: k.keysOf(request), now: k.o.Now()}
}

// Path implements [Recollection], also with what the store itself knows.
func (r *recollection) Path(ref store.Ref) (store.Resolved, bool) {
	if r.store.Resolver == nil {
		return store.Resolved{Path: ref.Path}, true
	}
	namespace, at := r.request.Identity.Namespace, r.keys.ofPath(&ref)
	resolved, known := r.paths.recall(namespace, at, func(_ store.Resolved, at time.Time) bool { return r.freshPath(at, r.now) })
	if known || r.store.PathRecaller == nil {
		return resolved, known
	}
	if resolved, known = r.store.RecallPath(r.request, ref); known {
		r.paths.put(entry[key, store.Resolved]{at, namespace, resolved, r.now}) // for an outage
	}
	return resolved, known
}

// Value implements [Recollection].
func (r *recollection) Value(ref store.Ref, resolved store.Resolved) (Answer, bool) {
	v, known := r.values.recall(r.request.Identity.Namespace, r.keys.of(&ref, &resolved),
		func(v value, at time.Time) bool { return r.fresh(v, at, ref, r.now) })
	if known && !r.vouched {
		r.vouch(r.request)
		r.vouched = true
	}
	if !known {
		return Answer{}, false
	}
	return r.answer(v, FromMemory, nil), true
}
