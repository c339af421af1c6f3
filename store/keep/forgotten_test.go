package keep_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// dated is a store with values below dated/ that end after an hour.
type dated struct{ *counting }

func (d dated) Read(ctx context.Context, session login.Request, ref store.Ref) (store.Value, error) {
	value, err := d.counting.Read(ctx, session, ref)
	if ref.Path.Segments()[0] == "dated" {
		value.NotAfter = time.Now().Add(time.Hour)
	}
	return value, err
}

// tellings are the calls of Forgotten, each with the end of the value since the start.
type tellings struct {
	mu    sync.Mutex
	lines []string
}

func (l *tellings) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.lines...)
}

func telling(inner *counting) (kept, *tellings) {
	told, start := &tellings{}, time.Now()
	return newKept(asked(dated{inner}), keep.Options{
		Refresh: refresh, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now,
		Forgotten: func(_ context.Context, f keep.Forgotten) {
			told.mu.Lock()
			defer told.mu.Unlock()
			told.lines = append(told.lines, fmt.Sprintf("%s/%s (%s, %s) %s: %s in %s",
				f.Pod.Namespace, f.Pod.Name, f.Pod.UID, f.Pod.ServiceAccount, f.Class, f.Path, f.Ends.Sub(start)))
		},
	}), told
}

// A value with an end is reported once it is mounted no more, and no other value is.
func TestForgotten(t *testing.T) {
	for name, c := range map[string]struct {
		path, args string
		lease      store.Lease
		want       []string
	}{
		"a credential":            {"make/db", "", store.Lease{Duration: time.Hour}, []string{"shop/a (uid-of-a, api) app: make/db in 1h0m0s"}},
		"one that has ended":      {"make/db", "", store.Lease{Duration: 8 * time.Minute}, []string{"shop/a (uid-of-a, api) app: make/db in 8m0s"}},
		"a certificate":           {"dated/tls", `{"ttl":"1h"}`, store.Lease{}, []string{"shop/a (uid-of-a, api) app: dated/tls in 1h0m0s"}},
		"a password":              {"dated/role", "", store.Lease{}, []string{"shop/a (uid-of-a, api) app: dated/role in 1h0m0s"}},
		"a secret without an end": {"kv/db", "", store.Lease{}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, told := telling(&counting{lease: c.lease})
				ref := refTo(t, c.path)
				ref.Args = c.args
				running(t, s, func() {
					if _, err := s.Read(t.Context(), session("api", "a"), ref); err != nil {
						t.Fatal(err)
					}
					<-time.After(9 * time.Minute)
					if early := told.all(); len(early) > 0 {
						t.Errorf("told too early: %q", early)
					}
					<-time.After(3 * time.Minute)
				})
				if diff := cmp.Diff(c.want, told.all()); diff != "" {
					t.Errorf("told (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// Values that are mounted again and again are not reported, nor those of a volume known to be
// gone.
func TestForgottenNotYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := telling(&counting{lease: store.Lease{Duration: time.Hour, Renewable: true}})
		running(t, s, func() {
			for range 100 {
				got(t, s, session("api", "a"), "make/db")
				<-time.After(mountEvery)
			}
			s.Leave(auth.Volume{Namespace: "shop", PodUID: "uid-of-a", Class: "app"})
			<-time.After(time.Hour)
		})
		if lines := told.all(); len(lines) > 0 {
			t.Errorf("told %q", lines)
		}
	})
}
