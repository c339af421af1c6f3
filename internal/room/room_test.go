package room_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/internal/turns"
)

// part is one of those of an answer that is worth a place in the lane: parsed, it takes four
// times as much.
const part = `"0123456789abcd",`

// most is how many bytes an answer may have.
const most = 4 << 20

// slow is an answer of some bytes that comes over a slow network, or breaks off.
type slow struct {
	left   int
	pauses time.Duration // before each piece beyond the free beginning
	broken error
	read   *atomic.Int64
}

func (s *slow) Read(p []byte) (int, error) {
	if s.read.Load() > room.Free {
		time.Sleep(s.pauses) // of the bubble
		if s.broken != nil {
			return 0, s.broken
		}
	}
	if s.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, strings.Repeat(part, 32<<10/len(part))[:min(s.left, len(p), 32<<10/len(part)*len(part))])
	s.left -= n
	s.read.Add(int64(n))
	return n, nil
}

// answerOf is an answer of 1 MiB.
func answerOf(pauses time.Duration) *slow {
	return &slow{left: 1 << 20, pauses: pauses, read: &atomic.Int64{}}
}

// busy counts how many do something at a time.
type busy struct{ now, most atomic.Int64 }

func (b *busy) begin() {
	now := b.now.Add(1)
	for {
		most := b.most.Load()
		if now <= most || b.most.CompareAndSwap(most, now) {
			return
		}
	}
}

func (b *busy) end() { b.now.Add(-1) }

// Many mounts want more than half of all there is, and read large answers in their
// places: all end, and never more than two hold something at a time.
func TestManyLargeMountsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mounts, answers := room.NewMounts(0, 2, time.Now), room.NewAnswers(1, time.Now)
		var held busy
		var ended sync.WaitGroup
		for i := range 60 {
			ended.Go(func() {
				of := turns.Of{Namespace: fmt.Sprint("shop", i%7), Waiting: i%2 == 0}
				free := mounts.Share(of.Namespace)
				if free.Charge(room.Large * 2 / 3); !free.Full() {
					t.Error("so much fits into what is free")
				}
				free.End()
				share, err := mounts.Place(t.Context(), of)
				if err != nil {
					t.Error(err)
					return
				}
				defer share.End()
				held.begin()
				defer held.end()
				for range 2 {
					if err := answers.Read(t.Context(), of, answerOf(time.Millisecond), most, func([]byte) { time.Sleep(time.Second) }); err != nil {
						t.Error(err)
					}
					share.Charge(room.Large * 2 / 3)
				}
				if !share.Full() {
					t.Error("a share has no end")
				}
			})
		}
		ended.Wait()
		if most := held.most.Load(); most != 2 {
			t.Errorf("%d mounts held much at a time, want 2", most)
		}
	})
}

// However many large mounts or answers a namespace has, that of another waits for one
// turn at most.
func TestNeighboursHaveRoom(t *testing.T) {
	mounts := func() func(context.Context, turns.Of) error {
		m := room.NewMounts(0, 2, time.Now)
		return func(ctx context.Context, of turns.Of) error {
			share, err := m.Place(ctx, of)
			if err == nil {
				time.Sleep(time.Second)
				share.End()
			}
			return err
		}
	}
	answers := func() func(context.Context, turns.Of) error {
		a := room.NewAnswers(1, time.Now)
		return func(ctx context.Context, of turns.Of) error {
			return a.Read(ctx, of, answerOf(0), most, func([]byte) { time.Sleep(time.Second) })
		}
	}
	for name, start := range map[string]func() func(context.Context, turns.Of) error{"mounts": mounts, "answers": answers} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				take := start()
				var ended sync.WaitGroup
				for range 100 {
					ended.Go(func() {
						if err := take(t.Context(), turns.Of{Namespace: "shop", Waiting: true}); err != nil && !errors.Is(err, room.ErrNoPlace) {
							t.Error(err)
						}
					})
				}
				time.Sleep(500 * time.Millisecond)
				began := time.Now()
				if err := take(t.Context(), turns.Of{Namespace: "blog", Waiting: true}); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("a neighbour waited %s, and a turn takes a second", took)
				}
				ended.Wait()
			})
		})
	}
}

// Answers that are light go past the lane, however long; what is heavy, or heavier than it
// looks, waits for it.
func TestAnswersWait(t *testing.T) {
	for name, test := range map[string]struct {
		text  string
		waits bool
	}{
		"short":           {`{"a":"` + strings.Repeat("x", 4096) + `"}`, false},
		"long and light":  {`{"a":"` + strings.Repeat("x", 400<<10) + `"}`, false},
		"long and heavy":  {`{"a":"` + strings.Repeat("x", 600<<10) + `"}`, true},
		"short and heavy": {"[" + strings.Repeat("{},", 15_000) + "0]", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := room.NewAnswers(1, time.Now)
				for range 2 {
					go func() {
						_ = a.Read(t.Context(), turns.Of{Namespace: "shop"}, answerOf(0), most, func([]byte) { time.Sleep(time.Second) })
					}()
				}
				synctest.Wait()
				began, got := time.Now(), ""
				if err := a.Read(t.Context(), turns.Of{Namespace: "shop"}, strings.NewReader(test.text), most, func(text []byte) { got = string(text) }); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(began) > 0; waited != test.waits {
					t.Errorf("it waited: %t, want %t", waited, test.waits)
				}
				if got != test.text {
					t.Errorf("%d bytes were parsed of %d", len(got), len(test.text))
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// However many long texts some namespaces read from a slow network, a text of another one is
// read at once, and those for which there is no room are not waited for until their
// connections are given up.
func TestLongTextsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := room.NewAnswers(1, time.Now)
		var reading sync.WaitGroup
		var read, refused atomic.Int64
		for i := range 60 {
			reading.Go(func() {
				long := answerOf(time.Second) // and so 32 s in pieces
				switch err := a.Read(t.Context(), turns.Of{Namespace: fmt.Sprint("shop", i%3)}, long, most, func([]byte) {}); {
				case err == nil:
					read.Add(1)
				case errors.Is(err, room.ErrNoPlace):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		time.Sleep(20 * time.Second)
		if got := refused.Load(); got < 40 {
			t.Errorf("after 20 s, %d of 60 were told that there is no room", got)
		}
		began := time.Now()
		if err := a.Read(t.Context(), turns.Of{Namespace: "blog"}, answerOf(0), most, func([]byte) {}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("a neighbour waited %s", took)
		}
		reading.Wait()
		if got := read.Load(); got < 3 || got > 16 {
			t.Errorf("%d texts of 1 MiB were read at a time", got)
		}
		checkWhole(t, a.Pool(), room.Texts)
	})
}

// checkWhole fails unless a pool is as it was made.
func checkWhole(t *testing.T, got room.Pooled, all int64) {
	t.Helper()
	if want := (room.Pooled{Free: all}); got != want {
		t.Errorf("in the end the pool is %+v, want %+v", got, want)
	}
}

// What would take too much is refused before it is parsed, however short it is.
func TestHeavyAnswersAreRefused(t *testing.T) {
	a := room.NewAnswers(1, time.Now)
	text := "[" + strings.Repeat("{},", (4<<20)/3) + "0]"
	err := a.Read(t.Context(), turns.Of{}, strings.NewReader(text), most, func([]byte) { t.Error("it was parsed") })
	if !errors.Is(err, room.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// Whatever comes of an answer, its place is given back.
func TestPlacesAreLeft(t *testing.T) {
	errBroken := errors.New("the network is gone")
	of := turns.Of{Namespace: "shop"}
	for name, test := range map[string]struct {
		use  func(context.Context, *room.Answers) error
		want error
	}{
		"a broken answer": {func(ctx context.Context, a *room.Answers) error {
			from := answerOf(0)
			from.broken = errBroken
			return a.Read(ctx, of, from, most, func([]byte) {})
		}, errBroken},
		"a heavy answer": {func(ctx context.Context, a *room.Answers) error {
			return a.Read(ctx, of, strings.NewReader(strings.Repeat("{}", 1<<20)), most, func([]byte) {})
		}, room.ErrTooLarge},
		"no room for its text in time": {func(ctx context.Context, a *room.Answers) error {
			soon, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			var all sync.WaitGroup
			errs := make([]error, 12)
			for i := range errs {
				all.Go(func() { errs[i] = a.Read(soon, of, answerOf(10*time.Second), most, func([]byte) {}) })
			}
			all.Wait()
			return errors.Join(errs...)
		}, room.ErrNoPlace},
		"no place in time": {func(ctx context.Context, a *room.Answers) error {
			go func() {
				_ = a.Read(ctx, of, answerOf(0), most, func([]byte) { time.Sleep(time.Second) })
			}()
			synctest.Wait()
			soon, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			return a.Read(soon, of, answerOf(0), most, func([]byte) {})
		}, room.ErrNoPlace},
		"a panic": {func(ctx context.Context, a *room.Answers) (err error) {
			defer func() { err, _ = recover().(error) }()
			return a.Read(ctx, of, answerOf(0), most, func([]byte) { panic(errBroken) })
		}, errBroken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := room.NewAnswers(1, time.Now)
				for range 3 {
					if err := test.use(t.Context(), a); !errors.Is(err, test.want) {
						t.Fatalf("got %v, want %v", err, test.want)
					}
					time.Sleep(time.Minute)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := a.Read(ctx, of, answerOf(0), most, func([]byte) {}); err != nil {
					t.Errorf("the next answer: %v", err)
				}
				checkWhole(t, a.Pool(), room.Texts)
			})
		})
	}
}

// A share takes what is free first, then of the pool, and is full for good.
func TestShare(t *testing.T) {
	m := room.NewMounts(1000, 1, time.Now)
	s := m.Share("shop")
	if !s.Charge(room.Small) || !s.Charge(500) || s.Full() {
		t.Error("what fits is refused")
	}
	if s.Charge(1) || !s.Full() || s.Charge(0) {
		t.Error("what does not fit is taken")
	}
	if other := m.Share("shop"); !other.Charge(room.Small) || other.Charge(1) {
		t.Error("a namespace has more than is left")
	}
	s.End()
	again := m.Share("shop")
	if !again.Charge(room.Small + 500) {
		t.Error("what was taken is not given back")
	}
	again.End()
	if s.Charge(0) {
		t.Error("a share that has ended is charged")
	}
	ended := m.Share("blog")
	if ended.End(); ended.Charge(room.Small + 1) {
		t.Error("a share that has ended takes of the pool")
	}
	steps := m.Share("blog")
	if !steps.Charge(room.Small+100) || !steps.Charge(100) || !steps.Charge(100) {
		t.Error("what fits in steps is refused")
	}
	steps.End()
	steps.End()
	checkWhole(t, m.Pool(), 1000)
}

// Alone, a mount may hold as much without a place as in one.
func TestSharesHaveOneBound(t *testing.T) {
	m := room.NewMounts(room.Pool, room.Places, time.Now)
	place, err := m.Place(t.Context(), turns.Of{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*room.Share{"without": m.Share("shop"), "in": place} {
		if !s.Charge(room.Large) || s.Charge(1) {
			t.Errorf("%s a place: not just %d bytes", name, room.Large)
		}
		s.End()
	}
	checkWhole(t, m.Pool(), room.Pool)
}

// One namespace has one place of each kind, however many there are.
func TestPlacesOfANamespace(t *testing.T) {
	for name, take := range map[string]func(ctx context.Context) error{
		"mounts": func() func(context.Context) error {
			m := room.NewMounts(0, 2, time.Now)
			return func(ctx context.Context) error { _, err := m.Place(ctx, turns.Of{Namespace: "shop"}); return err }
		}(),
		"long texts": func() func(context.Context) error {
			a := room.NewAnswers(1, time.Now)
			return func(ctx context.Context) error { _, err := a.LongPlace(ctx, turns.Of{Namespace: "shop"}); return err }
		}(),
		"answers": func() func(context.Context) error {
			a := room.NewAnswers(2, time.Now)
			return func(ctx context.Context) error {
				return a.Read(ctx, turns.Of{Namespace: "shop"}, answerOf(0), most, func([]byte) { <-time.After(2 * time.Second) })
			}
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				go func() { _ = take(context.WithoutCancel(t.Context())) }()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if take(ctx) == nil {
					t.Error("it has a second place")
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// However many mounts some namespaces have, there is something left for the next one.
func TestPoolIsShared(t *testing.T) {
	const mib = 1 << 20
	for namespaces, want := range map[int]int{1: 12 * mib, 3: 6 * mib, 7: 3 * mib} {
		m := room.NewMounts(room.Pool, room.Places, time.Now)
		held := map[string]int{}
		for range 40 {
			for i := range namespaces {
				namespace := fmt.Sprint("shop", i)
				if m.Share(namespace).Charge(room.Small + mib) {
					held[namespace] += mib
				}
			}
		}
		for namespace, bytes := range held {
			if bytes != want {
				t.Errorf("of %d, %s holds %d bytes, want %d", namespaces, namespace, bytes, want)
			}
		}
		if !m.Share("blog").Charge(room.Small + want/2) {
			t.Errorf("beside %d nothing is left", namespaces)
		}
	}
}

// Whatever mounts hold and however they end, the pool is whole in the end.
func TestPoolIsWholeInTheEnd(t *testing.T) {
	m := room.NewMounts(100, 1, time.Now)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			s := m.Share(fmt.Sprint("shop", i%5))
			s.Charge(room.Small)
			var charging sync.WaitGroup
			for n := range 10 {
				charging.Go(func() { s.Charge(n) })
			}
			s.End() // while reads left behind still charge
			charging.Wait()
			s.End()
		})
	}
	all.Wait()
	checkWhole(t, m.Pool(), 100)
}
