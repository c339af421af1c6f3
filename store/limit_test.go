package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/storetest"
)

func TestLimitKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, secrets map[string]map[string]any) (store.Store, store.Session) {
		memory := storetest.NewMemory()
		for path, data := range secrets {
			memory.Set(path, data)
		}
		return store.Limit(memory, 2), store.Session{}
	})
}

// desk is a store with a queue before it, all in the hands of the test. It is used
// within a synctest bubble.
type desk struct {
	store.Store
	t   *testing.T
	let chan struct{}

	mu     sync.Mutex
	served []string // who got in, in that order
	asked  map[string]int
}

func newDesk(t *testing.T, places int) *desk {
	t.Helper()
	d := &desk{t: t, let: make(chan struct{}), asked: map[string]int{}}
	d.Store = store.Limit(storeFunc(func(_ context.Context, session store.Session) error {
		d.mu.Lock()
		d.served = append(d.served, session.Class)
		d.mu.Unlock()
		<-d.let
		return nil
	}), places)
	return d
}

type storeFunc func(context.Context, store.Session) error

func (f storeFunc) Read(ctx context.Context, session store.Session, _ store.Ref) (store.Value, error) {
	return store.Value{}, f(ctx, session)
}

// come has somebody of a namespace come, called like it with a number: in capital
// letters when a pod waits to start. It returns when he is in or has queued.
func (d *desk) come(ctx context.Context, name string) <-chan error {
	d.t.Helper()
	d.asked[name]++
	session := store.Session{
		Identity: auth.Identity{Namespace: strings.ToLower(name)}, Class: fmt.Sprint(name, d.asked[name]), Waiting: name != strings.ToLower(name),
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Read(ctx, session, store.Ref{})
		done <- err
	}()
	synctest.Wait()
	return done
}

func (d *desk) all(names ...string) {
	d.t.Helper()
	for _, name := range names {
		d.come(d.t.Context(), name)
	}
}

// finish lets whoever is in go, one after the other.
func (d *desk) finish(n int) {
	for range n {
		d.let <- struct{}{}
		synctest.Wait()
	}
}

func (d *desk) check(want string) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if got := strings.Join(d.served, " "); got != want {
		d.t.Errorf("served\n%s, want\n%s", got, want)
	}
}

func TestLimitLetsThePodThatWaitsPassAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 2)
		d.all(slices.Repeat([]string{"a"}, 1000)...)
		d.all("B")
		d.check("a1 a2")
		d.finish(2)
		d.check("a1 a2 B1 a3")
		d.finish(999)
	})
}

func TestLimitTakesTurns(t *testing.T) {
	for name, test := range map[string]struct{ come, want string }{
		"the first to come":        {"a a a", "a1 a2 a3"},
		"namespaces":               {"a a a a b b c", "a1 a2 b1 c1 a3 b2 a4"},
		"those who wait":           {"a A A A B C C", "a1 A1 B1 C1 A2 C2 A3"},
		"republishes are not lost": {"a b b c A A A A A B B", "a1 A1 B1 A2 b1 B2 A3 A4 c1 A5 b2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, 1)
				come := strings.Fields(test.come)
				d.all(come...)
				d.finish(len(come))
				d.check(test.want)
			})
		})
	}
}

// A namespace that comes back has to wait for the turn of the others.
func TestLimitForgetsNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1)
		d.all("a", "a", "b", "b")
		d.finish(1)
		d.all("a", "a")
		d.finish(2)
		d.all("c", "a")
		d.finish(5)
		d.check("a1 a2 b1 a3 b2 a4 c1 a5")
	})
}

func TestLimitIsLeftWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 1)
		ctx, cancel := context.WithCancelCause(t.Context())
		d.all("a", "b")
		gone := []<-chan error{d.come(ctx, "c"), d.come(ctx, "b"), d.come(ctx, "A")}
		d.all("b", "d")
		why := errors.New("the pod was deleted")
		cancel(why)
		for _, done := range gone {
			err := <-done
			if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, why) {
				t.Errorf("got %v", err)
			}
		}
		d.finish(4)
		d.check("a1 b1 d1 b3")
	})
}

func TestLimitSaysWhatItWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 2)
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		d.all("a", "a", "a", "b")
		began := time.Now()
		const want = "store unavailable: waited for a place among the 2 requests that it gets at a time, as did 2 others: context deadline exceeded"
		if err := <-d.come(ctx, "c"); err == nil || err.Error() != want || time.Since(began) != 25*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		d.finish(4)
	})
}

// A store that panics has its place taken back.
func TestLimitOutlivesAPanic(t *testing.T) {
	limited := store.Limit(storeFunc(func(context.Context, store.Session) error { panic("on purpose") }), 1)
	for range 3 {
		func() {
			defer func() { _ = recover() }()
			_, _ = limited.Read(t.Context(), store.Session{}, store.Ref{})
			t.Error("the panic was swallowed")
		}()
	}
}

// Whatever happens to those who ask, there are never more in than places, and all
// places are there in the end.
func TestLimitNeverExceedsItsPlaces(t *testing.T) {
	const places, callers, each = 3, 40, 200
	var in, most atomic.Int64
	full := make(chan struct{}) // closed when those who go together are in together
	limited := store.Limit(storeFunc(func(ctx context.Context, session store.Session) error {
		defer in.Add(-1)
		n := in.Add(1)
		for seen := most.Load(); n > seen; seen = most.Load() {
			most.CompareAndSwap(seen, n)
		}
		wait := make(<-chan struct{})
		switch session.Class {
		case "panics":
			panic("on purpose")
		case "returns":
			return nil
		case "goes together":
			if wait = full; n == places {
				close(full)
			}
		}
		select {
		case <-ctx.Done():
		case <-wait:
			return nil
		}
		return fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}), places)
	read := func(limit time.Duration, session store.Session) (err error) {
		defer func() { _ = recover() }()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err = limited.Read(ctx, session, store.Ref{})
		return err
	}
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			namespace := fmt.Sprint(caller % 7)
			for range each {
				//nolint:gosec // the schedule is no secret
				class, limit, waiting := []string{"panics", "returns", "hangs"}[rand.N(3)], rand.N(2*time.Millisecond), rand.N(2) == 0
				_ = read(limit, store.Session{Identity: auth.Identity{Namespace: namespace}, Class: class, Waiting: waiting})
			}
		})
	}
	all.Wait()
	if most.Load() != places || in.Load() != 0 {
		t.Errorf("%d at a time, %d still in; there are %d places", most.Load(), in.Load(), places)
	}
	for range places {
		all.Go(func() {
			if err := read(time.Minute, store.Session{Class: "goes together"}); err != nil {
				t.Errorf("a place was lost: %v", err)
			}
		})
	}
	all.Wait()
}

// What a store can besides is found through the limit, too.
func TestLimitKeepsWhatAStoreCan(t *testing.T) {
	type both struct {
		store.Store
		resolves
		leases
	}
	plain := storeFunc(func(context.Context, store.Session) error { return nil })
	for name, s := range map[string]store.Store{
		"nothing": plain,
		"resolve": struct {
			store.Store
			resolves
		}{plain, resolves{}},
		"renew": struct {
			store.Store
			leases
		}{plain, leases{}},
		"both": both{plain, resolves{}, leases{}},
	} {
		limited := store.Limit(s, 1)
		_, wantResolver := s.(store.Resolver)
		_, wantLeaser := s.(store.Leaser)
		resolver, isResolver := limited.(store.Resolver)
		leaser, isLeaser := limited.(store.Leaser)
		if isResolver != wantResolver || isLeaser != wantLeaser {
			t.Errorf("%s: a Resolver %v, a Leaser %v", name, isResolver, isLeaser)
		}
		for range 2 { // the place is free again
			if isResolver {
				if got, err := resolver.Resolve(t.Context(), store.Session{}, store.Ref{}); err != nil || got.Literal != "resolved" {
					t.Errorf("%s: %+v, %v", name, got, err)
				}
			}
			if isLeaser {
				if got, err := leaser.Renew(t.Context(), store.Session{Waiting: true}, store.Lease{}); err != nil || !got.Renewable {
					t.Errorf("%s: %+v, %v", name, got, err)
				}
				if err := leaser.Revoke(t.Context(), store.Session{Waiting: true}, store.Lease{}); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s: revoked: %v", name, err)
				}
				if got, final := leaser.Ends(store.Session{}, store.Lease{}); got != time.Unix(1, 0) || !final {
					t.Errorf("%s: ends %s (%t)", name, got, final)
				}
			}
		}
	}
}

type resolves struct{}

func (resolves) Resolve(context.Context, store.Session, store.Ref) (store.Resolved, error) {
	return store.Resolved{Literal: "resolved"}, nil
}

type leases struct{}

func (leases) Renew(context.Context, store.Session, store.Lease) (store.Lease, error) {
	return store.Lease{Renewable: true}, nil
}

func (leases) Revoke(context.Context, store.Session, store.Lease) error { return store.ErrNotFound }

func (leases) Ends(store.Session, store.Lease) (time.Time, bool) { return time.Unix(1, 0), true }

// BenchmarkLimit is a request that queues behind many others.
func BenchmarkLimit(b *testing.B) {
	for _, callers := range []int{1, 100, 10000} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			limited := store.Limit(storeFunc(func(context.Context, store.Session) error { return nil }), 1)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			var all sync.WaitGroup
			for caller := range callers {
				session := store.Session{Identity: auth.Identity{Namespace: fmt.Sprint(caller % 100)}}
				all.Go(func() {
					for left.Add(-1) >= 0 {
						_, _ = limited.Read(b.Context(), session, store.Ref{})
					}
				})
			}
			all.Wait()
		})
	}
}
