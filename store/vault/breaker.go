package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/store"
)

const (
	// mostSilences is the number of attempts in a row without an answer that make an
	// address doubtful.
	mostSilences = 3
	// probeLimit ends a probe. An attempt that its caller gave up counts only if it
	// lasted as long.
	probeLimit = 2 * time.Second
	// An address out of reach is probed pauseFirst after the begin of the last probe, then
	// after pauses that double up to pauseMost, and never sooner than pauseLeast after its end:
	// an address that answers again is found out within about pauseMost, also where probes
	// hang to their limit.
	pauseFirst = time.Second
	pauseMost  = 2500 * time.Millisecond
	pauseLeast = 500 * time.Millisecond
)

// breaker lets requests to an address out of reach fail at once. Several attempts in a
// row without an answer, or one that ran to its limit, make the address doubtful, and
// the next request probes: it asks for the server's health before it goes on. Failed
// attempts alone do not open the breaker, since an engine that hangs or fails, or a
// class that makes it, must not cost others their secrets. Without an answer to a
// probe the breaker opens, and requests fail at once. After a pause one of them probes
// again, the others still fail; any answer closes the breaker.
type breaker struct {
	host string
	log  *slog.Logger
	back *recovery // of all addresses

	mu       sync.Mutex
	silences int       // in a row
	since    time.Time // of the first of them
	open     bool
	cause    string        // of the last probe, while open
	lasting  bool          // see [store.Error], while open
	pause    time.Duration // of the last probe, while open
	next     time.Time     // no probe before
	probing  bool
}

// recovery wakes all calls that wait for an address out of reach, when one answers again. The
// zero recovery is ready.
type recovery struct {
	mu   sync.Mutex
	back chan struct{}
}

// next is closed with the next answer of an address that was out of reach.
func (r *recovery) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back == nil {
		r.back = make(chan struct{})
	}
	return r.back
}

func (r *recovery) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back != nil {
		close(r.back)
		r.back = nil
	}
}

// silence is the error of an attempt without an answer.
type silence struct {
	failure *store.Error
	cause   string // without the server's own words, which are for the caller alone
	limit   bool   // the attempt ran to its limit
}

func (s *silence) Error() string { return s.failure.Error() }

func (s *silence) Unwrap() error { return s.failure }

// newSilence describes an attempt: uncertain if it may have been carried out, and
// ended by err, or by an answer if err is nil.
func newSilence(uncertain bool, cause string, said reasons, err error) *silence {
	return &silence{&store.Error{Reason: store.Unavailable, Said: said.after(cause), Uncertain: uncertain}, cause, errors.Is(err, context.DeadlineExceeded)}
}

// shut is the error of a request that an open breaker stops.
type shut struct{ failure *store.Error }

func (s *shut) Error() string { return s.failure.Error() }

func (s *shut) Unwrap() error { return s.failure }

// check is nil when a request can be sent now, or can probe.
func (b *breaker) check(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open && !b.dueLocked(now) {
		return b.shutLocked(now)
	}
	return nil
}

// enter tells whether a request may be sent: at once, after a probe of its own, or
// not (an error).
func (b *breaker) enter(now time.Time) (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	due := b.dueLocked(now)
	if b.open && !due {
		return false, b.shutLocked(now)
	}
	probe = due && (b.open || b.silences >= mostSilences)
	b.probing = b.probing || probe
	return probe, nil
}

// beginProbe claims the probe of an address out of reach; false while another is under way.
func (b *breaker) beginProbe() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	begins := b.open && !b.probing
	b.probing = b.probing || begins
	return begins
}

// dueLocked tells whether a probe is due, also after the clock was set back.
func (b *breaker) dueLocked(now time.Time) bool {
	pause := b.next.Sub(now)
	return !b.probing && (pause <= 0 || pause > pauseMost)
}

func (b *breaker) shutLocked(now time.Time) *shut {
	e := store.Unavailable.Errorf("%s (out of reach since %s)", b.cause, b.since.UTC().Format(time.RFC3339))
	e.RetryAfter = max(0, b.next.Sub(now)) // until the next probe; zero during one
	e.Back, e.Lasting = b.back.next(), b.lasting
	return &shut{e}
}

// silent notes an attempt without an answer. With enough it makes the address doubtful
// by itself, since it ran to its limit.
func (b *breaker) silent(enough bool, began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silences == 0 {
		b.since = began
	}
	b.silences++
	if enough {
		b.silences = max(b.silences, mostSilences)
	}
}

// answered closes the breaker after any request's answer.
func (b *breaker) answered(ctx context.Context, now time.Time) {
	b.mu.Lock()
	wasOpen, since := b.open, b.since
	b.open, b.silences = false, 0
	if b.probing { // an address doubtful again is not probed at once
		b.next = now.Add(pauseFirst)
	}
	b.mu.Unlock()
	if wasOpen {
		b.back.wake()
		b.log.LogAttrs(ctx, slog.LevelInfo, "a store's address answers again",
			slog.String("address", b.host), slog.String("after", now.Sub(since).Round(time.Second).String()))
	}
}

// probed ends a probe that began then. s is its failure; nil after an answer, and also when
// the caller gave up before one.
func (b *breaker) probed(ctx context.Context, s *silence, began, now time.Time) {
	b.mu.Lock()
	wasOpen := b.open
	b.probing = false
	if s != nil && b.silences > 0 { // no request got an answer meanwhile
		b.openLocked(s, began, now)
	}
	opens := b.open && !wasOpen
	b.mu.Unlock()
	if opens {
		b.log.LogAttrs(ctx, slog.LevelWarn, "a store's address is out of reach",
			slog.String("address", b.host), slog.String("cause", s.cause))
	}
}

func (b *breaker) openLocked(s *silence, began, now time.Time) {
	if b.open {
		b.pause = min(2*b.pause, pauseMost)
	} else {
		b.pause = pauseFirst
	}
	b.open, b.cause, b.lasting = true, s.cause, s.failure.Lasting
	pause := max(b.pause-now.Sub(began), pauseLeast)
	b.next = now.Add(pause - rand.N(pause/4)) //nolint:gosec // a jitter needs no unguessable numbers
}

func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

func (b *breaker) isProbed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probing
}

// probeAll probes all addresses at once when all are out of reach, so that one that answers
// again does not wait for those that hang. It returns with the first answer.
func (c *Conn) probeAll(ctx context.Context) {
	if len(c.breakers) == 1 || slices.ContainsFunc(c.breakers, func(b *breaker) bool { return !b.isOpen() }) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan int, len(c.breakers))
	probes := 0
	for i, b := range c.breakers {
		if b.beginProbe() {
			probes++
			go func() {
				defer func() { ended <- i }()
				_ = contain.Run(func() error { c.probe(ctx, i); return nil }) // a probe says nothing to its caller
			}()
		}
	}
	for range probes {
		if i := <-ended; !c.breakers[i].isOpen() {
			return
		}
	}
}

// order sorts the addresses for a request: first the one that answered last. One with
// a probe in flight is asked after the others.
func (c *Conn) order() []int {
	first := c.start()
	var order, probed []int
	for n := range c.bases {
		if i := (first + n) % len(c.bases); c.breakers[i].isProbed() {
			probed = append(probed, i)
		} else {
			order = append(order, i)
		}
	}
	return append(order, probed...)
}

// outOfReach is the error when no address can be asked now; nil when one can.
func (c *Conn) outOfReach() error {
	var refusals []error
	for _, b := range c.breakers {
		err := b.check(c.now())
		if err == nil {
			return nil
		}
		refusals = append(refusals, err)
	}
	return together(refusals)
}

// enter is nil when an address may be asked. One request at a time may have to probe
// it first.
func (c *Conn) enter(ctx context.Context, i int) error {
	b := c.breakers[i]
	probe, err := b.enter(c.now())
	if !probe {
		return err
	}
	c.probe(ctx, i)
	return b.check(c.now())
}

// probe asks for the server's health, which needs no token and makes nothing. The
// error of a standby is an answer, too.
func (c *Conn) probe(ctx context.Context, i int) {
	var s *silence
	began := c.now()
	defer func() { c.breakers[i].probed(ctx, s, began, c.now()) }()
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	_, _, err := c.exchange(limited, i, Request{Method: http.MethodGet, Path: "sys/health", Wants: ofHealth})
	if ctx.Err() == nil {
		s, _ = errors.AsType[*silence](err)
	}
}

// note tells the breaker of an attempt without an answer. One that its caller gave up
// tells nothing about the server, unless it lasted probeLimit.
func (c *Conn) note(ctx context.Context, i int, err error, began time.Time) {
	s, ok := errors.AsType[*silence](err)
	gaveUp := ctx.Err() != nil
	if !ok || gaveUp && c.now().Sub(began) < probeLimit {
		return
	}
	c.breakers[i].silent(s.limit && !gaveUp, began)
}

// together joins failures in one line. When no address was asked, its RetryAfter is
// the time until one will be, or Back ends it.
func together(failures []error) error {
	if len(failures) == 1 {
		return failures[0]
	}
	all := &store.Error{Reason: store.Unavailable, Cause: failures[0], Lasting: true}
	pause, asked := pauseMost, false
	for n, failure := range failures {
		if n > 0 {
			all.Cause = fmt.Errorf("%w; %w", all.Cause, failure)
		}
		e, _ := errors.AsType[*store.Error](failure)
		if s, ok := errors.AsType[*shut](failure); ok {
			pause = min(pause, s.failure.RetryAfter)
		} else {
			asked = true
			all.RetryAfter = max(all.RetryAfter, e.RetryAfter)
		}
		all.Uncertain, all.Lasting = all.Uncertain || e.Uncertain, all.Lasting && e.Lasting
		all.Back = cmp.Or(all.Back, e.Back) // one for all addresses
	}
	if !asked {
		all.RetryAfter = pause
	}
	return all
}
