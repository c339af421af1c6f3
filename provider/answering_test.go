package provider_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// answering is a [provider.Store] with the same answer each time.
type answering struct {
	answer keep.Answer

	mu       sync.Mutex
	requests []login.Request
	err      error
}

func (*answering) Recall(login.Request) keep.Recollection { return forgetful{} }

// forgetful has no secret at hand.
type forgetful struct{}

func (forgetful) Path(ref store.Ref) (store.Resolved, bool) {
	return store.Resolved{Path: ref.Path}, true
}

func (forgetful) Value(store.Ref, store.Resolved) (keep.Answer, bool) { return keep.Answer{}, false }

func (*answering) Resolve(_ context.Context, _ login.Request, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path}, nil
}

func (a *answering) Read(_ context.Context, request login.Request, _ store.Ref, _ store.Resolved) (keep.Answer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, request)
	return a.answer, a.err
}

// Refresh has a bug.
func (*answering) Refresh() { panic(canary) }

func newAnswering(t *testing.T) *answering {
	t.Helper()
	data, err := secret.NewTree(map[string]any{"password": canary})
	if err != nil {
		t.Fatal(err)
	}
	return &answering{answer: keep.Answer{Value: &store.Value{Data: data}, Source: keep.FromStore}}
}

// answeredBy has a world read from a.
func answeredBy(a *answering) func(*world, *setup) {
	return func(_ *world, s *setup) { s.options.Backends[0].Store = a }
}

// A store hears that a pod waits for its start, until the volume has been mounted, and
// of the volume.
func TestStoreKnowsThatAPodWaits(t *testing.T) {
	a := newAnswering(t)
	w := start(t, answeredBy(a))
	volume := w.volume(pod("shop", "api"), oneKey)
	for _, err := range []error{store.NotFound.Errorf("not yet"), nil, nil} {
		a.err = err
		_, _, _ = w.mount(t, volume)
	}
	var got []bool
	for _, r := range a.requests {
		got = append(got, r.Waiting)
		if r.Volume.Namespace != "shop" || r.Volume.PodUID != volume.Pod.UID || r.Volume.Class != "app" {
			t.Errorf("the volume is %+v", r.Volume)
		}
	}
	if diff := cmp.Diff([]bool{true, true, false}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Warnings of a store, and the reason for a value that stands in, are in the record.
func TestRecordOfTheStoresWarnings(t *testing.T) {
	a, h := newAnswering(t), &heard{}
	a.answer.Warnings = []string{"the path is deprecated"}
	a.answer.Source, a.answer.Cause = keep.Stale, store.Unavailable.Errorf("connection refused")
	w := start(t, answeredBy(a), heardBy(h))
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), oneKey)); err != nil {
		t.Fatal(err)
	}
	const name = `secret "shop/db" of store "default": `
	want := []string{
		name + "the path is deprecated",
		name + "the last known value stands in, since the store gives no answer: store unavailable: connection refused",
	}
	if diff := cmp.Diff(want, h.one(t).Warnings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A bug in a call beside the driver's ends that call and not the process.
func TestRefreshPanics(t *testing.T) {
	w := start(t, answeredBy(newAnswering(t)))
	connection, err := grpc.NewClient("unix://"+filepath.Clean(w.socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	err = provider.Refresh(t.Context(), connection)
	if err := errors.Join(connection.Close(), w.stop()); err != nil {
		t.Error(err)
	}
	if err == nil || !strings.Contains(err.Error(), codes.Internal.String()) {
		t.Errorf("got %v", err)
	}
	if log := string(w.log.Bytes()); !strings.Contains(log, `"level":"ERROR","msg":"call","rpc":"Refresh","code":"Internal"`) || !strings.Contains(log, `"stack":"`) {
		t.Errorf("the log has no bug:\n%s", log)
	}
}

// The bugs of all Recorders are in the record.
func TestTwoRecordersPanic(t *testing.T) {
	bug, h := recorderFunc(func(*record.Mount) error { panic(canary) }), &heard{}
	w := start(t, heardBy(bug, bug, h))
	_, _, _ = w.mount(t, w.volume(pod("shop", "api"), oneKey))
	if m := h.one(t); m.Bug == nil || strings.Count(m.Bug.Error(), "a bug of its own") != 2 {
		t.Errorf("the record has %v", m.Bug)
	}
}
