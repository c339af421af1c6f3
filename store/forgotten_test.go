package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store"
)

// dated is a store whose paths below dated/ end after an hour.
type dated struct{ *counting }

func (d dated) Read(ctx context.Context, session store.Session, ref store.Ref) (store.Value, error) {
	value, err := d.counting.Read(ctx, session, ref)
	if ref.Path.Segments()[0] == "dated" {
		value.NotAfter = time.Now().Add(time.Hour)
	}
	return value, err
}

// tellings are what was told to be forgotten, each with its end from the start on.
type tellings struct {
	mu    sync.Mutex
	lines []string
}

func (l *tellings) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.lines...)
}

func telling(inner *counting) (store.Kept, *tellings) {
	told, start := &tellings{}, time.Now()
	return store.Keep(dated{inner}, store.KeepOptions{
		Refresh: refresh, Replace: replace, Bytes: 1 << 20, Now: time.Now,
		Forgotten: func(_ context.Context, f store.Forgotten) {
			told.mu.Lock()
			defer told.mu.Unlock()
			told.lines = append(told.lines, fmt.Sprintf("%s/%s (%s, %s) %s: %s in %s",
				f.Pod.Namespace, f.Pod.Name, f.Pod.UID, f.Pod.ServiceAccount, f.Class, f.Path, f.Ends.Sub(start)))
		},
	}), told
}

// What has an end is told of when nobody mounts it any more, and nothing else is.
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

// Of what is mounted again and again there is nothing to tell, nor of a volume that is
// known to be gone.
func TestForgottenNotYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := telling(&counting{lease: store.Lease{Duration: time.Hour, Renewable: true}})
		running(t, s, func() {
			for range 100 {
				got(t, s, session("api", "a"), "make/db")
				<-time.After(mountEvery)
			}
			s.Leave("shop", "uid-of-a", "app")
			<-time.After(time.Hour)
		})
		if lines := told.all(); len(lines) > 0 {
			t.Errorf("told %q", lines)
		}
	})
}
