package lru_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/keymount/keymount/internal/lru"
)

func TestLeastRecentlyUsedIsEvicted(t *testing.T) {
	c := lru.New[string, int](3, 0)
	for i, key := range []string{"a", "b", "c"} {
		c.Add(key, i, 0)
	}
	c.Get("a")
	c.Peek("b")
	c.Add("d", 3, 0)
	wantKeys(t, c, "a", "c", "d")
	c.Add("c", 4, 0) // again is a use
	c.Add("e", 5, 0)
	wantKeys(t, c, "c", "d", "e")
	if value, ok := c.Get("c"); !ok || value != 4 {
		t.Errorf("got %d, %t", value, ok)
	}
}

func TestWeightIsBounded(t *testing.T) {
	c := lru.New[string, int](10, 100)
	c.Add("a", 1, 60)
	c.Add("b", 2, 40)
	wantKeys(t, c, "a", "b")
	c.Add("c", 3, 1)
	wantKeys(t, c, "b", "c")
	c.Add("b", 4, 100)
	wantKeys(t, c, "b")
	c.Add("d", 5, 101) // too heavy
	wantKeys(t, c, "b")
	c.Add("b", 6, 101)
	wantKeys(t, c)
	if c.Weight() != 0 {
		t.Errorf("an empty cache weighs %d", c.Weight())
	}
}

func TestRemoveFunc(t *testing.T) {
	c := lru.New[string, int](10, 100)
	for i, key := range []string{"a", "b", "c", "d"} {
		c.Add(key, i, int64(i))
	}
	c.RemoveFunc(func(key string, value int) bool { return key == "a" || value == 2 })
	wantKeys(t, c, "b", "d")
	if c.Weight() != 4 {
		t.Errorf("the rest weighs %d", c.Weight())
	}
}

func wantKeys(t *testing.T, c *lru.Cache[string, int], want ...string) {
	t.Helper()
	var got []string
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		if _, ok := c.Peek(key); ok {
			got = append(got, key)
		}
	}
	if !slices.Equal(got, want) || c.Len() != len(want) {
		t.Errorf("%d entries %q, want %q", c.Len(), got, want)
	}
}

// slow is a Cache that is easy to believe: a list with the most recently used last.
type slow struct {
	maxEntries int
	maxWeight  int64
	list       []slowEntry
}

type slowEntry struct {
	key, value int
	weight     int64
}

func (s *slow) find(key int) int {
	return slices.IndexFunc(s.list, func(e slowEntry) bool { return e.key == key })
}

func (s *slow) get(key int) (int, bool) {
	i := s.find(key)
	if i < 0 {
		return 0, false
	}
	e := s.list[i]
	s.list = append(slices.Delete(s.list, i, i+1), e)
	return e.value, true
}

func (s *slow) add(e slowEntry) {
	s.list = slices.DeleteFunc(s.list, func(other slowEntry) bool { return other.key == e.key })
	if e.weight <= s.maxWeight {
		s.list = append(s.list, e)
	}
	for len(s.list) > s.maxEntries || s.weight() > s.maxWeight {
		s.list = s.list[1:]
	}
}

func (s *slow) weight() (sum int64) {
	for _, e := range s.list {
		sum += e.weight
	}
	return sum
}

// After any calls, in any order, a Cache holds just what the slow one does.
func TestAsTheSlowOne(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test that can be repeated
		s := slow{maxEntries: 1 + random.IntN(8), maxWeight: int64(random.IntN(40))}
		c := lru.New[int, int](s.maxEntries, s.maxWeight)
		for step := range 300 {
			key := random.IntN(12)
			switch random.IntN(3) {
			case 0:
				got, ok := c.Get(key)
				want, wanted := s.get(key)
				if got != want || ok != wanted {
					t.Fatalf("seed %d, step %d: got %d, %t, want %d, %t", seed, step, got, ok, want, wanted)
				}
			case 1:
				e := slowEntry{key, step, int64(random.IntN(12))}
				c.Add(e.key, e.value, e.weight)
				s.add(e)
			case 2:
				_, ok := c.Peek(key)
				if ok != (s.find(key) >= 0) {
					t.Fatalf("seed %d, step %d: key %d: %t", seed, step, key, ok)
				}
			}
			if c.Len() != len(s.list) || c.Weight() != s.weight() {
				t.Fatalf("seed %d, step %d: %d entries of weight %d, want %d of %d", seed, step, c.Len(), c.Weight(), len(s.list), s.weight())
			}
		}
	}
}
