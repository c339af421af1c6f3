package keep_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// recalled is the text of the value from memory, or nothing.
func recalled(t *testing.T, s kept, as login.Request, path string) string {
	t.Helper()
	value, known := s.recall(as, refTo(t, path))
	if !known {
		return ""
	}
	part, err := value.Data.Get("value")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(part.Reveal())
}

// A fresh value is recalled without a request, by the session that read it and no other, and
// vouches for the login of that session.
func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		vouched := 0
		s := newKept(asked(inner), keep.Options{
			Refresh: refresh, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now, Vouch: func(login.Request) { vouched++ },
		})
		api := session("api", "a")
		expectText(t, recalled(t, s, api, "kv/db"), "")
		if inner.count() != 0 || vouched != 0 {
			t.Errorf("to recall asked %d times and vouched %d times", inner.count(), vouched)
		}
		expect(t, inner, s, api, "kv/db", "kv/db of api as shop, 1", 1)
		expect(t, inner, s, api, "make/db", "make/db of api as shop, 2", 2)
		vouched = 0
		expectText(t, recalled(t, s, session("api", "b"), "kv/db"), "kv/db of api as shop, 1")
		expectText(t, recalled(t, s, api, "make/db"), "make/db of api as shop, 2")
		if vouched != 2 {
			t.Errorf("vouched %d times for two values", vouched)
		}
		expectText(t, recalled(t, s, session("web", "a"), "kv/db"), "")
		expectText(t, recalled(t, s, session("api", "b"), "make/db"), "") // made for another volume
		other := api
		other.Role = "other"
		expectText(t, recalled(t, s, other, "kv/db"), "")
		s.Refresh()
		expectText(t, recalled(t, s, api, "kv/db"), "")
		<-time.After(refresh)
		expectText(t, recalled(t, s, api, "make/db"), "") // what the path is has to be asked
		if inner.count() != 2 {
			t.Errorf("the store was asked %d times", inner.count())
		}
	})
}

// A mount of many secrets says once that its login is in use, and all are as fresh as when it
// began to recall them.
func TestRecallOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{}
		var vouched []string
		s := newKept(asked(inner), keep.Options{Refresh: refresh, Pool: poolOf(1 << 20), Now: time.Now, Vouch: func(r login.Request) {
			vouched = append(vouched, r.Identity.ServiceAccount+" as "+r.Role)
		}})
		for i := range 20 {
			got(t, s, session("api", "a"), fmt.Sprintf("kv/%d", i))
		}
		vouched = nil
		recall := func(begun keep.Recollection, pause time.Duration) (known int) {
			for i := range 20 {
				ref := refTo(t, fmt.Sprintf("kv/%d", i))
				resolved, ok := begun.Path(ref)
				if answer, fresh := begun.Value(ref, resolved); ok && fresh && answer.Data.Held() > 0 {
					known++
				}
				<-time.After(pause)
			}
			return known
		}
		if known := recall(s.Recall(session("api", "b")), refresh/10); known != 20 || !slices.Equal(vouched, []string{"api as shop"}) {
			t.Errorf("%d of 20 are recalled, vouched for %q", known, vouched)
		}
		vouched = nil
		for _, as := range []login.Request{session("api", "a"), session("web", "a")} { // refresh is over, and another account
			if known := recall(s.Recall(as), 0); known != 0 || len(vouched) != 0 {
				t.Errorf("%s: %d of 20 are recalled, vouched for %q", as.Identity.ServiceAccount, known, vouched)
			}
		}
	})
}

// A recall counts as a use: the value is evicted last, and not by a sweep.
func TestRecallIsUse(t *testing.T) {
	inner := &counting{}
	s := newKept(asked(inner), keep.Options{Refresh: time.Hour, Pool: poolOf(10 << 10), Now: time.Now})
	got(t, s, session("api", "a"), "kv/often")
	for i := range 100 {
		got(t, s, session("api", "a"), fmt.Sprintf("kv/%d", i))
		expectText(t, recalled(t, s, session("api", "a"), "kv/often"), "kv/often of api as shop, 1")
	}
}

// knowing is a store that may know what a path is.
type knowing struct {
	counting

	knows    bool
	resolved int
}

func (k *knowing) Resolve(ctx context.Context, request login.Request, ref store.Ref) (store.Resolved, error) {
	k.set(func(*counting) { k.resolved++ })
	return k.counting.Resolve(ctx, request, ref)
}

func (k *knowing) RecallPath(_ login.Request, ref store.Ref) (store.Resolved, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return store.Resolved{Path: ref.Path, Makes: true}, k.knows
}

// A path that the store knows is not asked for, and stays known through an outage in which
// the store has forgotten it.
func TestPathsThatAStoreKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &knowing{counting: counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}}
		below := asked(inner)
		below.PathRecaller = inner
		s := newKept(below, keep.Options{Refresh: refresh, Stale: stale, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now})
		as, ref := session("api", "a"), refTo(t, "make/db")
		if _, known := s.Recall(as).Path(ref); known {
			t.Error("a path is known that the store does not know")
		}
		inner.set(func(*counting) { inner.knows = true })
		if resolved, known := s.Recall(as).Path(ref); !known || !resolved.Makes || inner.resolved != 0 {
			t.Errorf("got %+v, %t after %d questions", resolved, known, inner.resolved)
		}
		inner.set(func(c *counting) { inner.knows, c.fail = false, store.Unavailable })
		<-time.After(2 * refresh)
		if _, known := s.Recall(as).Path(ref); known {
			t.Error("a path is known for longer than refresh")
		}
		if resolved, err := s.Resolve(t.Context(), as, ref); err != nil || !resolved.Makes || inner.resolved != 1 {
			t.Errorf("in an outage: %+v, %v, after %d questions", resolved, err, inner.resolved)
		}
	})
}
