package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/keymount/keymount/store"
)

const (
	// mostSilences is how many attempts in a row get no answer before an address is
	// doubted.
	mostSilences = 3
	// probeLimit ends a probe. It is also what an attempt must have lasted at least to
	// say something when its caller gave up.
	probeLimit = 2 * time.Second
	// An address out of reach is probed after pauseFirst, then after pauses that
	// double up to pauseMost.
	pauseFirst = time.Second
	pauseMost  = 15 * time.Second
)

// breaker spares requests to an address that is out of reach the time to find that
// out. When several attempts in a row got no answer, or one did not within its limit,
// the address is doubted, and the next request probes: it asks for the server's health
// before it goes on. It is not the failures themselves that count, since an engine
// that hangs or fails, or a class that makes it, must not cost others their secrets.
// Without an answer to a probe the breaker opens, and requests fail at once. After a
// pause one of them probes again, the others still fail; any answer closes it.
type breaker struct {
	host string
	log  *slog.Logger

	mu       sync.Mutex
	silences int       // in a row
	since    time.Time // of the first of them
	open     bool
	cause    string        // of the last probe, while open
	pause    time.Duration // of the last probe, while open
	next     time.Time     // no probe before
	probing  bool
}

// silence is an error of an address that gave no answer.
type silence struct {
	error
	cause string // without what the server said, which is for its caller alone
	limit bool   // the attempt ran to its limit
}

func (s *silence) Unwrap() error { return s.error }

// newSilence is of a kind of store; err is how the attempt ended, nil for an answer.
func newSilence(kind error, cause, said string, err error) *silence {
	return &silence{fmt.Errorf("%w: %s%s", kind, cause, said), cause, errors.Is(err, context.DeadlineExceeded)}
}

// shut is the error of an address that is not asked now.
type shut struct {
	text  string
	pause time.Duration // until the next probe; none is left while there is one
}

func (s *shut) Error() string { return store.ErrUnavailable.Error() + ": " + s.text }

func (s *shut) Unwrap() error { return store.ErrUnavailable }

// refusal is why a request cannot be sent now; nil when it can, or can probe.
func (b *breaker) refusal(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open && !b.dueLocked(now) {
		return b.shutLocked(now)
	}
	return nil
}

// enter tells whether a request may be sent: at once, or after whoever asks has
// probed, or not.
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

// dueLocked tells whether it is time for a probe, also after the clock was set back.
func (b *breaker) dueLocked(now time.Time) bool {
	pause := b.next.Sub(now)
	return !b.probing && (pause <= 0 || pause > pauseMost)
}

func (b *breaker) shutLocked(now time.Time) *shut {
	return &shut{
		text:  fmt.Sprintf("%s (out of reach since %s)", b.cause, b.since.UTC().Format(time.RFC3339)),
		pause: max(0, b.next.Sub(now)),
	}
}

// silent notes an attempt without an answer, and when it began. One that ran to its
// limit is enough to doubt the address.
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

// answered closes the breaker, whoever got the answer.
func (b *breaker) answered(ctx context.Context, now time.Time) {
	b.mu.Lock()
	wasOpen, since := b.open, b.since
	b.open, b.silences = false, 0
	if b.probing { // doubted again, it is not probed again at once
		b.next = now.Add(pauseFirst)
	}
	b.mu.Unlock()
	if wasOpen {
		b.log.LogAttrs(ctx, slog.LevelInfo, "a store's address answers again",
			slog.String("address", b.host), slog.String("after", now.Sub(since).Round(time.Second).String()))
	}
}

// probed ends a probe. Without an answer, s says why; it is nil, too, when the caller
// gave up and nobody knows.
func (b *breaker) probed(ctx context.Context, s *silence, now time.Time) {
	b.mu.Lock()
	wasOpen := b.open
	b.probing = false
	if s != nil && b.silences > 0 { // nobody got an answer meanwhile
		b.openLocked(s.cause, now)
	}
	opens := b.open && !wasOpen
	b.mu.Unlock()
	if opens {
		b.log.LogAttrs(ctx, slog.LevelWarn, "a store's address is out of reach",
			slog.String("address", b.host), slog.String("cause", s.cause))
	}
}

func (b *breaker) openLocked(cause string, now time.Time) {
	if b.open {
		b.pause = min(2*b.pause, pauseMost)
	} else {
		b.pause = pauseFirst
	}
	b.open, b.cause = true, cause
	b.next = now.Add(b.pause - rand.N(b.pause/4)) //nolint:gosec // a jitter needs no unguessable numbers
}

func (b *breaker) isProbed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.probing
}

// order is the addresses in the order in which to ask them, from the one that
// answered last. One that somebody is just probing has time until the others failed.
func (c *Conn) order() []int {
	first := c.start()
	var order, later []int
	for n := range c.bases {
		if i := (first + n) % len(c.bases); c.breakers[i].isProbed() {
			later = append(later, i)
		} else {
			order = append(order, i)
		}
	}
	return append(order, later...)
}

// outOfReach is why no address can be asked now; nil when one can.
func (c *Conn) outOfReach() error {
	var refusals []error
	for _, b := range c.breakers {
		err := b.refusal(c.now())
		if err == nil {
			return nil
		}
		refusals = append(refusals, err)
	}
	return together(refusals)
}

// enter is nil when an address may be asked. One request at a time may have to find
// that out.
func (c *Conn) enter(ctx context.Context, i int) error {
	b := c.breakers[i]
	probe, err := b.enter(c.now())
	if !probe {
		return err
	}
	c.probe(ctx, i)
	return b.refusal(c.now())
}

// probe asks the server itself, which needs no token and makes nothing. A standby
// answers with an error that is an answer, too.
func (c *Conn) probe(ctx context.Context, i int) {
	var s *silence
	defer func() { c.breakers[i].probed(ctx, s, c.now()) }()
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	_, _, err := c.exchange(limited, i, Request{Method: http.MethodGet, Path: "sys/health"})
	if ctx.Err() == nil {
		s, _ = errors.AsType[*silence](err)
	}
}

// note tells the breaker of an attempt without an answer. One whose caller gave up
// says nothing of the server, unless that took long.
func (c *Conn) note(ctx context.Context, i int, err error, began time.Time) {
	s, ok := errors.AsType[*silence](err)
	gaveUp := ctx.Err() != nil
	if !ok || gaveUp && c.now().Sub(began) < probeLimit {
		return
	}
	c.breakers[i].silent(s.limit && !gaveUp, began)
}

// together is all failures in one line. When no address was asked, it says how soon
// one will be.
func together(failures []error) error {
	err, pause, asked := failures[0], pauseMost, false
	for n, failure := range failures {
		if n > 0 {
			err = fmt.Errorf("%w; %w", err, failure)
		}
		if s, ok := errors.AsType[*shut](failure); ok {
			pause = min(pause, s.pause)
		} else {
			asked = true
		}
	}
	if asked {
		return err
	}
	return store.RetryAfter(err, pause)
}
