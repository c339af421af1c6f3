package keep

import (
	"container/list"
	"context"
	"errors"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/inflight"
	"github.com/keymount/keymount/store"
)

// flightLimit ends one read for all its waiters; the read outlives the mount that began it.
const flightLimit = 25 * time.Second

// maxPause is the longest time that a failure is the answer without a request to the store.
const maxPause = time.Minute

// memory remembers answers by key, and merges concurrent questions with one key into one
// flight. Its pool bounds it in bytes, and gives each namespace a share of them, see shares.go.
// It is safe for concurrent use.
type memory[K comparable, V any] struct {
	pool *Pool
	now  func() time.Time
	size func(V) int64
	cell int64 // size of a cell without its answer, in bytes
	// onAnswer is called, with the lock held, with the value before an answer and the answer
	// itself, either of which may be zero. nil is none.
	onAnswer func(before, now V)
	// onSilence changes the value that stays when the store does not answer a flight. nil is
	// none.
	onSilence func(V) V
	// rankOf tells when a value is evicted for room; onEvict is called with each made one,
	// with the lock held.
	rankOf  func(V) rank
	onEvict func(V)
	// full is the error of a flight that would make a value without room for it.
	full func(namespace string) error
	// onLate is called, with the lock held, with an answer whose cell was dropped in flight,
	// or for which there is no room. nil is none.
	onLate func(V)
	// countsRereads counts values that were evicted and read again.
	countsRereads bool

	flights *inflight.Group

	// The lock of the pool guards the rest.
	cells     map[K]*cell[K, V]
	bytes     int64
	uses      uint64 // number of uses of cells
	sweeps    int
	evictions uint64
}

// cell is the state of one question.
type cell[K comparable, V any] struct {
	memory    *memory[K, V]
	key       K
	namespace string
	known     bool
	value     V
	at        time.Time // start of the read of value
	use       uint64    // number of the last use
	lastUsed  int       // number of sweeps at the last use
	denial    denial
	flight    *flight[V]
	dropped   bool // by drop
	// joined tells whether the joined channel of the flight is closed.
	joined bool
	// refused is the size of the last value made for the cell without room for it.
	refused int64
	weight  weight
}

// denial is a failure that is the answer for a pause.
type denial struct {
	err   error
	since time.Time
	pause time.Duration
}

func (d denial) counts(now time.Time) bool {
	age := now.Sub(d.since)
	return d.err != nil && age >= 0 && age < d.pause && !d.isOver() // the clock may have been set back
}

// isOver tells whether the store has answered since.
func (d denial) isOver() bool {
	e, ok := errors.AsType[*store.Error](d.err)
	if !ok {
		return false
	}
	select {
	case <-e.Back:
		return true
	default:
		return false
	}
}

// flight is a question in flight.
type flight[V any] struct {
	done    chan struct{}
	joined  chan struct{}         // closed when a pod that cannot start joins
	lastErr atomic.Pointer[error] // of the attempts that failed so far
	value   V
	at      time.Time // start: the value is no older
	err     error
}

func newMemory[K comparable, V any](pool *Pool, size func(V) int64, rankOf func(V) rank, flights *inflight.Group, now func() time.Time) *memory[K, V] {
	m := &memory[K, V]{pool: pool, now: now, size: size, rankOf: rankOf, flights: flights, cells: map[K]*cell[K, V]{}}
	var entry struct { // an entry of the map, which may be half empty
		key  K
		cell *cell[K, V]
	}
	m.cell = int64(unsafe.Sizeof(cell[K, V]{}) + unsafe.Sizeof(list.Element{}) + 2*unsafe.Sizeof(entry)) //nolint:gosec // G115: some hundred
	return m
}

// question says how to get one answer.
type question[V any] struct {
	// fresh tells whether a value read at a time is used without a flight.
	fresh func(v V, at time.Time) bool
	// ask gets a new value, through the attempts of a flight. Its ctx belongs to no single
	// caller; old is the value to replace, nil without one.
	ask func(ctx context.Context, old *V, f *flight[V]) (V, error)
	// makes says that the flight may make a value, for which there has to be room.
	makes bool
	// waiting says that a pod cannot start until this is answered.
	waiting bool
	// instead tells whether the old value may answer in place of a failure.
	instead func(v V, at time.Time, err error) bool
	// pause is how long a failure is the answer for all callers, given the pause before it.
	pause func(err error, before time.Duration) time.Duration
}

// answer is a value and its source.
type answer[V any] struct {
	value  V
	source Source
	cause  error // of a stale value: the failure of the flight; nil otherwise
}

// patience is how long to wait for a flight where the old value may answer.
const patience = 2 * time.Second

// get answers from memory or from a flight. Callers with one key share a flight, which
// continues when any of them gives up.
func (m *memory[K, V]) get(ctx context.Context, namespace string, key K, q question[V]) (answer[V], error) {
	m.pool.mu.Lock()
	c := m.touchLocked(namespace, key)
	if c.known && q.fresh(c.value, c.at) {
		defer m.pool.mu.Unlock()
		return answer[V]{value: c.value, source: FromMemory}, nil
	}
	if c.denial.counts(m.now()) {
		defer m.pool.mu.Unlock()
		return c.instead(q, c.denial.err)
	}
	if c.flight == nil {
		if q.makes && !c.known && !m.reserveLocked(c) {
			defer m.pool.mu.Unlock()
			return answer[V]{}, m.full(namespace)
		}
		if !c.known && m.countsRereads {
			m.pool.rereads.read(namespace, hashOf(m.pool, key)) //nolint:contextcheck // its warning is about many reads
		}
		m.beginLocked(ctx, c, q)
	}
	f, enough := c.flight, time.Duration(-1)
	if q.waiting && !c.joined {
		c.joined = true
		close(f.joined)
	}
	if c.known && q.instead(c.value, c.at, store.Unavailable) {
		enough = max(0, patience-m.now().Sub(f.at))
	}
	m.pool.mu.Unlock()
	err := f.wait(ctx, enough)
	if err == nil {
		return answer[V]{value: f.value, source: FromStore}, nil
	}
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return c.instead(q, err)
}

// recall returns the fresh value of a key, if there is one.
func (m *memory[K, V]) recall(namespace string, key K, fresh func(v V, at time.Time) bool) (value V, known bool) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	c := m.cells[key]
	if c == nil {
		return value, false
	}
	if m.useLocked(c, namespace); c.known && fresh(c.value, c.at) {
		return c.value, true
	}
	return value, false
}

// wait waits for the end of a flight until ctx ends, or for limit unless it is negative.
func (f *flight[V]) wait(ctx context.Context, limit time.Duration) error {
	var enough <-chan time.Time
	if limit >= 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-f.done:
		return f.err
	case <-enough:
	case <-ctx.Done():
	}
	if last := f.lastErr.Load(); last != nil {
		return *last
	}
	if ctx.Err() != nil {
		return &store.Error{Reason: store.Unavailable, Said: "no answer in time", Cause: context.Cause(ctx)}
	}
	return store.Unavailable.Errorf("no answer yet")
}

// attempt remembers the error of a failed try, for waiters that give up before the next try.
func (f *flight[V]) attempt(try func() (V, error)) (V, error) {
	value, err := try()
	if err != nil {
		f.lastErr.Store(&err)
	}
	return value, err
}

// instead answers with the old value where it may replace the failure.
func (c *cell[K, V]) instead(q question[V], err error) (answer[V], error) {
	if c.known && q.instead(c.value, c.at, err) {
		return answer[V]{c.value, Stale, err}, nil
	}
	return answer[V]{}, err
}

// beginLocked starts a flight with a context of its own.
func (m *memory[K, V]) beginLocked(ctx context.Context, c *cell[K, V], q question[V]) {
	f := &flight[V]{done: make(chan struct{}), joined: make(chan struct{}), at: m.now()}
	c.flight, c.joined = f, false
	m.cells[c.key] = c
	var old *V
	if c.known {
		value := c.value
		old = &value
	}
	ctx, end := m.flights.Begin(ctx, flightLimit)
	go func() {
		defer end()
		f.value, f.err = contain.Do(func() (V, error) { return q.ask(ctx, old, f) })
		m.finish(c, f, q)
		close(f.done)
	}()
}

// finish stores the result of a flight.
func (m *memory[K, V]) finish(c *cell[K, V], f *flight[V], q question[V]) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	c.flight = nil
	m.admitLocked(c, f)
	if m.onAnswer != nil && (f.err == nil || store.Answered(f.err)) {
		m.onAnswer(c.value, f.value)
	}
	if f.err == nil && c.dropped && m.onLate != nil {
		m.onLate(f.value)
	}
	defer m.settleLocked(c)
	if f.err == nil {
		c.known, c.value, c.at, c.denial = true, f.value, f.at, denial{}
		return
	}
	pause := q.pause(f.err, c.denial.pause)
	if c.denial = (denial{}); pause > 0 {
		c.denial = denial{f.err, m.now(), pause}
	}
	switch {
	case store.Answered(f.err): // so the old value ends
		var none V
		c.known, c.value = false, none
	case c.known && m.onSilence != nil:
		c.value = m.onSilence(c.value)
	}
}

// admitLocked refuses a new value without room for it: the next mount would make another.
func (m *memory[K, V]) admitLocked(c *cell[K, V], f *flight[V]) {
	c.refused = 0
	if f.err != nil || m.cells[c.key] != c || m.rankOf(f.value) != made || m.isMade(c) {
		return
	}
	m.liftLocked(c)
	t, size := m.pool.tenantLocked(c.namespace), m.cell+m.size(f.value)
	if !m.pool.roomLocked(t, t.madeBytes+size) {
		m.onLate(f.value)
		var none V
		f.value, f.err, c.refused = none, m.full(c.namespace), size
	}
	m.pool.leaveLocked(t)
}

// settleLocked updates the weight of a cell after a flight. A removed cell has none: its
// waiters get the value from the flight.
func (m *memory[K, V]) settleLocked(c *cell[K, V]) {
	if m.cells[c.key] != c {
		return
	}
	if !c.known && c.denial.err == nil && c.refused == 0 {
		m.removeLocked(c)
		return
	}
	size, r := m.cell, again
	if c.known {
		size, r = size+m.size(c.value), m.rankOf(c.value)
	}
	if c.refused > 0 {
		r = made
	}
	if c.denial.err != nil {
		size += 2 * int64(len(c.denial.err.Error())) // the wrapped error repeats most of the text
	}
	m.weighLocked(c, size, r)
	if t := c.weight.tenant; r != made && !m.pool.roomLocked(t, t.madeBytes+size) {
		m.evictLocked(c) // too large, so that evicting others would not help
	}
	m.pool.shrinkLocked()
}

func (m *memory[K, V]) isMade(c *cell[K, V]) bool { return c.known && m.rankOf(c.value) == made }

func (m *memory[K, V]) removeLocked(c *cell[K, V]) {
	m.liftLocked(c)
	delete(m.cells, c.key)
}

// touchLocked returns the cell of a key, made if missing, and marks it used. The memory holds
// a new cell from its first flight on.
func (m *memory[K, V]) touchLocked(namespace string, key K) *cell[K, V] {
	c := m.cells[key]
	if c == nil {
		c = &cell[K, V]{memory: m, key: key, namespace: namespace}
	}
	m.useLocked(c, namespace)
	return c
}

// useLocked marks a cell used. A cell restored from an old snapshot learns its namespace.
func (m *memory[K, V]) useLocked(c *cell[K, V], namespace string) {
	m.uses++
	c.use, c.lastUsed = m.uses, m.sweeps
	if c.weight.tenant == nil {
		return
	}
	if c.namespace != namespace {
		c.namespace = namespace
		m.weighLocked(c, c.weight.size, c.weight.rank)
	}
	c.weight.orderLocked().MoveToFront(c.weight.element)
}

// sweep evicts cells without a use for idle sweeps, and returns their values. It spares cells
// in flight.
func (m *memory[K, V]) sweep(idle int) (dropped []V) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	m.sweeps++
	return m.takeLocked(func(c *cell[K, V]) bool { return m.idleLocked(c, idle) && c.flight == nil })
}

// drop evicts the cells with a fitting key, in flight or not, and returns their values.
func (m *memory[K, V]) drop(fits func(K) bool) (dropped []V) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return m.takeLocked(func(c *cell[K, V]) bool {
		c.dropped = c.dropped || fits(c.key)
		return c.dropped
	})
}

// takeLocked removes the fitting cells, and returns their values.
func (m *memory[K, V]) takeLocked(fits func(*cell[K, V]) bool) (taken []V) {
	for _, c := range m.cells {
		if !fits(c) {
			continue
		}
		m.removeLocked(c)
		if c.known {
			taken = append(taken, c.value)
		}
	}
	return taken
}

func (m *memory[K, V]) idleLocked(c *cell[K, V], idle int) bool { return m.sweeps-c.lastUsed > idle }

// each calls f with every value used within idle sweeps.
func (m *memory[K, V]) each(idle int, f func(V)) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	for _, c := range m.cells {
		if c.known && !m.idleLocked(c, idle) {
			f(c.value)
		}
	}
}

// held is the memory of all cells in bytes, approximately.
func (m *memory[K, V]) held() int64 {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return m.bytes
}

// evicted counts the answers evicted for room.
func (m *memory[K, V]) evicted() uint64 {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return m.evictions
}
