// Package queue bounds the requests that a store gets at a time, and chooses the next one. It
// keeps no state for a namespace without requests.
package queue

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

const (
	// lowShare is the share of places for low priority while a high priority request waits:
	// one in four.
	lowShare = 4
	// heldPerFree is how many places a namespace may hold for each free one. So one namespace
	// alone gets four fifths of five places and more, and more of them leave a place free for the
	// next one, however slow their requests are.
	heldPerFree = 4
)

// Queue gives out places, see [Limit]. A place that gets free is handed to the next waiter,
// so that no later request can take it. Each operation takes the same time for any number of
// waiters; a waiter costs a channel and no goroutine.
type Queue struct {
	places int

	mu         sync.Mutex
	free       int
	held       map[string]int // places, by namespace
	high       priority       // requests of pods that wait to start
	low        priority       // requests of running pods
	highInARow int            // places given to high since the last one to low, while low had waiters
}

// New makes a Queue of so many places, and at least one.
func New(places int) *Queue {
	places = max(places, 1)
	return &Queue{places: places, free: places, held: map[string]int{}}
}

// Waiting is how many requests have no place yet.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.high.length + q.low.length
}

// waiter is a request in the queue.
type waiter struct {
	priority *priority
	group    *list.Element // in priority.groups
	element  *list.Element // in group.waiters; nil once it has left the queue
	place    chan struct{} // closed when it has a place
}

func (w *waiter) namespace() string {
	g, _ := w.group.Value.(*group)
	return g.namespace
}

// enter returns when the request has a place, which the caller must leave, or when ctx ends.
func (q *Queue) enter(ctx context.Context, request login.Request) error {
	w := q.join(request)
	if w == nil {
		return nil
	}
	for joined := request.Joined; ; {
		select {
		case <-w.place:
			return nil
		case <-joined:
			q.promote(w)
			joined = nil
		case <-ctx.Done():
			others := q.abandon(w)
			return &store.Error{
				Reason: store.Unavailable, Cause: context.Cause(ctx),
				Said: fmt.Sprintf("waited for a place among the %d requests that it gets at a time, as did %d others", q.places, others),
			}
		}
	}
}

// join takes a place and returns nil, or queues and returns a waiter.
func (q *Queue) join(request login.Request) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	namespace := request.Identity.Namespace
	if q.mayTakeLocked(namespace) { // so none of its requests wait
		q.takeLocked(namespace)
		return nil
	}
	p := &q.low
	if request.Waiting {
		p = &q.high
	}
	w := &waiter{place: make(chan struct{})}
	p.add(w, namespace)
	return w
}

// promote gives a request high priority, behind the others of its namespace.
func (q *Queue) promote(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.element == nil || w.priority == &q.high {
		return
	}
	namespace := w.namespace()
	w.priority.remove(w)
	q.high.add(w, namespace)
}

// abandon leaves the queue and returns the number of waiters left. A place that came at the
// last moment goes to the next waiter.
func (q *Queue) abandon(w *waiter) (others int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.element != nil {
		w.priority.remove(w)
	} else {
		q.freeLocked(w.namespace())
	}
	return q.high.length + q.low.length
}

// leave gives a place of a namespace back.
func (q *Queue) leave(namespace string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.freeLocked(namespace)
}

// mayTakeLocked tells whether a namespace may take one more place.
func (q *Queue) mayTakeLocked(namespace string) bool {
	return q.held[namespace] < heldPerFree*q.free
}

func (q *Queue) takeLocked(namespace string) {
	q.free--
	q.held[namespace]++
}

// freeLocked frees a place, and hands out those that may be taken now.
func (q *Queue) freeLocked(namespace string) {
	q.free++
	if q.held[namespace]--; q.held[namespace] == 0 {
		delete(q.held, namespace)
	}
	for w := q.nextLocked(); w != nil; w = q.nextLocked() {
		q.takeLocked(w.namespace())
		close(w.place)
	}
}

// nextLocked removes and returns the waiter that gets the next place; nil for none.
func (q *Queue) nextLocked() *waiter {
	if q.free == 0 {
		return nil
	}
	high, low := q.high.first(q.mayTakeLocked), q.low.first(q.mayTakeLocked)
	switch {
	case low != nil && (high == nil || q.highInARow >= lowShare-1):
		q.highInARow = 0
		return q.low.take(low)
	case high != nil:
		if q.low.length > 0 {
			q.highInARow++
		}
		return q.high.take(high)
	}
	return nil
}

// priority holds the waiters of one priority, grouped by namespace. The zero priority is
// empty; a namespace without waiters has no group.
type priority struct {
	length     int
	groups     list.List                // of *group, the next first
	namespaces map[string]*list.Element // in groups
}

// group holds the waiters of one namespace.
type group struct {
	namespace string
	waiters   list.List // of *waiter, in order of arrival
}

// add queues a request of a namespace; a new group goes last.
func (p *priority) add(w *waiter, namespace string) {
	e := p.namespaces[namespace]
	if e == nil {
		if p.namespaces == nil {
			p.namespaces = map[string]*list.Element{}
		}
		e = p.groups.PushBack(&group{namespace: namespace})
		p.namespaces[namespace] = e
	}
	g, _ := e.Value.(*group)
	w.priority, w.group, w.element = p, e, g.waiters.PushBack(w)
	p.length++
}

// first is the next group in turn that may take a place; nil for none. It passes over no
// more groups than there are places, because each of those holds some.
func (p *priority) first(may func(namespace string) bool) *list.Element {
	for e := p.groups.Front(); e != nil; e = e.Next() {
		if g, _ := e.Value.(*group); may(g.namespace) {
			return e
		}
	}
	return nil
}

// take removes and returns the next waiter of a group, and puts the group last.
func (p *priority) take(e *list.Element) *waiter {
	p.groups.MoveToBack(e)
	g, _ := e.Value.(*group)
	w, _ := g.waiters.Front().Value.(*waiter)
	p.remove(w)
	return w
}

// remove removes a waiter, and its group with the last one.
func (p *priority) remove(w *waiter) {
	g, _ := w.group.Value.(*group)
	g.waiters.Remove(w.element)
	w.element = nil
	p.length--
	if g.waiters.Len() == 0 {
		p.groups.Remove(w.group)
		delete(p.namespaces, g.namespace)
	}
}
