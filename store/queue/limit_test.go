package queue_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/queue"
	"github.com/keymount/keymount/store/storetest"
)

func TestLimitKeepsTheContract(t *testing.T) {
	storetest.Read(t, func(_ *testing.T, secrets map[string]map[string]any) storetest.Subject {
		memory := storetest.NewMemory()
		for path, data := range secrets {
			memory.Set(path, data)
		}
		return storetest.Subject{Store: asked{queue.Limit(login.Open(login.Options{Store: memory}), 2)}, Faults: memory.Faults()}
	})
}

// asked is what a store is asked through.
type asked struct{ login.Store }

func (a asked) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	return a.Store.Read(ctx, login.Request{Identity: caller.Identity, Role: caller.Role}, ref)
}

// desk is a store with a queue before it, all in the hands of the test. It is used
// within a synctest bubble.
type desk struct {
	login.Store
	t   *testing.T
	let chan struct{}
	// left is how many places are free, and how many namespaces hold some.
	left func() (free, namespaces int)

	mu     sync.Mutex
	served []string // who got in, in that order
	asked  map[string]int
}

func newDesk(t *testing.T, places int) *desk {
	t.Helper()
	d := &desk{t: t, let: make(chan struct{}), asked: map[string]int{}}
	p := queue.NewPlaces(places)
	d.left = p.Left
	d.Store = p.Before(login.Store{Reader: storeFunc(func(_ context.Context, session login.Request) error {
		d.mu.Lock()
		d.served = append(d.served, session.Volume.Class)
		d.mu.Unlock()
		<-d.let
		return nil
	})})
	return d
}

type storeFunc func(context.Context, login.Request) error

func (f storeFunc) Read(ctx context.Context, session login.Request, _ store.Ref) (store.Value, error) {
	return store.Value{}, f(ctx, session)
}

// come starts a request of a namespace, named after it with a number: in capital letters
// when a pod waits to start. It returns when the request has a place or has queued.
func (d *desk) come(ctx context.Context, name string) <-chan error {
	d.t.Helper()
	d.asked[name]++
	session := login.Request{
		Identity: auth.Identity{Namespace: strings.ToLower(name)}, Volume: auth.Volume{Class: fmt.Sprint(name, d.asked[name])}, Waiting: name != strings.ToLower(name),
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

// finish ends the requests with a place, one after the other.
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

// However many slow requests some namespaces have, the first request of another one has a
// place at once; and alone, a namespace gets four fifths of the places.
func TestLimitLeavesPlacesToOthers(t *testing.T) {
	for name, test := range map[string]struct {
		places, namespaces, each int
		held                     string // places of each, in the end
	}{
		"one":               {64, 1, 100, "52"},
		"two":               {64, 2, 100, "29 28"},
		"four":              {64, 4, 100, "16 15 15 15"},
		"the most":          {64, 15, 100, "5 5 5" + strings.Repeat(" 4", 12)},
		"few places":        {5, 1, 10, "4"},
		"within the places": {64, 1, 10, "10"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, test.places)
				for range test.each {
					for i := range test.namespaces {
						d.all(string(rune('a' + i)))
					}
				}
				held := map[byte]int{}
				for _, one := range d.served {
					held[one[0]]++
				}
				counts := slices.Sorted(maps.Values(held))
				slices.Reverse(counts)
				if got := strings.Trim(fmt.Sprint(counts), "[]"); got != test.held {
					t.Errorf("they hold %s places, want %s", got, test.held)
				}
				d.all("z")
				if got := d.served[len(d.served)-1]; got != "z1" {
					t.Error("the next namespace waits for a place")
				}
				// The same while places are handed over.
				d.finish(min(10, test.each/2))
				d.all("y")
				if got := d.served[len(d.served)-1]; got != "y1" && name != "the most" { // where "z" has the last place
					t.Error("after some requests have ended, the next namespace waits for a place")
				}
				d.finish(test.namespaces*test.each + 2 - min(10, test.each/2))
				if got := len(d.served); got != test.namespaces*test.each+2 {
					t.Errorf("%d requests were served", got)
				}
				if free, held := d.left(); free != test.places || held != 0 {
					t.Errorf("%d places are free in the end, and %d namespaces hold some", free, held)
				}
			})
		})
	}
}

// A place that gets free goes to all who may have one now, which can be two.
func TestLimitHandsOutAllThatMayBeTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 9)
		d.all(strings.Fields("a a a a b b b b b a")...)
		d.check("a1 a2 a3 a4 b1 b2 b3 b4")
		d.finish(1)
		if got := strings.Join(slices.Sorted(slices.Values(d.served[8:])), " "); got != "a5 b5" {
			t.Errorf("then %s have a place, want a5 and b5", got)
		}
		d.finish(9)
	})
}

// Running pods have their quarter, also after a while in which they could not take it.
func TestLimitOwesRunningPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := queue.NewPlaces(5)
		enter := func(namespace string, waiting bool) <-chan struct{} {
			in := make(chan struct{})
			go func() {
				if err := p.Enter(t.Context(), namespace, waiting); err != nil {
					t.Error(err)
				}
				close(in)
			}()
			synctest.Wait()
			return in
		}
		for range 4 {
			<-enter("shop", false)
		}
		<-enter("first", true)
		owed, last := enter("shop", false), "first" // which has enough
		for n := range 6 {
			next := fmt.Sprint("pod-", n)
			in := enter(next, true)
			p.Leave(last)
			<-in
			last = next
		}
		enter("one-more", true)
		p.Leave("shop")
		synctest.Wait()
		select {
		case <-owed:
		default:
			t.Error("after six pods that wait, the running one is not next")
		}
		p.Leave(last)
	})
}

// A place that comes too late is given back as one of its namespace.
func TestLimitTakesBackALatePlace(t *testing.T) {
	p := queue.NewPlaces(1)
	for range 1000 {
		if err := p.Enter(t.Context(), "shop", false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Enter(ctx, "blog", false) }()
		for queue.Waiting(p) == 0 {
			runtime.Gosched()
		}
		p.Leave("shop")
		cancel()
		if err := <-done; err == nil {
			p.Leave("blog")
		}
		if free, held := p.Left(); free != 1 || held != 0 {
			t.Fatalf("%d places are free, and %d namespaces hold some", free, held)
		}
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
			if !errors.Is(err, store.Unavailable) || !errors.Is(err, why) {
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
	limited := queue.Limit(login.Store{Reader: storeFunc(func(context.Context, login.Request) error { panic("on purpose") })}, 1)
	for range 3 {
		func() {
			defer func() { _ = recover() }()
			_, _ = limited.Read(t.Context(), login.Request{}, store.Ref{})
			t.Error("the panic was swallowed")
		}()
	}
}

// However requests end, never more of them are in flight than there are places, and all
// places are free in the end.
func TestLimitNeverExceedsItsPlaces(t *testing.T) {
	const places, callers, each = 3, 40, 200
	var in, most atomic.Int64
	full := make(chan struct{}) // closed when those who go together are in together
	limited := queue.Limit(login.Store{Reader: storeFunc(func(ctx context.Context, session login.Request) error {
		defer in.Add(-1)
		n := in.Add(1)
		for seen := most.Load(); n > seen; seen = most.Load() {
			most.CompareAndSwap(seen, n)
		}
		wait := make(<-chan struct{})
		switch session.Volume.Class {
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
		return fmt.Errorf("%w: %w", store.Unavailable, ctx.Err())
	})}, places)
	read := func(limit time.Duration, session login.Request) (err error) {
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
				_ = read(limit, login.Request{Identity: auth.Identity{Namespace: namespace}, Volume: auth.Volume{Class: class}, Waiting: waiting})
			}
		})
	}
	all.Wait()
	if most.Load() != places || in.Load() != 0 {
		t.Errorf("%d at a time, %d still in; there are %d places", most.Load(), in.Load(), places)
	}
	for range places {
		all.Go(func() {
			if err := read(time.Minute, login.Request{Volume: auth.Volume{Class: "goes together"}}); err != nil {
				t.Errorf("a place was lost: %v", err)
			}
		})
	}
	all.Wait()
}

// What a store can besides is found through the limit, too.
func TestLimitKeepsWhatAStoreCan(t *testing.T) {
	plain := storeFunc(func(context.Context, login.Request) error { return nil })
	for name, s := range map[string]login.Store{
		"nothing": {Reader: plain},
		"resolve": {Reader: plain, Resolver: resolves{}},
		"renew":   {Reader: plain, Leaser: leases{}},
		"both":    {Reader: plain, Resolver: resolves{}, Leaser: leases{}},
	} {
		limited := queue.Limit(s, 1)
		resolver, leaser := limited.Resolver, limited.Leaser
		isResolver, isLeaser := resolver != nil, leaser != nil
		if isResolver != (s.Resolver != nil) || isLeaser != (s.Leaser != nil) {
			t.Errorf("%s: a Resolver %v, a Leaser %v", name, isResolver, isLeaser)
		}
		for range 2 { // the place is free again
			if isResolver {
				if got, err := resolver.Resolve(t.Context(), login.Request{}, store.Ref{}); err != nil || got.Literal != "resolved" {
					t.Errorf("%s: %+v, %v", name, got, err)
				}
			}
			if isLeaser {
				if got, err := leaser.Renew(t.Context(), login.Request{Waiting: true}, store.Lease{}); err != nil || !got.Renewable {
					t.Errorf("%s: %+v, %v", name, got, err)
				}
				if err := leaser.Revoke(t.Context(), login.Request{Waiting: true}, store.Lease{}); !errors.Is(err, store.NotFound) {
					t.Errorf("%s: revoked: %v", name, err)
				}
				if got, final := leaser.Ends(login.Request{}, store.Lease{}); got != time.Unix(1, 0) || !final {
					t.Errorf("%s: ends %s (%t)", name, got, final)
				}
			}
		}
	}
}

type resolves struct{}

func (resolves) Resolve(context.Context, login.Request, store.Ref) (store.Resolved, error) {
	return store.Resolved{Literal: "resolved"}, nil
}

type leases struct{}

func (leases) Renew(context.Context, login.Request, store.Lease) (store.Lease, error) {
	return store.Lease{Renewable: true}, nil
}

func (leases) Revoke(context.Context, login.Request, store.Lease) error { return store.NotFound }

func (leases) Ends(login.Request, store.Lease) (time.Time, bool) { return time.Unix(1, 0), true }

// BenchmarkLimit is a request that queues behind many others.
func BenchmarkLimit(b *testing.B) {
	for _, callers := range []int{1, 100, 10000} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			limited := queue.Limit(login.Store{Reader: storeFunc(func(context.Context, login.Request) error { return nil })}, 1)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			var all sync.WaitGroup
			for caller := range callers {
				session := login.Request{Identity: auth.Identity{Namespace: fmt.Sprint(caller % 100)}}
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
