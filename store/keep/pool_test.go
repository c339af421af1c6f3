package keep_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/store/keep"
)

// openedIn is a Keeper that shares a memory.
func (w *town) openedIn(pool *keep.Pool) kept {
	s := newKept(asked(w), keep.Options{Refresh: time.Hour, Stale: 6 * time.Hour, Replace: replace, Pool: pool, Now: time.Now})
	w.held = s.Held
	return s
}

// What a namespace mounts of one store crowds out what it has of another, and nothing of
// other namespaces.
func TestStoresShareAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 400 << 10
		pool := keep.NewPool(bound, time.Now, nil)
		a, b := newTown(), newTown()
		inA, inB := a.openedIn(pool), b.openedIn(pool)
		if inA.Most() != bound || inB.Most() != bound {
			t.Errorf("there is said to be room for %d and %d bytes", inA.Most(), inB.Most())
		}
		mount := func(s kept, namespace string, secrets int) (credential string) {
			for i := range secrets {
				read(t, s, namespace, wish{"a", fmt.Sprintf("kv/2000/%d", i), ""})
			}
			return read(t, s, namespace, wish{"a", "make/1000/db", ""})
		}
		good, evil := mount(inA, "good", 20), mount(inB, "evil", 40)
		mount(inB, "good", 20)
		mount(inA, "evil", 200)
		if inA.Held()+inB.Held() > bound || inA.Held()+inB.Held() < bound*9/10 {
			t.Errorf("%d and %d bytes are held, and the bound of both is %d", inA.Held(), inB.Held(), bound)
		}
		if inB.Evictions() < 40 {
			t.Errorf("%d values and paths of the one store are evicted for the other", inB.Evictions())
		}
		expectText(t, mount(inA, "good", 20), good)
		mount(inB, "good", 20)
		if n := a.sum("good/kv") + b.sum("good/kv"); n != 40 {
			t.Errorf("of 40 secrets of a namespace below its share %d were read again", n-40)
		}
		expectText(t, mount(inB, "evil", 40), evil) // evicted last, whatever store it is of
		if n := b.sum("evil/kv"); n != 80 {
			t.Errorf("of 40 secrets of the namespace %d were read again", n-40)
		}
	})
}

// In an outage the credential of a pod is found, whatever else its namespace has mounted.
func TestPathsOfCredentialsGoLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		s := w.opened(100 << 10)
		credential := read(t, s, "shop", wish{"a", "make/1000/db", ""})
		for i := range 300 {
			read(t, s, "shop", wish{"a", fmt.Sprintf("kv/1000/%d", i), ""})
		}
		<-time.After(2 * refresh)
		w.set(func() { w.away = "shop" })
		expectText(t, read(t, s, "shop", wish{"a", "make/1000/db", ""}), credential)
	})
}

// poll mounts secrets of a size every two minutes, of two namespaces.
func poll(t *testing.T, s kept, polls, secrets int, path func(poll, secret int) string) {
	t.Helper()
	for n := range polls {
		for i := range secrets {
			read(t, s, "shop", wish{"a", path(n, i), ""})
		}
		read(t, s, "blog", wish{"a", path(0, 0), ""})
		<-time.After(2 * time.Minute)
	}
}

// What pods mount does not fit: that is a warning, once an hour.
func TestTooSmallAMemory(t *testing.T) {
	const tooSmall = `level=WARN msg="the memory is too small for what pods mount: values are evicted and read again; ` +
		`raise the memory limit of keymount, or memoryMiB if it is set" memory_mib=1 read_again=`
	same := func(_, i int) string { return fmt.Sprintf("kv/20000/%d", i) }
	for name, test := range map[string]struct {
		polls, secrets int
		path           func(poll, secret int) string
		want           []string // beginnings of lines
	}{
		"too small": {90, 60, same, []string{
			"T00:06:00.000Z " + tooSmall + "121 namespace=shop of_namespace=121", // two polls, and one of the third
			"T01:06:00.000Z " + tooSmall + "1", "T02:06:00.000Z " + tooSmall + "1",
		}},
		"it fits":     {90, 24, same, nil},
		"new secrets": {90, 24, func(poll, i int) string { return fmt.Sprintf("kv/20000/%d-%d", poll, i) }, nil}, // the old are of pods that are gone
		"rollouts":    {90, 24, func(poll, i int) string { return fmt.Sprintf("kv/%d/%d", 20000+5000*(poll/40%2), i) }, nil},
		"it ends":     {3, 60, same, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, log := newTown(), &bytes.Buffer{}
				s := w.openedIn(keep.NewPool(1<<20, time.Now, slog.New(slog.NewTextHandler(log, nil))))
				poll(t, s, test.polls, test.secrets, test.path)
				lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
				if got := len(lines); got != max(1, len(test.want)) {
					t.Errorf("%d lines, want %d:\n%s", got, len(test.want), log.String())
				}
				for i, want := range test.want {
					if _, line, _ := strings.Cut(lines[min(i, len(lines)-1)], "2000-01-01"); !strings.HasPrefix(line, want) {
						t.Errorf("line %d is %s, want %s", i, line, want)
					}
				}
				if len(test.want) == 0 && log.Len() > 0 {
					t.Errorf("the log says %s", log.String())
				}
			})
		})
	}
}

// Of very many evicted values some are counted for all.
func TestTooSmallForVeryMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const secrets = 6000
		w, log := newTown(), &bytes.Buffer{}
		s := w.openedIn(keep.NewPool(1<<20, time.Now, slog.New(slog.NewTextHandler(log, nil))))
		poll(t, s, 4, secrets, func(_, i int) string { return fmt.Sprintf("kv/100/%d", i) })
		_, text, _ := strings.Cut(log.String(), "read_again=")
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil || n < 2*secrets*8/10 || n > 2*secrets*12/10 {
			t.Errorf("%d are said to be read again (%v), and %d are at each of two polls: %s", n, err, secrets, log.String())
		}
	})
}
