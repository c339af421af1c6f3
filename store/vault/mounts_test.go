package vault_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/store/vault"
)

// namesMounts is a Vault that names as the mount of a path what mount makes of it.
func namesMounts(t *testing.T, configured map[string]vault.Engine, mount func(path string) (name, kind string)) (*vault.Conn, *vault.Store) {
	t.Helper()
	conn := stands(t, func(w http.ResponseWriter, r *http.Request) {
		if path, ok := strings.CutPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/"); ok {
			name, kind := mount(path)
			reply(w, map[string]any{"data": map[string]any{"path": name, "type": kind, "options": map[string]any{"version": "2"}}})
			return
		}
		reply(w, map[string]any{"data": map[string]any{"data": map[string]any{"a": "b"}, "metadata": map[string]any{"version": 1}}})
	})
	return conn, vault.New(conn, "", configured)
}

// What belongs to Vault itself is no ordinary secret in child namespaces either, whoever
// says where it is mounted; a secret may have any name.
func TestSystemPathsOfChildNamespaces(t *testing.T) {
	var mounted string // what Vault says, for the paths that nobody has configured
	_, v := namesMounts(t, map[string]vault.Engine{"team": vault.Other, "kept": vault.KV2, "old": vault.KV1}, func(string) (string, string) {
		kind := "system"
		if strings.HasPrefix(mounted, "secret") || strings.HasSuffix(mounted, "/secret/") {
			kind = "kv"
		}
		return mounted, kind
	})
	for _, test := range []struct{ path, mount, literal string }{
		{"sys/policies/acl/x", "", "sys"},
		{"auth/token/lookup-self", "", "auth"},
		{"a/sys/policies/acl/x", "a/sys/", "sys"},
		{"b/sub/sys/mounts", "b/sub/sys/", "sys"},
		{"c/auth/token/lookup-self", "c/auth/token/", "auth"},
		{"d/sub/auth/kubernetes/role/x", "d/sub/auth/kubernetes/", "auth"},
		{"team/sys/policies/acl/x", "", "sys"},
		{"team/sub/auth/token/lookup", "", "auth"},
		{"e/sub/secret/metadata/x", "e/sub/secret/", "metadata"},
		{"e/sub/secret/sys/x", "e/sub/secret/", ""},
		{"secret/sys/mounts", "secret/", ""},
		{"secret/shop/auth", "secret/", ""},
		{"kept/shop/sys", "", ""},
		{"old/auth/shop", "", ""},
		{"f/creds/sys", "f/", ""},
	} {
		mounted = test.mount
		resolved, err := v.Resolve(t.Context(), caller(), ref(t, test.path))
		if err != nil || resolved.Literal != test.literal || test.literal == "sys" && !resolved.Makes {
			t.Errorf("%s, mounted at %q: got %+v, want it to be named as %q: %v", test.path, test.mount, resolved, test.literal, err)
		}
		if recalled, known := v.RecallPath(caller(), ref(t, test.path)); !known || recalled != resolved {
			t.Errorf("%s: got %+v, and from memory %+v, %t", test.path, resolved, recalled, known)
		}
	}
	if got, known := v.RecallPath(caller(), ref(t, "nowhere/db")); known {
		t.Errorf("the mount of a path that was never asked for is known: %+v", got)
	}
}

// However many mounts a store names, few are remembered, and a namespace of the cluster
// pushes out none of another's.
func TestLearnedMountsAreBounded(t *testing.T) {
	now := time.Now()
	lookups := 0
	conn, v := namesMounts(t, nil, func(path string) (string, string) {
		lookups++
		return strings.Join(strings.Split(path, "/")[:2], "/"), "kv"
	})
	conn.SetClock(func() time.Time { return now })
	resolve := func(namespace, path string) {
		t.Helper()
		as := caller()
		as.Identity.Namespace = namespace
		if _, err := v.Resolve(t.Context(), as, ref(t, path)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		resolve("blog", fmt.Sprintf("blog/%d/x", i))
	}
	const most = 512
	for i := range 4000 {
		now = now.Add(time.Millisecond)
		resolve("shop", fmt.Sprintf("%s/%d/x", strings.Repeat("long", 200), i))
	}
	if n := v.Learned(); n > most {
		t.Errorf("%d mounts are remembered, want %d at most", n, most)
	}
	before := lookups
	for i := range 100 {
		resolve("blog", fmt.Sprintf("blog/%d/x", i))
	}
	if lookups != before {
		t.Errorf("another namespace costs %d look-ups", lookups-before)
	}
	now = now.Add(time.Hour)
	resolve("shop", "one/more/x")
	if n := v.Learned(); n > most {
		t.Errorf("%d mounts are remembered, want %d at most", n, most)
	}
	for i := range most {
		resolve("shop", fmt.Sprintf("new/%d/x", i))
	}
	if n := v.Learned(); n > most {
		t.Errorf("%d mounts are remembered after an hour, want %d at most", n, most)
	}
}
