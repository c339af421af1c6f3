package store_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/store"
)

// What nobody asks for in ten minutes is forgotten, values and paths alike.
func TestKeepForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := keep(&counting{})
		running(t, s, func() {
			for i := range 100 {
				got(t, s, session("api", "a"), fmt.Sprintf("kv/%d", i))
			}
			all := s.Held()
			for range 11 {
				<-time.After(time.Minute)
				got(t, s, session("api", "a"), "kv/0")
			}
			<-time.After(time.Second) // for the sweep of this minute
			if one := s.Held(); one == 0 || one > all/50 {
				t.Errorf("one of a hundred secrets is asked for, and %d of %d bytes are held", one, all)
			}
			<-time.After(12 * time.Minute)
			if held := s.Held(); held != 0 {
				t.Errorf("nothing is asked for, and %d bytes are held", held)
			}
		})
	})
}

// Whatever is asked for, and whatever comes of it, no more is held than the bound.
func TestKeepHoldsNoMoreThanItsBound(t *testing.T) {
	const bound = 32 << 10
	inner := &counting{}
	s := store.Keep(inner, store.KeepOptions{Refresh: time.Hour, Bytes: bound, Now: time.Now})
	highest := int64(0)
	for i := range 300 {
		if i == 200 { // and then denials
			inner.set(func(c *counting) { c.fail = fmt.Errorf("%w: no policy", store.ErrDenied) })
		}
		got(t, s, session("api", fmt.Sprint(i)), fmt.Sprintf("kv/%d", i))
		highest = max(highest, s.Held())
	}
	if highest > bound || highest < bound/2 {
		t.Errorf("%d bytes were held, the bound is %d", highest, bound)
	}
}
