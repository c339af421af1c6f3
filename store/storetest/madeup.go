package storetest

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// testMadeUp holds for the stand-in of a store, if its kind has one: it has what it was given,
// in each spelling of the path, and tells what it lacks as the store does.
func (s KindSubject) testMadeUp(t *testing.T) {
	t.Helper()
	settings := s.read(t, s.Settings)
	if _, has := settings.(kind.MadeUp); !has {
		t.Skip("nothing can stand in for such a store")
	}
	for _, text := range s.Paths {
		tree, err := secret.NewTree(map[string]any{"key": Canary})
		if err != nil {
			t.Fatal(err)
		}
		layers, err := kind.OpenMadeUp(settings, kind.Env{Log: slog.New(slog.DiscardHandler), Now: time.Now}, map[string]secret.Tree{text: tree})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		value, err := readMadeUp(t, layers, settings, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if part, err := value.Data.Get("key"); err != nil || part.Reveal() != Canary {
			t.Errorf("%s: the key has another value: %v", text, err)
		}
		if _, err := readMadeUp(t, layers, settings, text+"-absent"); !errors.Is(err, store.NotFound) {
			t.Errorf("%s-absent: %v, want %s", text, err, store.NotFound)
		}
	}
}

// readMadeUp logs in, resolves and reads, as far as the store has these.
func readMadeUp(t *testing.T, layers kind.Layers, settings kind.Settings, text string) (store.Value, error) {
	t.Helper()
	path, err := settings.Path(text)
	if err != nil {
		t.Fatal(err)
	}
	caller := store.Caller{Identity: auth.Identity{Namespace: "shop", ServiceAccount: "api"}, Role: "shop"}
	if layers.Login != nil {
		login, err := layers.Login.Login(t.Context(), caller.Identity, secret.New([]byte("fake token")), caller.Role)
		if err != nil {
			t.Fatalf("log in: %v", err)
		}
		caller.Login = login.Token
	}
	ref := store.Ref{Path: path}
	if layers.Resolver != nil {
		resolved, err := layers.Resolve(t.Context(), caller, ref)
		if err != nil {
			t.Fatalf("resolve %s: %v", text, err)
		}
		ref.Path = resolved.Path
	}
	return layers.Read(t.Context(), caller, ref)
}
