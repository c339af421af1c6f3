// Package room bounds the memory that parsed secrets take, whoever asks for them. All
// bounds are of bytes as Go holds them: parsed, a text can take fifty times its length.
//
// [Answers] bounds what answers of stores take: their texts, of a pool that leaves some to
// every namespace, and parsing, which is done in a lane for what is large. [Mounts] bounds the
// mounts, each by its [Share]: a small one is free, a larger one takes of another pool, and one
// that finds the pool too empty waits for one of two places, with nothing in its hands.
//
// No two wait for each other: whoever has a place in the lane waits for nothing, a text for the
// network and the lane, and a mount in its place for texts.
package room

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/turns"
)

const (
	// Small is what a mount may hold freely, and one answer take outside of the lane.
	Small = 512 << 10
	// Pool is what all mounts without a place may hold together beyond that.
	Pool = 24 << 20
	// texts is the pool for what is longer than Free in texts of answers.
	texts = 12 << 20
	// Large is what one answer may take parsed, and a mount hold in its place.
	Large = 12 << 20
	// Free is how much of the text of an answer is read freely.
	Free = 64 << 10

	// Places are those of mounts, and those of long texts for which the pool is too empty; each
	// is how many of them a namespace has at a time.
	Places = 2
	each   = 1
	// longWait is how long a text waits for its place: a connection whose answer is not read
	// for longer may be given up.
	longWait = 5 * time.Second
)

// ErrTooLarge says that an answer would take more than Large once it is parsed.
var ErrTooLarge = errors.New("too large: parsed, the secret would take more than 12 MiB of memory; split it")

// ErrNoPlace says that the time of a request ended before its answer had a place.
var ErrNoPlace = errors.New("other large answers come first")

// Answers bounds what the answers of stores take. It is safe for concurrent use.
type Answers struct {
	texts *pool
	long  *turns.Queue // of texts, to be read for which the pool is too empty
	lane  *turns.Queue // of large ones, to be parsed
}

// NewAnswers makes room for answers, of which this many large ones are parsed at a time: a
// process has one of [Parallel]. now is the clock.
func NewAnswers(parallel int, now func() time.Time) *Answers {
	return &Answers{newPool(texts), turns.New("long answers", Places, each, now), turns.New("large answers", parallel, each, now)}
}

// Parallel is two, or one where a second one would take the last processor.
func Parallel() int { return min(2, max(1, runtime.GOMAXPROCS(0)-1)) }

// Read reads an answer, of about most bytes at most, to its end and calls parse with it. It
// waits until ctx ends where parsing takes much, and for a while where a text is long and its
// namespace reads many of them. An error of from, ErrTooLarge or ErrNoPlace is an answer that
// was not parsed.
func (a *Answers) Read(ctx context.Context, of turns.Of, from io.Reader, most int, parse func(text []byte)) error {
	t := &text{from: from, most: most, pool: a.texts, namespace: of.Namespace}
	defer t.end()
	err := t.read()
	if errors.Is(err, errNoRoom) {
		soon, cancel := context.WithTimeout(ctx, longWait)
		leave, none := a.long.Take(soon, of)
		cancel()
		if none != nil {
			return fmt.Errorf("%w: %w", ErrNoPlace, none)
		}
		defer leave()
		t.placed = true
		err = t.read()
	}
	if err != nil {
		return err
	}
	switch weight, _ := secret.Weigh(t.bytes); {
	case weight > Large:
		return ErrTooLarge
	case weight <= Small:
		parse(t.bytes)
		return nil
	}
	entered := false
	err = a.lane.Do(ctx, of, func(context.Context) error {
		entered = true
		parse(t.bytes)
		return nil
	})
	if !entered {
		return fmt.Errorf("%w: %w", ErrNoPlace, err)
	}
	return err
}

// text is that of an answer, as far as it is read.
type text struct {
	from      io.Reader
	most      int // bytes that come, about
	bytes     []byte
	pool      *pool
	namespace string
	pooled    int64
	placed    bool // it takes nothing more of the pool
}

// errNoRoom says that the pool is too empty to read on.
var errNoRoom = errors.New("no room for a longer text")

// read reads on to the end.
func (t *text) read() error {
	for {
		if len(t.bytes) == cap(t.bytes) {
			if err := t.grow(); err != nil {
				return err
			}
		}
		n, err := t.from.Read(t.bytes[len(t.bytes):cap(t.bytes)])
		t.bytes = t.bytes[:len(t.bytes)+n]
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err //nolint:wrapcheck // the caller compares it
		}
	}
}

// grow makes room for twice the text. A short one has all of its room at once.
func (t *text) grow() error {
	const first = 4 << 10
	size := int64(min(max(2*cap(t.bytes), first), max(t.most, cap(t.bytes)+first)))
	if t.bytes == nil && t.most <= Free {
		size = int64(t.most)
	}
	if more := size - Free - t.pooled; !t.placed && more > 0 {
		if !t.pool.take(t.namespace, more) {
			return errNoRoom
		}
		t.pooled += more
	}
	t.bytes = append(make([]byte, 0, size), t.bytes...)
	return nil
}

func (t *text) end() {
	if t.pooled > 0 {
		t.pool.giveBack(t.namespace, t.pooled)
	}
}

// pool is memory that every namespace may take of.
type pool struct {
	mu   sync.Mutex
	free int64            // bytes
	held map[string]int64 // bytes, by namespace
}

func newPool(bytes int64) *pool { return &pool{free: bytes, held: map[string]int64{}} }

// take gives bytes to a namespace, unless it would have more than is left then: so there is
// something left for the next namespace, whatever the others hold.
func (p *pool) take(namespace string, bytes int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[namespace]+bytes > p.free-bytes {
		return false
	}
	p.free -= bytes
	p.held[namespace] += bytes
	return true
}

func (p *pool) giveBack(namespace string, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free += bytes
	if p.held[namespace] -= bytes; p.held[namespace] == 0 {
		delete(p.held, namespace)
	}
}

// Mounts bounds what the mounts of the process hold. It is safe for concurrent use.
type Mounts struct {
	pool   *pool
	places *turns.Queue
}

// NewMounts makes a pool of so many bytes and so many places: a process has one of [Pool]
// and [Places]. now is the clock.
func NewMounts(bytes int64, places int, now func() time.Time) *Mounts {
	return &Mounts{newPool(bytes), turns.New("large mounts", places, each, now)}
}

// Share is that of a mount without a place: Small, and more while the pool has it.
func (m *Mounts) Share(namespace string) *Share {
	return &Share{most: Small, pool: m.pool, namespace: namespace}
}

// Place waits for a place until ctx ends. Its Share has room for Large.
func (m *Mounts) Place(ctx context.Context, of turns.Of) (*Share, error) {
	leave, err := m.places.Take(ctx, of)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the queue
	}
	return &Share{most: Large, leave: leave}, nil
}

// Share is what one mount holds. It is safe for concurrent use.
type Share struct {
	most      int64
	pool      *pool // for more than most; nil for none
	namespace string
	leave     func() // the place; nil without one

	mu     sync.Mutex
	held   int64
	pooled int64 // of held
	full   bool
}

// Charge adds bytes that the mount holds; false when they are too many.
func (s *Share) Charge(bytes int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return false
	}
	s.held += int64(bytes)
	if more := s.held - s.most - s.pooled; more > 0 {
		if s.held > Large || s.pool == nil || !s.pool.take(s.namespace, more) {
			s.full = true
			return false
		}
		s.pooled += more
	}
	return true
}

// Full tells whether more was charged than there is room for: nothing more is to be read.
func (s *Share) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

// End gives all back, and the place. The mount holds nothing any more, and nothing more can
// be charged.
func (s *Share) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pooled > 0 {
		s.pool.giveBack(s.namespace, s.pooled)
	}
	s.pooled, s.full = 0, true
	if s.leave != nil {
		s.leave()
		s.leave = nil
	}
}
