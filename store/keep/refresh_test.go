package keep_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

const refreshMax = 8 * time.Minute

// still is a store whose value changes when the test says so, and which notes when it was
// asked.
type still struct {
	mu    sync.Mutex
	began time.Time
	value store.Value
	fail  error
	reads []time.Duration // since began
}

func (s *still) Read(context.Context, login.Request, store.Ref) (store.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads = append(s.reads, time.Since(s.began))
	return s.value, s.fail
}

func (s *still) set(change func(*still)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// answer is the next one, of a version and with what is said about it.
func (s *still) answer(t *testing.T, version, text, about string) {
	t.Helper()
	tree, err := secret.NewTree(map[string]any{"value": text, "ttl": about})
	if err != nil {
		t.Fatal(err)
	}
	s.set(func(s *still) { s.value.Data, s.value.About, s.value.Version = tree, []string{"ttl"}, version })
}

// pauses are the times between two reads while a pod is mounted every second.
func (s *still) pauses() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pauses []time.Duration
	for i := range len(s.reads) - 1 {
		pauses = append(pauses, s.reads[i+1]-s.reads[i])
	}
	return pauses
}

// watchFor mounts a pod every second.
func watchFor(t *testing.T, k kept, span time.Duration) {
	t.Helper()
	for range span / time.Second {
		_ = got(t, k, session("api", "a"), "kv/db")
		<-time.After(time.Second)
	}
}

// expectPauses holds each pause against the time that was wanted, less a fifth, since those
// before it are jittered, too, and more by the second until the next mount.
func expectPauses(t *testing.T, s *still, want ...time.Duration) {
	t.Helper()
	pauses := s.pauses()
	fits := func(pause, want time.Duration) bool { return pause >= want*8/10 && pause <= want+time.Second }
	if len(pauses) < len(want) || !slices.EqualFunc(pauses[:len(want)], want, fits) {
		t.Errorf("the store was asked after pauses of %s, want about %s", pauses, want)
	}
}

func adaptive(s *still) kept {
	s.began = time.Now()
	return newKept(readOnly(s), keep.Options{Refresh: refresh, RefreshMax: refreshMax, Stale: stale, Pool: poolOf(1 << 20), Now: time.Now})
}

// A secret that stays the same is read less and less often, up to RefreshMax.
func TestRefreshGrowsWhileASecretStandsStill(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *still){
		"with a version":    func(*testing.T, *still) {},
		"without a version": func(t *testing.T, s *still) { t.Helper(); s.answer(t, "", "one", "1") },
		"in what the store says about it": func(t *testing.T, s *still) {
			t.Helper()
			s.answer(t, "", "one", time.Now().String())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &still{}
				s.answer(t, "1", "one", "1")
				change(t, s)
				k := adaptive(s)
				for range 40 {
					watchFor(t, k, time.Minute)
					change(t, s)
				}
				const m = time.Minute
				expectPauses(t, s, m, 2*m, 4*m, 8*m, 8*m, 8*m)
			})
		})
	}
}

// Whatever may foretell a change makes the next pauses short again.
func TestRefreshStartsAnew(t *testing.T) {
	const m = time.Minute
	for name, test := range map[string]struct {
		now  func(*testing.T, *still, kept) // 11 minutes after the first read
		want []time.Duration                // the pauses from the fourth on
	}{
		"after a change of version":             {func(t *testing.T, s *still, _ kept) { t.Helper(); s.answer(t, "2", "one", "") }, []time.Duration{8 * m, m, 2 * m, 4 * m}},
		"after a change without a version":      {func(t *testing.T, s *still, _ kept) { t.Helper(); s.answer(t, "", "two", "") }, []time.Duration{8 * m, m, 2 * m, 4 * m}},
		"after keymount refresh":                {func(_ *testing.T, _ *still, k kept) { k.Refresh(); <-time.After(time.Second) }, []time.Duration{5 * m, m, 2 * m, 4 * m}},
		"with a version no longer":              {func(t *testing.T, s *still, _ kept) { t.Helper(); s.answer(t, "", "one", "") }, []time.Duration{8 * m, m, 2 * m}},
		"with a first version of other content": {func(t *testing.T, s *still, _ kept) { t.Helper(); s.answer(t, "1", "two", "") }, []time.Duration{8 * m, m, 2 * m}},
		"with a version that is back":           {func(t *testing.T, s *still, _ kept) { t.Helper(); s.answer(t, "0", "one", "") }, []time.Duration{8 * m, m, 2 * m}},
		"not after nothing at all (control)":    {func(*testing.T, *still, kept) {}, []time.Duration{8 * m, 8 * m, 8 * m}},
		"with an end that is far (control)":     {func(_ *testing.T, s *still, _ kept) { endsIn(s, 10*time.Hour) }, []time.Duration{8 * m, 8 * m, 8 * m}},
		"with an end that is nearer than max":   {func(_ *testing.T, s *still, _ kept) { endsIn(s, 9*m) }, []time.Duration{8 * m, m, m, m}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &still{}
				s.answer(t, "1", "one", "")
				k := adaptive(s)
				watchFor(t, k, 11*m) // the reads of 0, 1, 3 and 7 minutes
				test.now(t, s, k)
				watchFor(t, k, 40*m)
				expectPauses(t, s, append([]time.Duration{m, 2 * m, 4 * m}, test.want...)...)
			})
		})
	}
}

func endsIn(s *still, span time.Duration) {
	s.set(func(s *still) { s.value.NotAfter = time.Now().Add(span) })
}

// After an outage, through which the last good value stood in, pauses are short again; and
// after a denial, which ends the value.
func TestRefreshStartsAnewAfterAFailure(t *testing.T) {
	for name, fail := range map[string]error{"an outage": store.Unavailable, "a denial": store.Denied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const m = time.Minute
				s := &still{}
				s.answer(t, "1", "one", "")
				k := adaptive(s)
				watchFor(t, k, 11*m)
				s.set(func(s *still) { s.fail = fail })
				watchFor(t, k, 10*m)
				s.set(func(s *still) { s.fail, s.reads = nil, nil })
				watchFor(t, k, 30*m)
				expectPauses(t, s, m, 2*m, 4*m, 8*m)
			})
		})
	}
}

// Nodes that have read a secret at the same time do not read it again at the same time.
func TestRefreshIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		firsts := map[time.Duration]bool{}
		for range 20 {
			s := &still{}
			s.answer(t, "1", "one", "")
			watchFor(t, adaptive(s), refresh+2*time.Second)
			firsts[s.pauses()[0]] = true
		}
		if len(firsts) < 3 {
			t.Errorf("20 nodes read again after %v", firsts)
		}
	})
}

// Without RefreshMax every read is due after Refresh.
func TestRefreshStaysWithoutAMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &still{began: time.Now()}
		s.answer(t, "1", "one", "")
		k := newKept(readOnly(s), keep.Options{Refresh: refresh, Pool: poolOf(1 << 20), Now: time.Now})
		watchFor(t, k, 10*time.Minute)
		expectPauses(t, s, refresh, refresh, refresh, refresh, refresh, refresh)
	})
}
