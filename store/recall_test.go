package store_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/store"
)

// recalled is what is answered without asking: the value's text, or nothing.
func recalled(t *testing.T, s store.Store, as store.Session, path string) string {
	t.Helper()
	recaller, ok := s.(store.Recaller)
	if !ok {
		t.Fatal("it recalls nothing at all")
	}
	ref := refTo(t, path)
	resolved, known := recaller.RecallPath(as, ref)
	if !known {
		return ""
	}
	value, known := recaller.Recall(as, ref, resolved)
	if !known {
		return ""
	}
	part, err := value.Data.Get("value")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(part.Reveal())
}

// What counts is recalled without asking, by the session that it was read for and by
// nobody else, and tells that the session's login is wanted.
func TestRecall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		vouched := 0
		s := store.Keep(inner, store.KeepOptions{
			Refresh: refresh, Replace: replace, Bytes: 1 << 20, Now: time.Now, Vouch: func(store.Session) { vouched++ },
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

// What is recalled is used: it goes last when memory is short, and stays while
// somebody wants it.
func TestRecallIsUse(t *testing.T) {
	inner := &counting{}
	s := store.Keep(inner, store.KeepOptions{Refresh: time.Hour, Bytes: 10 << 10, Now: time.Now})
	got(t, s, session("api", "a"), "kv/often")
	for i := range 100 {
		got(t, s, session("api", "a"), fmt.Sprintf("kv/%d", i))
		expectText(t, recalled(t, s, session("api", "a"), "kv/often"), "kv/often of api as shop, 1")
	}
}
