package storetest_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	storetest.Read(t, func(_ *testing.T, secrets map[string]map[string]any) storetest.Subject {
		memory := storetest.NewMemory()
		for path, data := range secrets {
			memory.Set(path, data)
		}
		return storetest.Subject{Store: memory, Faults: memory.Faults()}
	})
}

func TestMemoryChanges(t *testing.T) {
	memory := storetest.NewMemory()
	data := map[string]any{"hosts": []any{"a"}}
	memory.Set("shop/db", data)
	data["hosts"].([]any)[0] = "changed by the test"
	if got := read(t, memory); got != `["a"]` {
		t.Errorf("after Set: %s", got)
	}
	memory.Set("shop/db", map[string]any{"hosts": "b"})
	if got := read(t, memory); got != "b" {
		t.Errorf("after a second Set: %s", got)
	}
	memory.Remove("shop/db")
	if got := read(t, memory); got != "not found" {
		t.Errorf("after Remove: %s", got)
	}
	if got := memory.Reads(); got != 3 {
		t.Errorf("Reads() = %d, want 3", got)
	}
}

func TestMemoryBehave(t *testing.T) {
	memory := storetest.NewMemory()
	memory.Set("shop/db", map[string]any{"hosts": "a"})
	memory.Behave(func(_ context.Context, session store.Caller, ref store.Ref) error {
		if session.Role != "tester" || ref.Path.String() != "shop/db" {
			t.Errorf("asked for %v by %q", ref.Path, session.Role)
		}
		return store.NotFound
	})
	if got := read(t, memory); got != "not found" {
		t.Errorf("while it misbehaves: %s", got)
	}
	memory.Behave(nil)
	if got := read(t, memory); got != "a" {
		t.Errorf("after it: %s", got)
	}
	if got := memory.Reads(); got != 2 {
		t.Errorf("Reads() = %d, want 2", got)
	}
}

// read tells what shop/db says of its hosts.
func read(t *testing.T, s store.Store) string {
	t.Helper()
	path, err := store.ParsePath("shop/db")
	if err != nil {
		t.Fatal(err)
	}
	value, err := s.Read(t.Context(), store.Caller{Role: "tester"}, store.Ref{Path: path})
	if errors.Is(err, store.NotFound) {
		return "not found"
	}
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := value.Data.Get("hosts")
	if err != nil {
		t.Fatal(err)
	}
	text, err := hosts.Text()
	if err != nil {
		t.Fatal(err)
	}
	return string(text.Reveal())
}
