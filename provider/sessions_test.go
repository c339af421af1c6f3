package provider_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

// loginStore is a store with logins and two spellings of a path, as Vault has:
// data/ in front means the same, meta/ is no ordinary secret.
type loginStore struct {
	*storetest.Memory
	mu      sync.Mutex
	logins  []string
	revoked map[string]bool
}

func (l *loginStore) Login(_ context.Context, i auth.Identity, _ secret.Bytes, role string) (login.Login, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logins = append(l.logins, i.Namespace+"/"+i.ServiceAccount+" as "+role)
	if role == "unbound" {
		return login.Login{}, store.Denied.Errorf("login as role %q", role)
	}
	return login.Login{Token: secret.New(fmt.Appendf(nil, "token-%d", len(l.logins)))}, nil
}

func (l *loginStore) Resolve(_ context.Context, _ store.Caller, ref store.Ref) (store.Resolved, error) {
	if first := ref.Path.Segments()[0]; first == "nowhere" {
		return store.Resolved{}, store.NotFound.Errorf("nothing is mounted at %q", first)
	}
	return resolve(ref)
}

func resolve(ref store.Ref) (store.Resolved, error) {
	first, name, _ := strings.Cut(ref.Path.String(), "/")
	if first == "meta" || first == "hidden" {
		return store.Resolved{Path: ref.Path, Literal: first}, nil
	}
	if first != "data" {
		name = ref.Path.String()
	}
	path, err := store.ParsePath(name)
	return store.Resolved{Path: path}, err
}

func (l *loginStore) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	l.mu.Lock()
	ended := l.revoked[string(caller.Login.Reveal())]
	l.mu.Unlock()
	if ended {
		return store.Value{}, store.Ended.Errorf("revoked")
	}
	resolved, err := resolve(ref)
	if err != nil {
		return store.Value{}, err
	}
	return l.Memory.Read(ctx, caller, store.Ref{Path: resolved.Path})
}

func startWithLogins(t *testing.T, more ...func(*world, *setup)) (*world, *loginStore) {
	t.Helper()
	l := &loginStore{Memory: storetest.NewMemory(), revoked: map[string]bool{}}
	w := start(t, append(more, func(_ *world, s *setup) {
		compiled, err := access.Compile("access", []access.Rule{{
			Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"{namespace}", "unbound"}, Paths: []string{"{namespace}/**", "meta/*", "*/shop"},
		}}, access.Kind{Roles: access.Required, Writes: true})
		if err != nil {
			t.Fatal(err)
		}
		s.options.Backends = append(s.options.Backends, provider.Backend{
			Name: "logins", Audience: audience, Rules: compiled, Class: class.Store{Traits: kind.Traits{Roles: access.Required}},
			Store: direct(storetest.LayersOf(l, l)), Resolves: true,
		})
	})...)
	l.Set("shop/db", map[string]any{"password": canary})
	return w, l
}

func TestOneLoginForManyMounts(t *testing.T) {
	w, l := startWithLogins(t)
	const objects = "[{path: shop/db, store: logins, role: shop, key: password, file: a}, {path: data/shop/db, store: logins, role: shop, key: password, file: b}]"
	for range 3 {
		files, _, err := w.mount(t, w.volume(pod("shop", "api"), objects))
		if err != nil || files["a"] != canary || files["b"] != canary {
			t.Fatalf("got %v", err)
		}
	}
	if len(l.logins) != 1 || l.logins[0] != "shop/api as shop" {
		t.Errorf("logins %q", l.logins)
	}
	l.mu.Lock()
	l.revoked["token-1"] = true
	l.mu.Unlock()
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), objects)); err != nil {
		t.Errorf("after its session ended: %v", err)
	}
	if len(l.logins) != 2 {
		t.Errorf("logins %q", l.logins)
	}
}

// An endpoint and a secret that are spelt alike are two things.
func TestLiteralPathsShareNothing(t *testing.T) {
	w, l := startWithLogins(t)
	l.Set("meta/db", map[string]any{"password": "the secret of that name"})
	l.Set("meta/db", map[string]any{"password": "the secret of that name"})
	objects := "[{path: meta/db, store: logins, role: shop, key: password, file: a}, {path: data/meta/db, store: logins, role: shop, key: password, file: b}]"
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), objects)); err != nil {
		t.Fatal(err)
	}
	if l.Reads() != 2 {
		t.Errorf("%d reads for two things that are spelt alike", l.Reads())
	}
}

// Rules are judged before the login as far as they can be, and on the one
// spelling of a path before it is read.
func TestRulesAroundLogins(t *testing.T) {
	w, l := startWithLogins(t)
	for _, test := range []struct {
		fields, want string
		code         codes.Code
		logins       int
	}{
		{
			"path: shop/db, role: admin", `not allowed: service account shop/api may not use store "logins" with role "admin"; no rule under access of that store in keymount.yaml allows it`,
			codes.PermissionDenied, 0,
		},
		{
			"path: data/blog/db, role: shop", `secret "data/blog/db" of store "logins" as role "shop": not allowed: service account shop/api may not read "blog/db" of store "logins" with role "shop"; no rule under access of that store in keymount.yaml allows it`,
			codes.PermissionDenied, 1,
		},
		{
			"path: shop/none, role: shop", `secret "shop/none" of store "logins" as role "shop": not found: no secret at "shop/none"`,
			codes.NotFound, 1,
		},
		{
			"path: shop/db, role: unbound", `secret "shop/db" of store "logins" as role "unbound": denied by the store: login as role "unbound"`,
			codes.PermissionDenied, 2,
		},
	} {
		w.refused(t, w.volume(pod("shop", "api"), "[{store: logins, key: password, file: a, "+test.fields+"}]"), test.code, "objects[0]: "+test.want)
		if len(l.logins) != test.logins {
			t.Errorf("%s: logins %q, want %d", test.fields, l.logins, test.logins)
		}
	}
	if l.Reads() != 1 {
		t.Errorf("the store was read %d times, want once", l.Reads())
	}
	w.refused(t, w.volume(pod("shop", "api"), "[{store: logins, role: shop, path: hidden/shop, key: password, file: a}]"), codes.PermissionDenied,
		`objects[0]: secret "hidden/shop" of store "logins" as role "shop": not allowed: service account shop/api may not read "hidden/shop" of store "logins" with role "shop"; no rule under access of that store in keymount.yaml allows it`)
	w.refused(t, w.volume(pod("shop", "api"), "[{store: logins, role: shop, path: meta/x, key: password, file: a}]"), codes.NotFound,
		`objects[0]: secret "meta/x" of store "logins" as role "shop": not found: no secret at "meta/x"`)
}
