package keep_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// Values and paths without a mount for ten minutes are evicted.
func TestKeepForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := remember(&counting{})
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
	s := newKept(asked(inner), keep.Options{Refresh: time.Hour, Pool: poolOf(bound), Now: time.Now})
	highest := int64(0)
	for i := range 300 {
		if i == 200 { // and then denials
			inner.set(func(c *counting) { c.fail = store.Denied.Errorf("no policy") })
		}
		got(t, s, session("api", fmt.Sprint(i)), fmt.Sprintf("kv/%d", i))
		highest = max(highest, s.Held())
	}
	if highest > bound || highest < bound/2 {
		t.Errorf("%d bytes were held, the bound is %d", highest, bound)
	}
}

// Secrets that can be read again push out no credential: another one would be made.
func TestCredentialsAreForgottenLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound, pods = 64 << 10, 20
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		var log bytes.Buffer
		s := newKept(asked(inner), keep.Options{
			Refresh: time.Hour, Replace: replace, Pool: poolOf(bound), Now: time.Now, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		for pod := range pods {
			got(t, s, session("api", fmt.Sprint(pod)), "make/db")
		}
		for i := range 300 {
			got(t, s, session("web", "w"), fmt.Sprintf("kv/%d", i))
		}
		for pod := range pods {
			expect(t, inner, s, session("api", fmt.Sprint(pod)), "make/db", fmt.Sprintf("make/db of api as shop, %d", pod+1), pods+300)
		}
		if held := s.Held(); held > bound || log.Len() > 0 {
			t.Errorf("%d bytes are held, and the log says %s", held, log.String())
		}
		for pod := range 300 { // more of them than there is room for: those in use stay
			got(t, s, session("api", fmt.Sprint(pod)), "make/db")
		}
		for pod := range pods {
			expectText(t, got(t, s, session("api", fmt.Sprint(pod)), "make/db"), fmt.Sprintf("make/db of api as shop, %d", pod+1))
		}
		if held := s.Held(); held > bound || log.Len() > 0 {
			t.Errorf("%d bytes are held, and the log says %s", held, log.String())
		}
		for pod := range 20 { // and those of a namespace below its share go before the last of one beyond
			got(t, s, from("blog", fmt.Sprint(pod)), "make/db")
		}
		const want = `msg="the memory is full of credentials: one is forgotten, since its namespace has more than its share" namespace=shop pod=`
		if held := s.Held(); held > bound || !strings.Contains(log.String(), want) || strings.Contains(log.String(), "namespace=blog") {
			t.Errorf("%d bytes are held, and the log says %s", held, log.String())
		}
	})
}
