package provider_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/turns"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

const tooMuch = "too large: the secrets of one mount are larger together than what the driver takes, and take more than 12 MiB of memory; split the class"

// withRoom runs a provider with this room.
func withRoom(m *room.Mounts) func(*world, *setup) {
	return func(_ *world, s *setup) { s.options.Room = m }
}

// onePlace is a room in which a mount that does not leave its place is seen at once.
func onePlace() *room.Mounts { return room.NewMounts(0, 1, time.Now) }

// listing is a class with the key of so many secrets of the namespace shop.
func listing(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- {path: shop/%d, role: shop, key: key, file: f%d}\n", i, i)
	}
	return b.String()
}

// tiny is a list of objects that take so many times what they look like.
func tiny(n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = map[string]any{}
	}
	return list
}

// What a mount holds is bounded as a whole, whatever its store and whether it is
// remembered.
func TestMountsHoldNoMoreThanTheirShare(t *testing.T) {
	withKept, l := startKept(t)
	plain := start(t)
	for i := range 7 {
		data := map[string]any{"key": "x", "more": strings.Repeat("x", 3<<20)}
		l.Set(fmt.Sprintf("shop/%d", i), data)
		plain.memory.Set(fmt.Sprintf("shop/%d", i), data)
	}
	without := func(class string) string { return strings.ReplaceAll(class, " role: shop,", "") }
	for name, test := range map[string]struct {
		world      *world
		some, many string
	}{
		"remembered": {withKept, listing(3), listing(5)},
		"direct":     {plain, without(listing(3)), without(listing(5))},
	} {
		t.Run(name, func(t *testing.T) {
			for _, when := range []string{"cold", "warm"} {
				if _, _, err := test.world.mount(t, test.world.volume(pod("shop", "api"), test.many)); status.Code(err) != codes.FailedPrecondition || !strings.HasSuffix(statusText(err), tooMuch) {
					t.Errorf("15 MiB, %s: %v", when, err)
				}
				if files, _, err := test.world.mount(t, test.world.volume(pod("shop", "api"), test.some)); err != nil || len(files) != 3 {
					t.Errorf("9 MiB, %s: %v", when, err)
				}
			}
		})
	}
}

// No further secret is read once a mount holds too much, optional or not.
func TestNothingIsReadBeyondTheShare(t *testing.T) {
	w := start(t, func(_ *world, s *setup) { s.options.ParallelReads = 1 })
	class := ""
	for i := range 100 {
		w.memory.Set(fmt.Sprintf("shop/%d", i), map[string]any{"key": "x", "more": strings.Repeat("x", 4<<20)})
		class += fmt.Sprintf("- {path: shop/%d, key: key, file: f%d, optional: true}\n", i, i)
	}
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), class)); !strings.HasSuffix(statusText(err), tooMuch) {
		t.Errorf("got %v", err)
	}
	if n := w.memory.Reads(); n > 12 {
		t.Errorf("%d secrets of 4 MiB were read, and a share is half of the pool, and 12 MiB in a place", n)
	}
}

// Many secrets of tiny objects end with an answer that says so, and the next pod's mount
// is served.
func TestManyTinyObjects(t *testing.T) {
	tree, err := secret.NewTree(map[string]any{"key": tiny(350_000)}) // 1 MiB as JSON
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, withRoom(onePlace()), func(w *world, s *setup) {
		s.options.Backends[0].Store = direct(kind.Layers{Store: alike{w.memory, "shop", tree}})
	})
	w.memory.Set("blog/db", map[string]any{"password": canary})
	class := strings.ReplaceAll(listing(60), " role: shop,", "")
	for range 2 {
		if _, _, err := w.mount(t, w.volume(pod("shop", "api"), class)); status.Code(err) != codes.FailedPrecondition || !strings.HasSuffix(statusText(err), tooMuch) {
			t.Errorf("got %v", err)
		}
		if _, _, err := w.mount(t, w.volume(pod("blog", "web"), "[{path: blog/db, key: password, file: f}]")); err != nil {
			t.Errorf("the next pod: %v", err)
		}
	}
}

// alike is a store with one secret at every path below a namespace.
type alike struct {
	store.Store

	namespace string
	tree      secret.Tree
}

func (a alike) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	if ref.Path.Segments()[0] == a.namespace {
		return store.Value{Data: a.tree}, nil
	}
	return a.Store.Read(ctx, caller, ref)
}

// A large mount waits for a place, and a small one does not.
func TestLargeMountsWait(t *testing.T) {
	q := onePlace()
	w := start(t, withRoom(q))
	for _, namespace := range []string{"shop", "blog"} {
		w.memory.Set(namespace+"/large", map[string]any{"key": strings.Repeat("x", 2<<20)})
		w.memory.Set(namespace+"/small", map[string]any{"key": strings.Repeat("x", room.Small/2)})
	}
	large := func(namespace string) providertest.Volume {
		return w.volume(pod(namespace, "api"), "[{path: "+namespace+"/large, key: key, file: f}]")
	}
	place, err := q.Place(t.Context(), turns.Of{Namespace: "cart"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	attributes, err := large("shop").Attributes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.driver.Call(ctx, attributes); err == nil || !strings.Contains(statusText(err), "no time was left in the queue of large mounts") && status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a large mount did not wait: %v", err)
	}
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/small, key: key, file: f}]")); err != nil {
		t.Errorf("a small mount: %v", err)
	}
	place.End()
	var both sync.WaitGroup
	for _, namespace := range []string{"shop", "blog"} {
		both.Go(func() {
			if files, _, err := w.mount(t, large(namespace)); err != nil || len(files["f"]) != 2<<20 {
				t.Errorf("a large mount of %s: %v", namespace, err)
			}
		})
	}
	both.Wait()
}

// What mounts take of the pool is given back, also by those that find it too empty.
func TestPoolOfMountsIsGivenBack(t *testing.T) {
	m := room.NewMounts(4<<20, 1, time.Now)
	w := start(t, withRoom(m))
	w.memory.Set("shop/huge", map[string]any{"key": "x", "more": strings.Repeat("x", 6<<20)})
	w.memory.Set("shop/large", map[string]any{"key": "x", "more": strings.Repeat("x", 2<<20)})
	for range 3 {
		for _, name := range []string{"huge", "large"} {
			if _, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/"+name+", key: key, file: f}]")); err != nil {
				t.Error(err)
			}
		}
	}
	place, err := m.Place(t.Context(), turns.Of{Namespace: "cart"})
	if err != nil {
		t.Fatal(err)
	}
	defer place.End()
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/large, key: key, file: f}]")); err != nil {
		t.Errorf("with the place taken: %v", err)
	}
}

// However a large mount ends, its place is given back.
func TestPlacesOfMountsAreGivenBack(t *testing.T) {
	q := onePlace()
	panicking := &second{}
	w := start(t, withRoom(q), func(w *world, s *setup) {
		panicking.Store = w.memory
		s.options.Backends[0].Store = direct(kind.Layers{Store: panicking})
	})
	w.memory.Set("shop/large", map[string]any{"key": strings.Repeat("x", 2<<20)})
	w.memory.Set("shop/0", map[string]any{"key": strings.Repeat("x", 25<<20)})
	for name, test := range map[string]struct {
		objects string
		then    func(context.Context) error
		code    codes.Code
	}{
		"well":                 {"[{path: shop/large, key: key, file: f}]", nil, codes.OK},
		"with too much":        {"[{path: shop/0, key: key, file: f}]", nil, codes.FailedPrecondition},
		"without a key":        {"[{path: shop/large, key: none, file: f}]", nil, codes.NotFound},
		"in a panic":           {"[{path: shop/large, key: key, file: f}]", func(context.Context) error { panic("a bug") }, codes.Internal},
		"with another answer":  {"[{path: shop/large, key: key, file: f}]", func(context.Context) error { return store.Denied }, codes.PermissionDenied},
		"with a broken format": {"[{path: shop/large, key: key, encoding: hex, file: f}]", nil, codes.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			panicking.set(test.then)
			if _, _, err := w.mount(t, w.volume(pod("shop", "api"), test.objects)); status.Code(err) != test.code {
				t.Errorf("got %v, want %s", err, test.code)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			place, err := q.Place(ctx, turns.Of{Namespace: "blog"})
			if err != nil {
				t.Fatalf("the place is gone: %v", err)
			}
			place.End()
		})
	}
}

// second is a store that does something else at every second read.
type second struct {
	store.Store

	mu    sync.Mutex
	reads int
	then  func(context.Context) error
}

func (s *second) set(then func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads, s.then = 0, then
}

func (s *second) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	s.mu.Lock()
	s.reads++
	then := s.then
	if s.reads%2 == 1 {
		then = nil
	}
	s.mu.Unlock()
	if then != nil {
		if err := then(ctx); err != nil {
			return store.Value{}, err
		}
	}
	return s.Store.Read(ctx, caller, ref)
}
