package node_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/store"
)

// ownPod collects events.
type ownPod struct{ told []string }

func (o *ownPod) Warning(pod auth.Pod, class, reason, message string) {
	o.told = append(o.told, fmt.Sprintf("Warning %s/%s %s %s: %s", pod.Namespace, pod.Name, class, reason, message))
}

func (o *ownPod) Normal(pod auth.Pod, class, reason, message string) {
	o.told = append(o.told, fmt.Sprintf("Normal %s/%s %s %s: %s", pod.Namespace, pod.Name, class, reason, message))
}

// world is a store that answers as a test says.
type world struct {
	*node.Readiness
	events ownPod
	log    bytes.Buffer

	mu    sync.Mutex // orders what the test does before a probe
	says  error
	asked int
}

func watch(t *testing.T, bound time.Duration, says error) *world {
	t.Helper()
	w := &world{says: says}
	w.Readiness = node.NewReadiness(bound, &w.events, auth.Pod{Namespace: "keymount", Name: "keymount-x"}, slog.New(slog.NewTextHandler(&w.log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	run := w.Watch("prod", func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked++
		return w.says
	})
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return w
}

// after lets time go by.
func (w *world) after(d time.Duration) {
	w.mu.Lock()
	w.mu.Unlock() //nolint:staticcheck // it orders what the test did before the probes that follow
	<-time.After(d)
	synctest.Wait()
}

func (w *world) want(t *testing.T, ready bool) {
	t.Helper()
	if got := w.Ready(); got != ready {
		t.Errorf("at %s: ready is %v, want %v\n%s", time.Now(), got, ready, w.log.String())
	}
}

const ownPodsStore = "keymount/keymount-x prod "

// A store that answers makes ready at once, and is not asked much.
func TestReadyByAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 2*time.Minute, nil)
		w.want(t, true)
		w.after(time.Hour)
		if w.asked > 62 || len(w.events.told) > 0 || w.log.Len() > 0 {
			t.Errorf("asked %d times in an hour, told %q, logged %s", w.asked, w.events.told, w.log.String())
		}
		w.says = store.Unavailable.Errorf("gone") // an outage is no reason to stop a rollout
		w.after(time.Hour)
		w.want(t, true)
	})
}

// Without an answer it is not ready until the bound, and ready from then on, which is told.
func TestReadyWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 2*time.Minute, store.Unavailable.Errorf("no route"))
		w.want(t, false)
		w.after(2*time.Minute - time.Second)
		w.want(t, false)
		if len(w.events.told) > 0 {
			t.Errorf("told before the bound: %q", w.events.told)
		}
		w.after(time.Second)
		w.want(t, true)
		w.after(time.Hour)
		w.says = nil
		w.after(time.Minute)
		w.want(t, true)
		want := []string{
			"Warning " + ownPodsStore + `StoreSilent: store "prod" gave no answer for 2m0s; the log of this pod says more. A rollout does not wait for it any longer`,
			"Normal " + ownPodsStore + `StoreAnswered: store "prod" can be used again`,
		}
		if diff := cmp.Diff(want, w.events.told); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

// A fault is not ready for as long as it lasts, whenever it comes.
func TestNotReadyByAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 2*time.Minute, store.Invalid.Errorf("canary of the fault"))
		w.want(t, false)
		w.after(time.Hour)
		w.want(t, false)
		w.says = nil
		w.after(6 * time.Second)
		w.want(t, true)
		w.says = store.Invalid.Errorf("again")
		w.after(time.Minute)
		w.want(t, false)
		w.says = store.Unavailable.Errorf("gone") // what is known of it is that it answered once
		w.after(time.Minute)
		w.want(t, true)
		want := []string{
			"Warning " + ownPodsStore + `StoreFault: store "prod" has a fault that waiting does not mend; the log of this pod says which. keymount serves and is not ready`,
			"Normal " + ownPodsStore + `StoreAnswered: store "prod" can be used again`,
			"Warning " + ownPodsStore + `StoreFault: store "prod" has a fault that waiting does not mend; the log of this pod says which. keymount serves and is not ready`,
		}
		if diff := cmp.Diff(want, w.events.told); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
		if n := strings.Count(w.log.String(), "canary of the fault"); n != 1 {
			t.Errorf("the log has the fault %d times, want once:\n%s", n, w.log.String())
		}
	})
}

// A bound of zero waits for no answer, and a panic of a probe ends nothing.
func TestReadyBoundOfZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, 0, store.Unavailable.Errorf("no route"))
		w.want(t, true)
	})
	synctest.Test(t, func(t *testing.T) {
		r := node.NewReadiness(time.Minute, nil, auth.Pod{}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Watch("prod", func(context.Context) error { panic("a probe's") })(ctx); err != nil {
			t.Error(err)
		}
		if r.Ready() {
			t.Error("ready with a probe that panics")
		}
	})
}

// A store that does not answer at the start is told of once; what comes later is another's news.
func TestSilenceAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const want = `level=WARN msg="a store does not answer at the start" store=prod error="store unavailable: away"`
		w := watch(t, time.Minute, store.Unavailable.Errorf("away"))
		w.after(30 * time.Second)
		if text := w.log.String(); strings.Count(text, want) != 1 || strings.Count(text, "\n") != 1 {
			t.Errorf("the log has\n%s", text)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, time.Minute, nil)
		w.mu.Lock()
		w.says = store.Unavailable.Errorf("away")
		w.mu.Unlock()
		w.after(10 * time.Minute)
		if text := w.log.String(); text != "" {
			t.Errorf("the log has\n%s", text)
		}
	})
}
