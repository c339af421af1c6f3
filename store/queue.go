package store

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// republishShare is which place goes to a republish although a pod waits to start.
const republishShare = 4

// queue gives out places, see [Limit]. A place that gets free is handed to whoever
// is next: nobody who comes later can take it. Each operation takes the same time
// however many wait, and those who wait cost a channel and no goroutine.
type queue struct {
	places int

	mu          sync.Mutex
	taken       int
	starting    line // pods that wait
	republishes line
	passed      int // places that went past waiting republishes since one had its turn
}

// waiter is a request in the queue.
type waiter struct {
	line  *line
	turn  *list.Element // of its namespace, in line.turns
	at    *list.Element // in the turn's waiters; nil when it has left them
	place chan struct{} // closed when it has a place
}

func (w *waiter) namespace() string {
	t, _ := w.turn.Value.(*turn)
	return t.namespace
}

// enter returns when the caller has a place, and must leave, or when ctx ends.
func (q *queue) enter(ctx context.Context, session Session) error {
	w := q.join(session)
	if w == nil {
		return nil
	}
	for hurry := session.hurry; ; {
		select {
		case <-w.place:
			return nil
		case <-hurry:
			q.promote(w)
			hurry = nil
		case <-ctx.Done():
			others := q.abandon(w)
			return fmt.Errorf("%w: waited for a place among the %d requests that it gets at a time, as did %d others: %w",
				ErrUnavailable, q.places, others, context.Cause(ctx))
		}
	}
}

// join takes a place, or queues where it returns a waiter.
func (q *queue) join(session Session) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken < q.places { // then nobody waits
		q.taken++
		return nil
	}
	l := &q.republishes
	if session.Waiting {
		l = &q.starting
	}
	w := &waiter{place: make(chan struct{})}
	l.add(w, session.Identity.Namespace)
	return w
}

// promote lets a request go before republishes, at the end of its namespace's.
func (q *queue) promote(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.at == nil || w.line == &q.starting {
		return
	}
	namespace := w.namespace()
	w.line.remove(w)
	q.starting.add(w, namespace)
}

// abandon leaves the queue, and says how many are still in it. A place that came in
// the last moment goes to the next one.
func (q *queue) abandon(w *waiter) (others int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.at != nil {
		w.line.remove(w)
	} else {
		q.handOnLocked()
	}
	return q.starting.length + q.republishes.length
}

// leave gives a place back.
func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.handOnLocked()
}

// handOnLocked gives a place to whoever is next.
func (q *queue) handOnLocked() {
	switch {
	case q.republishes.length > 0 && (q.starting.length == 0 || q.passed == republishShare-1):
		q.passed = 0
		close(q.republishes.next().place)
	case q.starting.length > 0:
		if q.republishes.length > 0 {
			q.passed++
		}
		close(q.starting.next().place)
	default:
		q.taken--
	}
}

// line is who waits for the same reason, by namespace. The zero line is empty; of a
// namespace that nobody waits for it keeps nothing.
type line struct {
	length     int
	turns      list.List                // of *turn, the next first
	namespaces map[string]*list.Element // in turns
}

// turn is a namespace's.
type turn struct {
	namespace string
	waiters   list.List // of *waiter, the first to come first
}

// add queues a request of a namespace; one that comes anew has its turn last.
func (l *line) add(w *waiter, namespace string) {
	e := l.namespaces[namespace]
	if e == nil {
		if l.namespaces == nil {
			l.namespaces = map[string]*list.Element{}
		}
		e = l.turns.PushBack(&turn{namespace: namespace})
		l.namespaces[namespace] = e
	}
	t, _ := e.Value.(*turn)
	w.line, w.turn, w.at = l, e, t.waiters.PushBack(w)
	l.length++
}

// next takes whose turn it is out of the line, which must not be empty.
func (l *line) next() *waiter {
	e := l.turns.Front()
	l.turns.MoveToBack(e)
	t, _ := e.Value.(*turn)
	w, _ := t.waiters.Front().Value.(*waiter)
	l.remove(w)
	return w
}

// remove takes a request out, and its namespace with the last one.
func (l *line) remove(w *waiter) {
	t, _ := w.turn.Value.(*turn)
	t.waiters.Remove(w.at)
	w.at = nil
	l.length--
	if t.waiters.Len() == 0 {
		l.turns.Remove(w.turn)
		delete(l.namespaces, t.namespace)
	}
}
