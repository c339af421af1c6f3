package store

import "context"

// Limit lets at most places requests to s be under way at a time, and at least one.
// The others wait in a fair queue: what a pod waits for to start goes before what
// pods that run ask for, but every fourth place is theirs if one of them waits, so
// that they are late and not lost; among equals namespaces take turns, and within a
// namespace the first to come is the first to go. So neither a storm of republishes
// nor the pods of another namespace can starve a mount. Whoever waits leaves the
// queue when ctx ends. What Limit returns is a [Resolver] and a [Leaser] if s is.
func Limit(s Store, places int) Store {
	return Decorate(s, limited{Decorated{s}, &queue{places: max(places, 1)}})
}

type limited struct {
	Decorated
	queue *queue
}

// Read implements [Store].
func (l limited) Read(ctx context.Context, session Session, ref Ref) (Value, error) {
	return inPlace(ctx, l.queue, session, func() (Value, error) { return l.Store.Read(ctx, session, ref) })
}

// Resolve implements [Resolver].
func (l limited) Resolve(ctx context.Context, session Session, ref Ref) (Resolved, error) {
	return inPlace(ctx, l.queue, session, func() (Resolved, error) { return l.Decorated.Resolve(ctx, session, ref) })
}

// Renew implements [Leaser]. It is early enough to let pods start before it.
func (l limited) Renew(ctx context.Context, session Session, lease Lease) (Lease, error) {
	session.Waiting = false
	return inPlace(ctx, l.queue, session, func() (Lease, error) { return l.Decorated.Renew(ctx, session, lease) })
}

// Revoke implements [Leaser].
func (l limited) Revoke(ctx context.Context, session Session, lease Lease) error {
	session.Waiting = false
	_, err := inPlace(ctx, l.queue, session, func() (struct{}, error) { return struct{}{}, l.Decorated.Revoke(ctx, session, lease) })
	return err
}

// inPlace does f when it is the session's turn. The place is free again when f is
// over, however it ends.
func inPlace[T any](ctx context.Context, q *queue, session Session, f func() (T, error)) (T, error) {
	if err := q.enter(ctx, session); err != nil {
		var none T
		return none, err
	}
	defer q.leave()
	return f()
}
