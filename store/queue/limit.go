package queue

import (
	"context"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// Limit lets at most places requests to s, and at least one, be in flight at a time. The
// others wait in a fair queue: requests of pods that wait to start have priority over those
// of running pods, but every fourth place goes to the latter if any waits, so that they are
// late and not lost; with equal priority namespaces alternate, and within a namespace the
// first to come is the first to go. A namespace may hold four places for each free one: slow
// requests of some namespaces leave places to the others. So neither a storm of republishes nor
// the pods of another namespace can starve a mount. A request leaves the queue when its ctx ends.
func Limit(s login.Store, places int) login.Store {
	return New(places).Before(s)
}

// Before is s behind the queue.
func (q *Queue) Before(s login.Store) login.Store {
	limited := login.Store{Reader: reader{s.Reader, q}, Recaller: s.Recaller, PathRecaller: s.PathRecaller} // which send no request
	if s.Resolver != nil {
		limited.Resolver = resolver{s.Resolver, q}
	}
	if s.Leaser != nil {
		limited.Leaser = leaser{s.Leaser, q}
	}
	return limited
}

type reader struct {
	login.Reader
	queue *Queue
}

// Read implements [login.Reader].
func (r reader) Read(ctx context.Context, request login.Request, ref store.Ref) (store.Value, error) {
	return inPlace(ctx, r.queue, request, func() (store.Value, error) { return r.Reader.Read(ctx, request, ref) })
}

type resolver struct {
	login.Resolver
	queue *Queue
}

// Resolve implements [login.Resolver].
func (r resolver) Resolve(ctx context.Context, request login.Request, ref store.Ref) (store.Resolved, error) {
	return inPlace(ctx, r.queue, request, func() (store.Resolved, error) { return r.Resolver.Resolve(ctx, request, ref) })
}

type leaser struct {
	login.Leaser
	queue *Queue
}

// Renew implements [login.Leaser]. It has low priority, because renewals are early enough to
// let pods start first.
func (l leaser) Renew(ctx context.Context, request login.Request, lease store.Lease) (store.Lease, error) {
	request.Waiting = false
	return inPlace(ctx, l.queue, request, func() (store.Lease, error) { return l.Leaser.Renew(ctx, request, lease) })
}

// Revoke implements [login.Leaser].
func (l leaser) Revoke(ctx context.Context, request login.Request, lease store.Lease) error {
	request.Waiting = false
	_, err := inPlace(ctx, l.queue, request, func() (struct{}, error) { return struct{}{}, l.Leaser.Revoke(ctx, request, lease) })
	return err
}

// inPlace calls f when the request has a place, and frees the place after f, even if f
// panics.
func inPlace[T any](ctx context.Context, q *Queue, request login.Request, f func() (T, error)) (T, error) {
	if err := q.enter(ctx, request); err != nil {
		var none T
		return none, err
	}
	defer q.leave(request.Identity.Namespace)
	return f()
}
