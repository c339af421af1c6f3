package provider_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/storetest"
)

// startKept is a world whose store remembers, as Vault's does.
func startKept(t *testing.T) (*world, *loginStore) {
	t.Helper()
	l := &loginStore{Memory: storetest.NewMemory(), revoked: map[string]bool{}}
	w := start(t, func(_ *world, s *setup) {
		compiled, err := access.Compile("access", []access.Rule{{
			Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"{namespace}"}, Paths: []string{"{namespace}/**"},
		}}, true)
		if err != nil {
			t.Fatal(err)
		}
		s.options.Backends = []provider.Backend{{
			Name: "default", Audience: audience, Rules: compiled, Features: provider.Features{Roles: true},
			Store: store.Keep(store.LogIn(l, auth.NewSessions(l, false, time.Now), time.Now), store.KeepOptions{
				Refresh: time.Hour, Bytes: 64 << 20, Now: time.Now,
			}),
		}}
	})
	return w, l
}

// A mount whose secrets are remembered asks the store nothing, however they are spelt.
func TestWarmMountAsksNobody(t *testing.T) {
	w, l := startKept(t)
	l.Set("shop/db", map[string]any{"user": "shop", "password": canary})
	l.Set("shop/host", map[string]any{"name": "db"})
	const objects = `
- {path: shop/db, role: shop, key: user, file: user}
- {path: data/shop/db, role: shop, key: password, file: password}
- {path: data/shop/db, role: shop, file: dsn, template: '{{ .user }}@{{ (secret "shop/host").name }}/{{ (secret "shop/db").user }}'}
- {path: shop/none, role: shop, file: none, key: x, optional: true}`
	for i := range 3 {
		files, _, err := w.mount(t, w.volume(pod("shop", "api"), objects))
		if err != nil || len(files) != 3 || files["user"] != "shop" || files["password"] != canary || files["dsn"] != "shop@db/shop" {
			t.Fatalf("got %d files, %v", len(files), err)
		}
		if i == 0 && l.Reads() != 3 {
			t.Errorf("%d reads, want one of each secret", l.Reads())
		}
	}
	if l.Reads() != 3 || len(l.logins) != 1 {
		t.Errorf("%d reads and logins %q after three mounts", l.Reads(), l.logins)
	}
	if got := strings.Count(string(w.log.Bytes()), `"reads":2`); got != 3 { // without the absent one
		t.Errorf("%d log lines say that two secrets were read, want 3:\n%s", got, w.log.Bytes())
	}
}

// Rules are judged on what is remembered of a path, too.
func TestWarmMountIsJudged(t *testing.T) {
	w, l := startKept(t)
	l.Set("blog/db", map[string]any{"password": canary})
	for range 2 {
		w.refused(t, w.volume(pod("shop", "api"), "[{path: data/blog/db, role: shop, key: password, file: a}]"), codes.PermissionDenied,
			`objects[0]: secret "data/blog/db" of store "default" as role "shop": not allowed: service account shop/api may not read "blog/db" of store "default" with role "shop"; no rule under access of that store in keymount.yaml allows it`)
	}
}

// What is remembered counts against what one mount may read.
func TestWarmMountIsBounded(t *testing.T) {
	w, l := startKept(t)
	var all []string
	for i := range 4 {
		l.Set(fmt.Sprintf("shop/%d", i), map[string]any{"key": "x", "more": strings.Repeat("x", 2<<20)})
		object := fmt.Sprintf("{path: shop/%d, role: shop, key: key, file: f%d}", i, i)
		all = append(all, object)
		if _, _, err := w.mount(t, w.volume(pod("shop", "api"), "["+object+"]")); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := w.mount(t, w.volume(pod("shop", "api"), "["+strings.Join(all, ", ")+"]"))
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(statusText(err), "the secrets of one mount are larger together than what the driver takes") {
		t.Errorf("got %v", err)
	}
	if l.Reads() != 4 {
		t.Errorf("%d reads, want 4: this test is of what is remembered", l.Reads())
	}
}

// Nothing is read, and so nothing is made, before all of a mount is allowed.
func TestAllIsJudgedBeforeAnyIsRead(t *testing.T) {
	w, l := startWithLogins(t)
	w.refused(t, w.volume(pod("shop", "api"), "[{path: shop/db, store: logins, role: shop, key: password, file: a}, {path: data/blog/db, store: logins, role: shop, key: password, file: b}]"),
		codes.PermissionDenied, `objects[1]: secret "data/blog/db" of store "logins" as role "shop": not allowed: service account shop/api may not read "blog/db" of store "logins" with role "shop"; no rule under access of that store in keymount.yaml allows it`)
	if l.Reads() != 0 {
		t.Errorf("%d reads for a mount that is not allowed", l.Reads())
	}
}

// An optional object whose path is nowhere is absent, and nothing is read there.
func TestOptionalPathThatIsNowhere(t *testing.T) {
	w, l := startWithLogins(t)
	l.Set("shop/db", map[string]any{"password": canary})
	files, _, err := w.mount(t, w.volume(pod("shop", "api"), `
- {path: shop/db, store: logins, role: shop, key: password, file: a}
- {path: nowhere/db, store: logins, role: shop, key: password, file: b, optional: true}
- {path: nowhere/web, store: logins, role: shop, key: password, file: c, optional: true}`))
	if err != nil || len(files) != 1 || files["a"] != canary {
		t.Errorf("got %d files, %v", len(files), err)
	}
	if l.Reads() != 1 {
		t.Errorf("%d reads, want that of the one that is there", l.Reads())
	}
	w.refused(t, w.volume(pod("shop", "api"), "[{path: nowhere/db, store: logins, role: shop, key: password, file: b}]"), codes.NotFound,
		`objects[0]: secret "nowhere/db" of store "logins" as role "shop": not found: nothing is mounted at "nowhere"`)
}

// Two spellings of a secret are one read, also in what is said of its failure.
func TestSpellingsAreOneRead(t *testing.T) {
	w, l := startWithLogins(t)
	const objects = "[{path: data/shop/none, store: logins, role: shop, key: a, file: a}, {path: shop/none, store: logins, role: shop, key: b, file: b}]"
	w.refused(t, w.volume(pod("shop", "api"), objects), codes.NotFound,
		`objects[0], objects[1]: secret "data/shop/none" of store "logins" as role "shop": not found: no secret at "shop/none"`)
	if l.Reads() != 1 {
		t.Errorf("%d reads of one secret", l.Reads())
	}
}

// A credential that is shared is so for what a template names beside it, too.
func TestTemplatesOfSharedCredentials(t *testing.T) {
	w, l := startWithLogins(t)
	l.Set("shop/host", map[string]any{"name": "db"})
	files, _, err := w.mount(t, w.volume(pod("shop", "api"),
		`[{path: shop/db, store: logins, role: shop, lease: shared, file: dsn, template: '{{ .password }}@{{ (secret "shop/host").name }}'}]`))
	if err != nil || files["dsn"] != canary+"@db" {
		t.Errorf("got %v", err)
	}
}
