package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/store"
)

const (
	// A store without an answer, or with a fault, is probed again after probeSoon, and one
	// that answers after probeLater: its fault has to be seen, too, but is no hurry.
	probeSoon  = 5 * time.Second
	probeLater = time.Minute
	// probeLimit ends a probe: it has to be worth no more than a look.
	probeLimit = 30 * time.Second
)

// The reasons of events on keymount's own pod.
const (
	reasonFault    = "StoreFault"
	reasonSilent   = "StoreSilent"
	reasonAnswered = "StoreAnswered"
)

// readiness tells whether a rollout may go on to the next node: not while a store has a
// fault that waiting does not mend, nor for a while without an answer of a store. Mounts
// are served all the same, and nothing ends a process that is not ready.
type readiness struct {
	bound   time.Duration // how long a store without an answer counts
	began   time.Time
	metrics *observe.Metrics
	events  observe.EventWriter // nil writes none
	pod     auth.Pod            // keymount's own, which events are about; without a name there are none
	log     *slog.Logger

	mu     sync.Mutex
	stores []*watched
}

// watched is a store whose answers count.
type watched struct {
	name  string
	probe func(context.Context) error
	of    *readiness

	// What is known, guarded by of.mu.
	asked    bool   // at all
	answered bool   // at some time
	fault    bool   // at the last probe
	told     string // the reason of the last event
}

// watch begins with a store that has not answered yet.
func (r *readiness) watch(name string, probe func(context.Context) error) *watched {
	w := &watched{name: name, probe: probe, of: r}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stores = append(r.stores, w)
	return w
}

// ready tells how things stand.
func (r *readiness) ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.stores {
		if w.fault || !w.answered && time.Since(r.began) < r.bound {
			return false
		}
	}
	return true
}

// run asks again and again until ctx ends.
func (w *watched) run(ctx context.Context) error {
	for {
		pause := probeSoon
		if w.ask(ctx) {
			pause = probeLater
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.within(pause)):
		}
	}
}

// within is a pause that ends no later than the bound, so that its end is told on time.
func (w *watched) within(pause time.Duration) time.Duration {
	if left := w.of.bound - time.Since(w.of.began); left > 0 {
		return min(pause, left)
	}
	return pause
}

// ask probes once, and tells whether the store can be used.
func (w *watched) ask(ctx context.Context) bool {
	limited, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	err := contain.Run(func() error { return w.probe(limited) })
	if ctx.Err() != nil {
		return false // the end is no news of the store
	}
	w.note(ctx, err)
	return err == nil
}

// note takes over what a probe found.
func (w *watched) note(ctx context.Context, err error) {
	r := w.of
	r.metrics.Probed(w.name, err)
	r.mu.Lock()
	first := !w.asked
	w.asked = true
	w.fault = err != nil && !errors.Is(err, store.Unavailable)
	w.answered = w.answered || err == nil
	reason, before := w.reasonLocked(), w.told
	if reason == "" && err != nil { // which is no news: it is not well again
		reason = before
	}
	w.told = reason
	r.mu.Unlock()
	if first && errors.Is(err, store.Unavailable) {
		r.log.LogAttrs(ctx, slog.LevelWarn, "a store does not answer at the start", slog.String("store", w.name), slog.Any("error", err))
	}
	if reason != before {
		w.tell(ctx, reason, before, err)
	}
}

// reasonLocked is what there is to tell of; empty while all is well or may become so.
func (w *watched) reasonLocked() string {
	switch {
	case w.fault:
		return reasonFault
	case !w.answered && time.Since(w.of.began) >= w.of.bound:
		return reasonSilent
	}
	return ""
}

// tell tells the operator once of each change. The event has no word of the fault, which
// may name secrets.
func (w *watched) tell(ctx context.Context, reason, before string, err error) {
	attrs := []slog.Attr{slog.String("store", w.name)}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	switch reason {
	case reasonFault:
		w.of.log.LogAttrs(ctx, slog.LevelError, "not ready: a store has a fault that waiting does not mend", attrs...)
		w.of.event(w.name, reason, fmt.Sprintf("store %q has a fault that waiting does not mend; the log of this pod says which. keymount serves and is not ready", w.name))
	case reasonSilent:
		w.of.log.LogAttrs(ctx, slog.LevelWarn, "a store gave no answer since the start; it does not count for readiness any more", attrs...)
		w.of.event(w.name, reason, fmt.Sprintf("store %q gave no answer for %s; the log of this pod says more. A rollout does not wait for it any longer", w.name, w.of.bound))
	default:
		w.of.log.LogAttrs(ctx, slog.LevelInfo, "a store can be used again", slog.String("store", w.name), slog.String("after", before))
		w.of.event(w.name, reasonAnswered, fmt.Sprintf("store %q can be used again", w.name))
	}
}

// event is about keymount's own pod.
func (r *readiness) event(store, reason, message string) {
	switch {
	case r.events == nil || r.pod.Name == "" || r.pod.Namespace == "":
	case reason == reasonAnswered:
		r.events.Normal(r.pod, store, reason, message)
	default:
		r.events.Warning(r.pod, store, reason, message)
	}
}
