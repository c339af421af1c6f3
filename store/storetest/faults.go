package storetest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/keymount/keymount/store"
)

// Faults are the ways in which a subject can be made to fail.
type Faults struct {
	// Fail makes the next answers failures of this reason.
	Fail func(reason store.Reason)
	// Never are the reasons never given by the subject. Each other one has to be seen; for
	// those that every subject has, see request.always.
	Never []store.Reason
	// Hang makes the next requests wait until their contexts end; its channel is closed
	// when the first one waits. It is nil for a store without a network.
	Hang func() (waiting <-chan struct{})
}

// Canary stands in secrets, and should stand in unreadable answers, and in no error.
const Canary = "canary-5e0f2b"

// soon bounds the time of a request after the end of its context. It is generous, so that
// only a hanging store fails.
const soon = 10 * time.Second

// reasons are all reasons of store.
func reasons() []store.Reason {
	return []store.Reason{store.NotFound, store.Denied, store.Unavailable, store.Ended, store.Doubt, store.Invalid}
}

// request is one way to ask a subject.
type request struct {
	name string
	send func(ctx context.Context) (answer any, err error)
}

// always are the reasons that the request has with every subject.
func (r request) always() []store.Reason {
	switch r.name {
	case "Read":
		return []store.Reason{store.NotFound, store.Unavailable}
	case "Login":
		return []store.Reason{store.Denied, store.Unavailable}
	}
	return []store.Reason{store.Unavailable}
}

// faulty checks how requests fail. Open makes a subject for each test.
func faulty(t *testing.T, open func(t *testing.T) (Faults, []request), secrets ...string) {
	t.Helper()
	_, requests := open(t)
	each := func(name string, test func(*testing.T, Faults, request)) {
		for i, r := range requests {
			t.Run(name+"/"+r.name, func(t *testing.T) {
				faults, requests := open(t)
				test(t, faults, requests[i])
			})
		}
	}
	for _, reason := range reasons() {
		each(string(reason), func(t *testing.T, f Faults, r request) { t.Helper(); f.testReason(t, r, reason, secrets) })
	}
	each("ended", func(t *testing.T, _ Faults, r request) { t.Helper(); testEnded(t, r, secrets) })
	each("hanging", func(t *testing.T, f Faults, r request) { t.Helper(); f.testHanging(t, r, secrets) })
}

func (f Faults) testReason(t *testing.T, r request, reason store.Reason, secrets []string) {
	t.Helper()
	if slices.Contains(f.Never, reason) {
		if slices.Contains(r.always(), reason) {
			t.Fatalf("%q is in Never, and is one of the reasons of every %s", reason, r.name)
		}
		t.Logf("the subject is never %q", reason)
		return
	}
	if f.Fail == nil {
		t.Fatalf("the subject cannot be made to fail; name %q in Never if it is none of its reasons", reason)
	}
	f.Fail(reason)
	answer, err := r.send(t.Context())
	if !errors.Is(err, reason) {
		t.Errorf("error = %v; want %q", err, reason)
	}
	checkNone(t, answer, err)
	checkError(t, err, secrets...)
}

// testEnded asks with an ended context: there is nothing to wait for.
func testEnded(t *testing.T, r request, secrets []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	checkSilence(t, within(t, r.start(ctx)), secrets)
}

// testHanging ends the context of a waiting request.
func (f Faults) testHanging(t *testing.T, r request, secrets []string) {
	t.Helper()
	if f.Hang == nil {
		t.Log("the subject never hangs")
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waiting := f.Hang()
	done := r.start(ctx)
	select {
	case <-waiting:
	case got := <-done:
		t.Fatalf("no waiting for the answer: %v", got.err)
	case <-time.After(soon):
		t.Fatalf("nothing was asked within %v", soon)
	}
	cancel()
	got := within(t, done)
	if got.err == nil {
		t.Error("an answer without the store")
	}
	checkSilence(t, got, secrets)
}

type outcome struct {
	answer any
	err    error
}

// start sends r in a goroutine, left behind if the subject hangs.
func (r request) start(ctx context.Context) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		answer, err := r.send(ctx)
		done <- outcome{answer, err}
	}()
	return done
}

func within(t *testing.T, done <-chan outcome) outcome {
	t.Helper()
	select {
	case got := <-done:
		return got
	case <-time.After(soon):
		t.Fatalf("no answer %v after the context ended", soon)
		return outcome{}
	}
}

// checkSilence checks an error after the end of a context, which is no answer of the
// store.
func checkSilence(t *testing.T, got outcome, secrets []string) {
	t.Helper()
	if got.err != nil && !errors.Is(got.err, store.Unavailable) {
		t.Errorf("error = %v; want %q", got.err, store.Unavailable)
	}
	checkNone(t, got.answer, got.err)
	checkError(t, got.err, secrets...)
}

// checkNone finds a value beside an error. A request without answers has nil.
func checkNone(t *testing.T, answer any, err error) {
	t.Helper()
	if err != nil && answer != nil && !reflect.ValueOf(answer).IsZero() {
		t.Error("a value came with the error")
	}
}
