package keep_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// scripted is a store that answers as the test wants, and counts.
type scripted struct {
	answer func() (store.Value, error)
	reads  int
}

func (s *scripted) Read(context.Context, login.Request, store.Ref) (store.Value, error) {
	s.reads++
	return s.answer()
}

// fails has it fail from now on.
func (s *scripted) fails(err error) {
	s.answer = func() (store.Value, error) { return store.Value{}, err }
}

func (s *scripted) gives(value store.Value) {
	s.answer = func() (store.Value, error) { return value, nil }
}

// refusal is the answer of a store to a login.
func refusal(t *testing.T) error {
	t.Helper()
	_, err := login.NewSessions(refusing{}, false, time.Now).Open(t.Context(), session("api", "a").Identity, secret.Bytes{}, "shop")
	if !login.Refused(err) {
		t.Fatalf("%v is no refusal", err)
	}
	return err
}

type refusing struct{}

func (refusing) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	return login.Login{}, store.Denied.Errorf("no")
}

// pause is how long the store is not asked after a failure.
func pause(t *testing.T, s kept, inner *scripted, path string) time.Duration {
	t.Helper()
	_, _ = s.Read(t.Context(), session("api", "a"), refTo(t, path))
	before := inner.reads
	for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(time.Second) {
		if _, _ = s.Read(t.Context(), session("api", "a"), refTo(t, path)); inner.reads > before {
			return time.Since(began)
		}
	}
	t.Fatal("the store is not asked again")
	return 0
}

// A failure is the answer for a pause of its own, so that no pod's retries cost the store
// more, and a cure is seen soon.
func TestPausesAfterFailures(t *testing.T) {
	short := store.Value{Lease: &store.Lease{Duration: time.Minute}}
	throttled := func(pause time.Duration) error {
		return &store.Error{Reason: store.Unavailable, RetryAfter: pause}
	}
	for name, test := range map[string]struct {
		refresh time.Duration
		err     error // nil is the short lease
		want    time.Duration
	}{
		"denied":                      {time.Hour, store.Denied.Errorf("no"), 5 * time.Second},
		"denied, read at each mount":  {0, store.Denied.Errorf("no"), 5 * time.Second},
		"in doubt":                    {time.Hour, store.Doubt.Errorf("no"), 5 * time.Second},
		"ended":                       {time.Hour, store.Ended.Errorf("no"), 5 * time.Second},
		"not found":                   {time.Hour, store.NotFound.Errorf("no"), 5 * time.Second},
		"not found, refreshed often":  {2 * time.Second, store.NotFound.Errorf("no"), 2 * time.Second},
		"not found, at each mount":    {0, store.NotFound.Errorf("no"), 0},
		"invalid":                     {time.Hour, store.Invalid.Errorf("no"), time.Minute},
		"invalid, refreshed often":    {20 * time.Second, store.Invalid.Errorf("no"), 20 * time.Second},
		"invalid, at each mount":      {0, store.Invalid.Errorf("no"), 0},
		"unavailable":                 {time.Second, store.Unavailable.Errorf("no"), 0},
		"throttled":                   {time.Second, throttled(3 * time.Second), 3 * time.Second},
		"throttled for long":          {time.Second, throttled(time.Hour), 5 * time.Second},
		"a login refused":             {time.Hour, refusal(t), 0},
		"a bug":                       {time.Hour, errors.New("a bug"), 0},
		"a short life":                {time.Hour, nil, time.Minute},
		"a short life, at each mount": {0, nil, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &scripted{}
				s := newKept(login.Store{Reader: inner}, keep.Options{Refresh: test.refresh, Stale: time.Hour, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now})
				if inner.fails(test.err); errors.Is(test.err, store.Unavailable) {
					inner.gives(store.Value{}) // without a value a mount asks again by itself
					got, err := s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db"))
					if err != nil || got.Source != keep.FromStore {
						t.Fatalf("got %+v, %v", got, err)
					}
					inner.fails(test.err)
					time.Sleep(2 * test.refresh)
				}
				if test.err == nil {
					inner.gives(short)
				}
				if got := pause(t, s, inner, "kv/db"); got != test.want {
					t.Errorf("a pause of %s, want %s", got, test.want)
				}
			})
		})
	}
}

// Denials in a row make the pause longer, up to a minute, and an answer ends that.
func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &scripted{}
		s := newKept(login.Store{Reader: inner}, keep.Options{Pool: poolOf(1 << 20), Now: time.Now})
		began := time.Now()
		var asked []string
		inner.answer = func() (store.Value, error) {
			asked = append(asked, time.Since(began).String())
			return store.Value{}, store.Denied.Errorf("no")
		}
		for range 200 {
			_, _ = s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db"))
			time.Sleep(time.Second)
		}
		if got, want := fmt.Sprint(asked), "[0s 5s 15s 35s 1m15s 2m15s 3m15s]"; got != want {
			t.Errorf("asked after %s, want %s", got, want)
		}
		time.Sleep(time.Minute)
		inner.gives(store.Value{})
		if _, err := s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db")); err != nil {
			t.Error(err)
		}
		inner.fails(store.Denied.Errorf("no"))
		if got := pause(t, s, inner, "kv/db"); got != 5*time.Second {
			t.Errorf("after an answer a pause of %s", got)
		}
	})
}

// A panic of a store is the failure of one mount, with the stack for the log.
func TestStoreThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &scripted{answer: func() (store.Value, error) { panic("on purpose") }}
		s := newKept(login.Store{Reader: inner, Resolver: panicking{}}, keep.Options{Pool: poolOf(1 << 20), Now: time.Now})
		_, read := s.Keeper.Read(t.Context(), session("api", "a"), refTo(t, "kv/db"), store.Resolved{Path: refTo(t, "kv/db").Path})
		_, resolved := s.Resolve(t.Context(), session("api", "a"), refTo(t, "kv/db"))
		for step, err := range map[string]error{"a read": read, "a path": resolved} {
			if p, ok := errors.AsType[*contain.Panic](err); !ok || p.Stack == "" {
				t.Errorf("%s: got %v", step, err)
			}
		}
	})
}

type panicking struct{}

func (panicking) Resolve(context.Context, login.Request, store.Ref) (store.Resolved, error) {
	panic("on purpose")
}

// A pause ends when the store answers again.
func TestPauseEndsWithTheOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &scripted{}
		s := newKept(login.Store{Reader: inner}, keep.Options{Refresh: time.Second, Stale: time.Hour, Pool: poolOf(1 << 20), Now: time.Now})
		read := func(source keep.Source, reads int) {
			t.Helper()
			got, err := s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db"))
			if err != nil || got.Source != source || inner.reads != reads {
				t.Errorf("from %s after %d reads, %v; want from %s after %d", got.Source, inner.reads, err, source, reads)
			}
		}
		inner.gives(store.Value{})
		read(keep.FromStore, 1)
		time.Sleep(2 * time.Second)
		back := make(chan struct{})
		inner.fails(&store.Error{Reason: store.Unavailable, RetryAfter: time.Hour, Back: back})
		read(keep.Stale, 2)
		time.Sleep(time.Second)
		read(keep.Stale, 2)
		close(back)
		inner.gives(store.Value{})
		read(keep.FromStore, 3)
	})
}
