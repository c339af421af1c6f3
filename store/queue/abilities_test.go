package queue_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/queue"
)

// able is a store with all abilities, whose requests wait until they are let.
type able struct {
	leases
	let chan struct{}

	mu     sync.Mutex
	served []string // classes, in the order in which they came in
}

func (a *able) serve(request login.Request) {
	a.mu.Lock()
	a.served = append(a.served, request.Volume.Class)
	a.mu.Unlock()
	<-a.let
}

func (a *able) Read(_ context.Context, request login.Request, _ store.Ref) (store.Value, error) {
	a.serve(request)
	return store.Value{}, nil
}

func (a *able) Resolve(_ context.Context, request login.Request, _ store.Ref) (store.Resolved, error) {
	a.serve(request)
	return store.Resolved{}, nil
}

func (a *able) Renew(_ context.Context, request login.Request, _ store.Lease) (store.Lease, error) {
	a.serve(request)
	return store.Lease{}, nil
}

func (a *able) Revoke(_ context.Context, request login.Request, _ store.Lease) error {
	a.serve(request)
	return nil
}

func (*able) Recall(login.Request, store.Ref) (store.Value, bool) {
	return store.Value{Version: "1"}, true
}

// ways are the ways to ask a store.
func ways(s login.Store) map[string]func(context.Context, login.Request) {
	return map[string]func(context.Context, login.Request){
		"read":    func(ctx context.Context, r login.Request) { _, _ = s.Read(ctx, r, store.Ref{}) },
		"resolve": func(ctx context.Context, r login.Request) { _, _ = s.Resolve(ctx, r, store.Ref{}) },
		"renew":   func(ctx context.Context, r login.Request) { _, _ = s.Renew(ctx, r, store.Lease{}) },
		"revoke":  func(ctx context.Context, r login.Request) { _ = s.Revoke(ctx, r, store.Lease{}) },
	}
}

// Each way to ask takes a place, and a pod that waits passes all but the pods that wait as
// it does: renewals and revocations are early enough, whatever their request says.
func TestLimitOfEachWayToAsk(t *testing.T) {
	for name, want := range map[string]string{
		"read": "first asked last", "resolve": "first asked last", "renew": "first last asked", "revoke": "first last asked",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &able{let: make(chan struct{})}
				limited := queue.Limit(login.Store{Reader: inner, Resolver: inner, Leaser: inner}, 1)
				ask := func(way, class string) {
					go ways(limited)[way](t.Context(), login.Request{
						Identity: auth.Identity{Namespace: "shop"}, Volume: auth.Volume{Class: class}, Waiting: true,
					})
					synctest.Wait()
				}
				ask(name, "first")
				ask(name, "asked")
				ask("read", "last")
				for n := range 3 {
					if got := len(inner.served); got != n+1 {
						t.Errorf("%d requests are in the store, want one", got-n)
					}
					inner.let <- struct{}{}
					synctest.Wait()
				}
				if got := strings.Join(inner.served, " "); got != want {
					t.Errorf("served %s, want %s", got, want)
				}
			})
		})
	}
}

// What a store recalls is no request, and waits for no place.
func TestLimitLetsRecallsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &able{let: make(chan struct{})}
		limited := queue.Limit(login.Store{Reader: inner, Recaller: inner}, 1)
		go func() { _, _ = limited.Read(t.Context(), login.Request{}, store.Ref{}) }()
		synctest.Wait()
		if value, known := limited.Recall(login.Request{}, store.Ref{}); !known || value.Version != "1" {
			t.Errorf("got %+v, %t", value, known)
		}
		close(inner.let)
		if limited.Resolver != nil || limited.Leaser != nil || queue.Limit(login.Store{Reader: inner}, 1).Recaller != nil {
			t.Error("an ability that the store lacks")
		}
	})
}
