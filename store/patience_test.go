package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRetryUntilAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := newShop()
		memory.Behave(failing(3, store.Unavailable, memory))
		start := time.Now()
		value, err := patiently(t.Context(), memory, shopDB(t))
		if err != nil {
			t.Fatal(err)
		}
		if keys := value.Data.Keys(); len(keys) != 1 {
			t.Errorf("keys %q", keys)
		}
		if memory.Reads() != 4 {
			t.Errorf("%d reads, want 4", memory.Reads())
		}
		// Pauses of at most 100, 200 and 400 ms, each at least half of that.
		if took := time.Since(start); took < 350*time.Millisecond || took > 700*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// What no other try mends is the answer at once.
func TestNoRetryOfWhatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, start := newShop(), time.Now()
		lasting := store.Unavailable.Errorf("its certificate is not trusted")
		lasting.Lasting = true
		memory.Behave(failing(1, lasting, memory))
		if _, err := patiently(t.Context(), memory, shopDB(t)); !errors.Is(err, store.Unavailable) || memory.Reads() != 1 || time.Since(start) != 0 {
			t.Errorf("%v after %d reads and %v", err, memory.Reads(), time.Since(start))
		}
	})
}

func TestRetryEndsWithTheLastCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		memory, start := newShop(), time.Now()
		memory.Behave(func(context.Context, store.Caller, store.Ref) error {
			return store.Unavailable.Errorf("attempt %d", memory.Reads())
		})
		_, err := patiently(ctx, memory, shopDB(t))
		if want := fmt.Sprintf("store unavailable: attempt %d", memory.Reads()); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if took := time.Since(start); took != 25*time.Second {
			t.Errorf("took %v, want what the context gives", took)
		}
		// Pauses grow to between one and two seconds: no storm, and no giving up.
		if reads := memory.Reads(); reads < 14 || reads > 30 {
			t.Errorf("%d reads in 25 s", reads)
		}
	})
}

func TestRetryOnlyUnavailable(t *testing.T) {
	for _, kind := range []error{store.NotFound, store.Denied, store.Invalid} {
		t.Run(kind.Error(), func(t *testing.T) {
			memory := newShop()
			memory.Behave(failing(1, kind, memory))
			_, err := patiently(t.Context(), memory, shopDB(t))
			if !errors.Is(err, kind) {
				t.Errorf("error %v, want %v", err, kind)
			}
			if memory.Reads() != 1 {
				t.Errorf("%d reads, want 1", memory.Reads())
			}
		})
	}
}

// A credential that may have been made is not asked for twice.
func TestWhatMayBeDoneIsNotAskedAgain(t *testing.T) {
	memory := newShop()
	memory.Behave(func(context.Context, store.Caller, store.Ref) error {
		return &store.Error{Reason: store.Unavailable, Said: "the answer breaks off", Uncertain: true}
	})
	_, err := patiently(t.Context(), memory, shopDB(t))
	const want = "store unavailable, and it may have been done: the answer breaks off"
	if !errors.Is(err, store.Unavailable) || err.Error() != want || memory.Reads() != 1 {
		t.Errorf("%d reads, error %v", memory.Reads(), err)
	}
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, began := newShop(), time.Now()
		memory.Behave(func(context.Context, store.Caller, store.Ref) error {
			if memory.Reads() > 1 {
				return nil
			}
			return &store.Error{Reason: store.Unavailable, Said: "throttled", RetryAfter: 7 * time.Second}
		})
		if _, err := patiently(t.Context(), memory, shopDB(t)); err != nil || time.Since(began) != 7*time.Second {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}

func patiently(ctx context.Context, s store.Store, ref store.Ref) (store.Value, error) {
	return store.Patiently(ctx, func() (store.Value, error) { return s.Read(ctx, store.Caller{}, ref) })
}

func newShop() *storetest.Memory {
	memory := storetest.NewMemory()
	memory.Set("shop/db", map[string]any{"password": "x"})
	return memory
}

func shopDB(t *testing.T) store.Ref {
	t.Helper()
	path, err := store.ParsePath("shop/db")
	if err != nil {
		t.Fatal(err)
	}
	return store.Ref{Path: path}
}

// failing fails the first reads and lets the later ones through.
func failing(times int, kind error, memory *storetest.Memory) func(context.Context, store.Caller, store.Ref) error {
	return func(context.Context, store.Caller, store.Ref) error {
		if memory.Reads() > times {
			return nil
		}
		return fmt.Errorf("%w: on purpose", kind)
	}
}

// A call that waits for a store goes on at once when it answers again, with short pauses.
func TestRetryWhenTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back, tries, start := make(chan struct{}), 0, time.Now()
		time.AfterFunc(10*time.Second, func() { close(back) })
		took, err := store.Patiently(t.Context(), func() (time.Duration, error) {
			tries++
			switch tries {
			case 1:
				return 0, &store.Error{Reason: store.Unavailable, RetryAfter: time.Minute, Back: back}
			case 2:
				return 0, store.Unavailable
			}
			return time.Since(start), nil
		})
		if err != nil || tries != 3 || took < 10*time.Second || took > 10*time.Second+200*time.Millisecond {
			t.Errorf("%d tries, the last after %s, %v", tries, took, err)
		}
	})
}
