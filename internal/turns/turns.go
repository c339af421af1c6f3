// Package turns gives out places for work on a processor or in much memory, and keeps the
// namespaces of the cluster from taking each other's places.
//
// A namespace is charged for the time of its turns: the next place goes to the waiting
// namespace with the least time lately. Pods waiting to start go before running pods, but
// for every fourth place. Work in several pieces calls [Pause] between them, and so lends
// its place to others.
package turns

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// runningShare gives every fourth place to a running pod although another pod waits to
	// start.
	runningShare = 4
	// piece is the time for which work keeps its place while others wait.
	piece = 20 * time.Millisecond
	// halfLife is the time after which half of a used time is forgotten.
	halfLife = time.Second
	// maxUsed bounds the namespaces with a known use.
	maxUsed = 256
)

// Of is the owner of a turn.
type Of struct {
	Namespace string
	// Waiting: a pod cannot start until the work is done.
	Waiting bool
}

// Queue gives out places. It is safe for concurrent use.
type Queue struct {
	name  string
	most  int // places
	each  int // places of one namespace at a time
	clock func() time.Time

	mu      sync.Mutex
	taken   int
	by      map[string]int      // places taken
	used    map[string]usage    // lately
	waiting map[string]*waiters // by namespace; none is empty
	passed  int                 // turns of starting pods since one of a running pod that waits
}

// usage is time used at a moment; it halves with every halfLife.
type usage struct {
	spent time.Duration
	at    time.Time
}

// waiters of one namespace, in the order in which they came.
type waiters struct{ starting, running []*waiter }

type waiter struct{ ready chan struct{} } // closed when it has a place

// New makes a queue with this number of places; one namespace has at most each of them at
// a time. name is for messages: "mounts". now is the clock.
func New(name string, places, each int, now func() time.Time) *Queue {
	return &Queue{
		name: name, most: max(places, 1), each: max(min(each, places), 1), clock: now,
		by: map[string]int{}, used: map[string]usage{}, waiting: map[string]*waiters{},
	}
}

// Do calls f in a place. f may call [Pause] with its context. The error is f's own, or the
// end of ctx before there was a place.
func (q *Queue) Do(ctx context.Context, of Of, f func(context.Context) error) error {
	if err := q.enter(ctx, of); err != nil {
		return err
	}
	t := &turn{queue: q, of: of, began: q.clock()}
	defer t.leave()
	return f(context.WithValue(ctx, turnKey{}, t))
}

// Take waits for a place, and returns the function to give it back.
func (q *Queue) Take(ctx context.Context, of Of) (giveBack func(), err error) {
	if err := q.enter(ctx, of); err != nil {
		return nil, err
	}
	began := q.clock()
	return sync.OnceFunc(func() {
		now := q.clock()
		q.leave(of.Namespace, now.Sub(began), now)
	}), nil
}

// turn is work in its place.
type turn struct {
	queue *Queue
	of    Of
	began time.Time
	used  time.Duration // before began
	lent  bool          // it has no place
	limit time.Duration // of used; 0 is none
	slow  error         // the answer of Pause beyond it
}

type turnKey struct{}

// Limited has work end with slow after so much more time in its place, until end is called.
// The time of waiting for the place does not count.
func Limited(ctx context.Context, limit time.Duration, slow error) (end func()) {
	t, ok := ctx.Value(turnKey{}).(*turn)
	if !ok {
		return func() {}
	}
	t.limit, t.slow = t.used+t.queue.clock().Sub(t.began)+limit, slow
	return func() { t.limit = 0 }
}

// Pause lends the place to others between two pieces of work, if others wait and the last
// piece was long. Its error ends the work: ctx has ended, or the time of [Limited] is used
// up.
func Pause(ctx context.Context) error {
	t, ok := ctx.Value(turnKey{}).(*turn)
	if !ok {
		return ctx.Err()
	}
	now := t.queue.clock()
	since := now.Sub(t.began)
	if t.limit > 0 && t.used+since > t.limit {
		return t.slow
	}
	if since < piece || !t.queue.hasWaiters() {
		return ctx.Err()
	}
	t.used += since
	t.queue.leave(t.of.Namespace, since, now)
	t.lent = true
	if err := t.queue.enter(ctx, t.of); err != nil {
		return err
	}
	t.lent, t.began = false, t.queue.clock()
	return nil
}

func (t *turn) leave() {
	if !t.lent {
		now := t.queue.clock()
		t.queue.leave(t.of.Namespace, now.Sub(t.began), now)
	}
}

// enter returns with a place, to be left after the work, or at the end of ctx.
func (q *Queue) enter(ctx context.Context, of Of) error {
	w := q.join(of)
	if w == nil {
		return nil
	}
	select {
	case <-w.ready: // rather than the end of ctx, where both are true
		return nil
	default:
	}
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		q.abandon(of, w)
		return fmt.Errorf("no time was left in the queue of %s: %w", q.name, context.Cause(ctx))
	}
}

// join takes a place and returns nil, or queues and returns a waiter.
func (q *Queue) join(of Of) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 && q.taken < q.most && q.by[of.Namespace] < q.each {
		q.takeLocked(of.Namespace)
		return nil
	}
	w := &waiter{ready: make(chan struct{})}
	waiting := q.waiting[of.Namespace]
	if waiting == nil {
		waiting = &waiters{}
		q.waiting[of.Namespace] = waiting
	}
	line := waiting.line(of.Waiting)
	*line = append(*line, w)
	q.handOnLocked(q.clock())
	return w
}

// abandon leaves the queue. A place given in the last moment goes to the next waiter.
func (q *Queue) abandon(of Of, w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.waiting[of.Namespace]
	if line == nil || !line.remove(w) {
		q.freeLocked(of.Namespace)
	} else if line.empty() {
		delete(q.waiting, of.Namespace)
	}
	q.handOnLocked(q.clock())
}

// leave gives a place back after some time of use.
func (q *Queue) leave(namespace string, used time.Duration, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.chargeLocked(namespace, used, now)
	q.freeLocked(namespace)
	q.handOnLocked(now)
}

func (q *Queue) takeLocked(namespace string) {
	q.taken++
	q.by[namespace]++
}

func (q *Queue) freeLocked(namespace string) {
	q.taken--
	if q.by[namespace]--; q.by[namespace] == 0 {
		delete(q.by, namespace)
	}
}

func (q *Queue) hasWaiters() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) > 0
}

// handOnLocked gives free places to the next in turn.
func (q *Queue) handOnLocked(now time.Time) {
	for len(q.waiting) > 0 && q.taken < q.most {
		namespace, starting, found := q.nextLocked(now)
		if !found {
			return
		}
		line := q.waiting[namespace]
		w := line.take(starting)
		if line.empty() {
			delete(q.waiting, namespace)
		}
		q.countLocked(starting)
		q.takeLocked(namespace)
		close(w.ready)
	}
}

// nextLocked is the next namespace, and whether a starting pod of it is next; found is
// false while each with a waiter has all the places it may have.
func (q *Queue) nextLocked(now time.Time) (namespace string, starting, found bool) {
	first, starts := q.leastLocked(now, true)
	second, runs := q.leastLocked(now, false)
	if runs && (!starts || q.passed >= runningShare-1) {
		return second, false, true
	}
	return first, true, starts
}

// countLocked counts the turns of starting pods while a running pod waits.
func (q *Queue) countLocked(starting bool) {
	if !starting {
		q.passed = 0
		return
	}
	for _, line := range q.waiting {
		if len(line.running) > 0 {
			q.passed++
			return
		}
	}
}

// leastLocked is the namespace with the least use lately, among those with a waiter of the
// kind and room for its turn; the first by name among equals. Work without a namespace has
// the empty one.
func (q *Queue) leastLocked(now time.Time, starting bool) (least string, found bool) {
	var leastUsed time.Duration
	for namespace, line := range q.waiting {
		if len(*line.line(starting)) == 0 || q.by[namespace] >= q.each {
			continue
		}
		used := q.used[namespace].after(now)
		if !found || used < leastUsed || used == leastUsed && namespace < least {
			least, leastUsed, found = namespace, used, true
		}
	}
	return least, found
}

func (q *Queue) chargeLocked(namespace string, used time.Duration, now time.Time) {
	if _, known := q.used[namespace]; !known && len(q.used) >= maxUsed {
		q.forgetLocked(now)
	}
	q.used[namespace] = usage{q.used[namespace].after(now) + max(used, 0), now}
}

// forgetLocked forgets the namespace with the least use.
func (q *Queue) forgetLocked(now time.Time) {
	least, found := "", false
	for namespace, u := range q.used {
		if !found || u.after(now) < q.used[least].after(now) {
			least, found = namespace, true
		}
	}
	delete(q.used, least)
}

// after is the rest of a use at a later moment.
func (u usage) after(now time.Time) time.Duration {
	age := max(now.Sub(u.at), 0) // the clock may have been set back
	return time.Duration(float64(u.spent) * math.Exp2(-float64(age)/float64(halfLife)))
}

func (w *waiters) empty() bool { return len(w.starting)+len(w.running) == 0 }

func (w *waiters) line(starting bool) *[]*waiter {
	if starting {
		return &w.starting
	}
	return &w.running
}

func (w *waiters) take(starting bool) *waiter {
	line := w.line(starting)
	first := (*line)[0]
	*line = (*line)[1:]
	return first
}

// remove is false for a waiter with a place already.
func (w *waiters) remove(one *waiter) bool {
	for _, starting := range []bool{true, false} {
		line := w.line(starting)
		if i := slices.Index(*line, one); i >= 0 {
			*line = slices.Delete(*line, i, i+1)
			return true
		}
	}
	return false
}
