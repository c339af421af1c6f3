package turns_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/turns"
)

var errSlow = errors.New("it takes too long")

// work takes so much time, in pieces of a millisecond.
func work(took time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		for range took / time.Millisecond {
			time.Sleep(time.Millisecond) // of the bubble: the processor's work
			if err := turns.Pause(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

// busy has others work in a queue without end, until the test stops them.
func busy(t *testing.T, q *turns.Queue, others []turns.Of, took time.Duration) (ctx context.Context, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	for _, of := range others {
		ended.Go(func() {
			for ctx.Err() == nil {
				_ = q.Do(ctx, of, work(took))
			}
		})
	}
	return ctx, func() { cancel(); ended.Wait() }
}

// namespaces has a pod of each of so many namespaces.
func namespaces(n int, waiting bool) []turns.Of {
	others := make([]turns.Of, n)
	for i := range others {
		others[i] = turns.Of{Namespace: fmt.Sprint("shop", i), Waiting: waiting}
	}
	return others
}

// However many pods of another namespace have work without end, ten objects of a pod are
// made within a second.
func TestNeighboursHaveTheirTurn(t *testing.T) {
	for _, attackers := range []int{1, 24, 1000} {
		for _, places := range []int{1, 2, 3} {
			t.Run(fmt.Sprintf("%d pods and %d places", attackers, places), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					q := turns.New("mounts", places, places-1, time.Now)
					ctx, stop := busy(t, q, slices.Repeat([]turns.Of{{Namespace: "shop", Waiting: true}}, attackers), time.Second)
					defer stop()
					time.Sleep(10 * time.Second)
					began := time.Now()
					for range 10 {
						if err := q.Do(ctx, turns.Of{Namespace: "blog", Waiting: true}, work(2*time.Millisecond)); err != nil {
							t.Fatal(err)
						}
					}
					if took := time.Since(began); took >= time.Second {
						t.Errorf("ten objects took %s", took)
					}
				})
			})
		}
	}
}

// Pods that run have their turn beside any number that start.
func TestRunningPodsAreNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := turns.New("mounts", 1, 1, time.Now)
		ctx, stop := busy(t, q, namespaces(24, true), 10*time.Millisecond)
		defer stop()
		time.Sleep(time.Second)
		began := time.Now()
		if err := q.Do(ctx, turns.Of{Namespace: "blog"}, work(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("a pod that runs waited %s", took)
		}
	})
}

func TestPodsThatStartGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := turns.New("mounts", 1, 1, time.Now)
		leave, err := q.Take(t.Context(), turns.Of{Namespace: "any"})
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 3)
		for i, of := range []turns.Of{{Namespace: "blog"}, {Namespace: "cart"}, {Namespace: "shop", Waiting: true}} {
			go func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				_ = q.Do(t.Context(), of, func(context.Context) error { order <- of.Namespace; return nil })
			}()
		}
		time.Sleep(time.Second)
		leave()
		if got := []string{<-order, <-order, <-order}; !slices.Equal(got, []string{"shop", "blog", "cart"}) {
			t.Errorf("the turns went to %v", got)
		}
	})
}

// Who gives up leaves the queue, and a place that came in the last moment is not lost.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := turns.New("mounts", 1, 1, time.Now)
		leave, err := q.Take(t.Context(), turns.Of{Namespace: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		err = q.Do(ctx, turns.Of{Namespace: "blog"}, work(0))
		if want := "no time was left in the queue of mounts: context deadline exceeded"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
		for range 100 {
			ended, end := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = q.Do(ended, turns.Of{Namespace: "blog"}, work(0)) }()
			synctest.Wait()
			go end()
			go leave()
			<-done
			end()
			if leave, err = q.Take(t.Context(), turns.Of{Namespace: "shop"}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What waits for its place is not charged, and what takes it is.
func TestLimitedWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := turns.New("mounts", 1, 1, time.Now)
		limited := func(took time.Duration) error {
			return q.Do(t.Context(), turns.Of{Namespace: "blog"}, func(ctx context.Context) error {
				turns.Limited(ctx, time.Second, errSlow)
				return work(took)(ctx)
			})
		}
		if err := limited(2 * time.Second); !errors.Is(err, errSlow) {
			t.Errorf("two seconds of work: %v", err)
		}
		_, stop := busy(t, q, namespaces(20, false), time.Second)
		defer stop()
		began := time.Now()
		if err := limited(900 * time.Millisecond); err != nil {
			t.Errorf("less than a second of work: %v", err)
		}
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("it took %s beside twenty others, so this test shows nothing", took)
		}
	})
}

// Work whose context ends while it has lent its place ends, and the place is not given
// back twice.
func TestLentPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := turns.New("mounts", 1, 1, time.Now)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- q.Do(ctx, turns.Of{Namespace: "shop"}, work(time.Hour)) }()
		time.Sleep(time.Second)
		leave, err := q.Take(t.Context(), turns.Of{Namespace: "blog"}) // lent by the other
		if err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		soon, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		if _, err := q.Take(soon, turns.Of{Namespace: "cart"}); err == nil {
			t.Error("a place was given out twice")
		}
		leave()
		if _, err := q.Take(t.Context(), turns.Of{Namespace: "cart"}); err != nil {
			t.Error(err)
		}
	})
}

// Work outside of a queue has no place to lend.
func TestPauseOutsideOfAQueue(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	turns.Limited(ctx, time.Nanosecond, errSlow)
	if err := turns.Pause(ctx); err != nil {
		t.Error(err)
	}
	stop()
	if err := turns.Pause(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Work without a namespace has its turn like that of any.
func TestNoNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := turns.New("mounts", 1, 1, time.Now)
		var ended sync.WaitGroup
		for _, of := range []turns.Of{{}, {Namespace: "shop"}, {Waiting: true}, {Namespace: "blog", Waiting: true}, {}} {
			ended.Go(func() {
				if err := q.Do(t.Context(), of, work(10*time.Millisecond)); err != nil {
					t.Error(err)
				}
			})
		}
		ended.Wait()
	})
}
