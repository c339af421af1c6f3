package store

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// flightLimit ends one read for all who wait for it; it outlives the mount that
// began it.
const flightLimit = 25 * time.Second

// flightBudget is what one answer may have; each who waits for it spends of its own.
const flightBudget = 6 << 20

// maxHold is the longest that a refusal counts without being asked for again.
const maxHold = time.Minute

// memory remembers answers by who asked for what, and makes one question of many
// that are asked at the same time. It keeps at most a number of bytes, the least
// recently used go first. It is safe for concurrent use.
type memory[K comparable, V any] struct {
	now  func() time.Time
	size func(V) int64
	cell int64 // what a question takes without its answer, in bytes
	most int64 // bytes
	// landed is told, with the lock held, what was known before an answer and what it
	// says, which may be nothing; nil tells nobody.
	landed func(before, now V)
	// lasting tells what is forgotten to make room only when nothing else is left, which
	// crowded is told of, with the lock held; nil is nothing.
	lasting func(V) bool
	crowded func(V)
	// orphaned is told in the same way of an answer to a question that was dropped
	// meanwhile.
	orphaned func(V)

	mu     sync.Mutex
	cells  map[K]*list.Element // of *cell[K, V]
	order  list.List           // the most recently used first
	bytes  int64
	sweeps int
	aloft  int        // flights
	fewer  *sync.Cond // of them
}

// cell is what is known of one question.
type cell[K comparable, V any] struct {
	key    K
	known  bool
	value  V
	size   int64
	at     time.Time // when value was true
	asked  int       // after how many sweeps anybody wanted it last
	denial denial
	flight *flight[V]
	left   bool // see drop
	// hurried tells whether the flight was told that somebody cannot wait.
	hurried bool
}

// denial is a refusal that is not asked for again for a while.
type denial struct {
	err   error
	since time.Time
	pause time.Duration
}

func (d denial) holds(now time.Time) bool {
	age := now.Sub(d.since)
	return d.err != nil && age >= 0 && age < d.pause // the clock may have been set back
}

// flight is a question that is being asked.
type flight[V any] struct {
	done  chan struct{}
	hurry chan struct{}         // closed when somebody joins who cannot wait
	last  atomic.Pointer[error] // of the attempts that failed so far
	value V
	at    time.Time // when it began: the value is no older
	err   error
}

func newMemory[K comparable, V any](most int64, size func(V) int64, now func() time.Time) *memory[K, V] {
	m := &memory[K, V]{now: now, size: size, most: most, cells: map[K]*list.Element{}}
	m.fewer = sync.NewCond(&m.mu)
	var entry struct { // of the map, which may be half empty
		key     K
		element *list.Element
	}
	m.cell = int64(unsafe.Sizeof(cell[K, V]{}) + unsafe.Sizeof(list.Element{}) + 2*unsafe.Sizeof(entry)) //nolint:gosec // G115: some hundred
	return m
}

// question is how one answer is had.
type question[V any] struct {
	// fresh tells whether a value that was true at some time still counts.
	fresh func(v V, at time.Time) bool
	// ask gets a new one with the attempts of a flight. Its context is not that of any
	// caller; old is the value that it is to replace, if there is one.
	ask func(ctx context.Context, old *V, f *flight[V]) (V, error)
	// waiting says that a pod cannot start until this is answered.
	waiting bool
	// instead tells whether the old value may stand in for an answer that failed.
	instead func(v V, at time.Time, err error) bool
	// hold is how long a failure counts for all who ask again, before how long the last
	// one did.
	hold func(err error, before time.Duration) time.Duration
}

// answer is a value, and the failure that it stands in for.
type answer[V any] struct {
	value V
	cause error // why there is no newer one; nil when there is
}

// patience is how long a flight is waited for where an old value would do.
const patience = 2 * time.Second

// get answers from memory or asks. Those who ask for the same share one flight,
// whoever gives up first.
func (m *memory[K, V]) get(ctx context.Context, key K, q question[V]) (answer[V], error) {
	m.mu.Lock()
	c := m.touchLocked(key)
	if c.known && q.fresh(c.value, c.at) {
		defer m.mu.Unlock()
		return answer[V]{value: c.value}, nil
	}
	if c.denial.holds(m.now()) {
		defer m.mu.Unlock()
		return c.instead(q, c.denial.err)
	}
	if c.flight == nil {
		m.beginLocked(ctx, c, q)
	}
	f, enough := c.flight, time.Duration(-1)
	if q.waiting && !c.hurried {
		c.hurried = true
		close(f.hurry)
	}
	if c.known && q.instead(c.value, c.at, ErrUnavailable) {
		enough = max(0, patience-m.now().Sub(f.at))
	}
	m.mu.Unlock()
	err := f.wait(ctx, enough)
	if err == nil {
		return answer[V]{value: f.value}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return c.instead(q, err)
}

// recall is the value that counts without asking, if there is one.
func (m *memory[K, V]) recall(key K, fresh func(v V, at time.Time) bool) (value V, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.cells[key]
	if e == nil {
		return value, false
	}
	if c := m.useLocked(e); c.known && fresh(c.value, c.at) {
		return c.value, true
	}
	return value, false
}

// wait is for the end of a flight: as long as ctx lasts, or for a moment if that is
// not negative.
func (f *flight[V]) wait(ctx context.Context, moment time.Duration) error {
	var enough <-chan time.Time
	if moment >= 0 {
		timer := time.NewTimer(moment)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-f.done:
		return f.err
	case <-enough:
	case <-ctx.Done():
	}
	if last := f.last.Load(); last != nil {
		return *last
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: no answer in time: %w", ErrUnavailable, ctx.Err())
	}
	return fmt.Errorf("%w: no answer yet", ErrUnavailable)
}

// attempt remembers how a try failed, for those who do not wait for the next.
func (f *flight[V]) attempt(try func() (V, error)) (V, error) {
	value, err := try()
	if err != nil {
		f.last.Store(&err)
	}
	return value, err
}

// instead is the old value where it may stand in for what failed.
func (c *cell[K, V]) instead(q question[V], err error) (answer[V], error) {
	if c.known && q.instead(c.value, c.at, err) {
		return answer[V]{c.value, err}, nil
	}
	return answer[V]{}, err
}

// beginLocked starts a flight with a context of its own.
func (m *memory[K, V]) beginLocked(ctx context.Context, c *cell[K, V], q question[V]) {
	f := &flight[V]{done: make(chan struct{}), hurry: make(chan struct{}), at: m.now()}
	c.flight, c.hurried = f, false
	var old *V
	if c.known {
		value := c.value
		old = &value
	}
	ctx, cancel := context.WithTimeout(WithBudget(context.WithoutCancel(ctx), flightBudget), flightLimit)
	m.aloft++
	go func() {
		defer cancel()
		f.value, f.err = contained(func() (V, error) { return q.ask(ctx, old, f) })
		m.land(c, f, q)
		close(f.done)
	}()
}

// settle waits for all flights: what one brings is not to be lost.
func (m *memory[K, V]) settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.aloft > 0 {
		m.fewer.Wait()
	}
}

// contained turns a panic into an error: it would end the process, since a flight
// has a goroutine of its own.
func contained[V any](f func() (V, error)) (value V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Recovered(p)
		}
	}()
	return f()
}

// land keeps what a flight brought.
func (m *memory[K, V]) land(c *cell[K, V], f *flight[V], q question[V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.aloft--
	m.fewer.Broadcast()
	c.flight = nil
	if m.landed != nil && (f.err == nil || isAnswer(f.err)) {
		m.landed(c.value, f.value)
	}
	if f.err == nil && c.left && m.orphaned != nil {
		m.orphaned(f.value)
	}
	defer m.weighLocked(c)
	if f.err == nil {
		c.known, c.value, c.at, c.denial = true, f.value, f.at, denial{}
		return
	}
	pause := q.hold(f.err, c.denial.pause)
	if c.denial = (denial{}); pause > 0 {
		c.denial = denial{f.err, m.now(), pause}
	}
	if isAnswer(f.err) { // the end of the old value
		var none V
		c.known, c.value = false, none
	}
}

// isAnswer tells a failure that a store has spoken from one that says nothing.
func isAnswer(err error) bool {
	for _, kind := range []error{ErrDenied, ErrDoubt, ErrSession, ErrNotFound, ErrInvalid} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// weighLocked notes what a cell takes now. One that was evicted meanwhile is nobody's
// any more: those who wait have the value from the flight.
func (m *memory[K, V]) weighLocked(c *cell[K, V]) {
	if e := m.cells[c.key]; e == nil || e.Value != any(c) {
		return
	}
	m.bytes -= c.size
	c.size = m.cell
	if c.known {
		c.size += m.size(c.value)
	}
	if c.denial.err != nil {
		c.size += 2 * int64(len(c.denial.err.Error())) // what it wraps has most of the text again
	}
	m.bytes += c.size
	m.shrinkLocked()
}

// shrinkLocked makes room, but for the cell that was used last: first of what can be
// read again.
func (m *memory[K, V]) shrinkLocked() {
	for e := m.order.Back(); m.bytes > m.most && e != m.order.Front(); {
		before := e.Prev()
		if c, _ := e.Value.(*cell[K, V]); c.flight == nil && !m.lastsLocked(c) {
			m.evictLocked(e)
		}
		e = before
	}
	for m.bytes > m.most && m.order.Len() > 1 {
		if c, _ := m.order.Back().Value.(*cell[K, V]); m.lastsLocked(c) {
			m.crowded(c.value)
		}
		m.evictLocked(m.order.Back())
	}
}

func (m *memory[K, V]) lastsLocked(c *cell[K, V]) bool {
	return c.known && m.lasting != nil && m.lasting(c.value)
}

func (m *memory[K, V]) evictLocked(e *list.Element) {
	c, _ := m.order.Remove(e).(*cell[K, V])
	m.bytes -= c.size
	delete(m.cells, c.key)
}

// touchLocked finds the cell that somebody wants, or makes it.
func (m *memory[K, V]) touchLocked(key K) *cell[K, V] {
	e := m.cells[key]
	if e == nil {
		e = m.order.PushFront(&cell[K, V]{key: key, size: m.cell})
		m.cells[key] = e
		m.bytes += m.cell
		m.shrinkLocked()
	}
	return m.useLocked(e)
}

// useLocked is a cell that somebody wants.
func (m *memory[K, V]) useLocked(e *list.Element) *cell[K, V] {
	m.order.MoveToFront(e)
	c, _ := e.Value.(*cell[K, V])
	c.asked = m.sweeps
	return c
}

// sweep drops what nobody asked for since a number of sweeps, and returns what was
// known; flights end by themselves.
func (m *memory[K, V]) sweep(idle int) (dropped []V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweeps++
	return m.takeLocked(func(c *cell[K, V]) bool { return m.idleLocked(c, idle) && c.flight == nil })
}

// drop forgets the cells whose key fits, and returns what they knew.
func (m *memory[K, V]) drop(fits func(K) bool) (dropped []V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.takeLocked(func(c *cell[K, V]) bool {
		c.left = c.left || fits(c.key)
		return c.left
	})
}

// takeLocked evicts the cells that fit, and returns what they knew.
func (m *memory[K, V]) takeLocked(fits func(*cell[K, V]) bool) (taken []V) {
	for e := m.order.Back(); e != nil; {
		before := e.Prev()
		if c, _ := e.Value.(*cell[K, V]); fits(c) {
			m.evictLocked(e)
			if c.known {
				taken = append(taken, c.value)
			}
		}
		e = before
	}
	return taken
}

func (m *memory[K, V]) idleLocked(c *cell[K, V], idle int) bool { return m.sweeps-c.asked > idle }

// each calls f with every value that was asked for in that many sweeps.
func (m *memory[K, V]) each(idle int, f func(V)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := m.order.Front(); e != nil; e = e.Next() {
		if c, _ := e.Value.(*cell[K, V]); c.known && !m.idleLocked(c, idle) {
			f(c.value)
		}
	}
}

// held is how many bytes are remembered, about.
func (m *memory[K, V]) held() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}
