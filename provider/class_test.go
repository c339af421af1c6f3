package provider_test

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
)

// parser is a Provider for its parser alone.
func parser(stores map[string]provider.Features) *provider.Provider {
	var backends []provider.Backend
	for name, features := range stores {
		backends = append(backends, provider.Backend{Name: name, Features: features})
	}
	return provider.New(provider.Options{Backends: backends, Deadline: 10 * time.Second, ParallelReads: 1, VersionKey: secret.New(bytes.Repeat([]byte{7}, 32))})
}

// asked is one request, in parts that a test can change one by one.
type asked struct {
	dialect    provider.Dialect
	permission string
	volume     providertest.Volume
}

func (a asked) request(t *testing.T) *v1alpha1.MountRequest {
	t.Helper()
	attributes, err := a.volume.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	return &v1alpha1.MountRequest{Attributes: attributes, Permission: a.permission}
}

// check compares what a provider that may remember makes of a request with what
// the pure parsers do. It is Mount's own way, as far as the parsing.
func (a asked) check(t *testing.T, name string, p *provider.Provider, stores map[string]provider.Features) {
	t.Helper()
	request := a.request(t)
	got, err := p.Parse(t.Context(), a.dialect, request)
	want, pure := provider.ParseVault(request.GetAttributes(), a.permission, a.dialect, stores)
	if a.dialect == provider.DialectKeymount {
		want, pure = provider.ParseRequest(request.GetAttributes(), stores)
	}
	if fmt.Sprint(err) != fmt.Sprint(pure) {
		t.Errorf("%s: got %v, want %v", name, err, pure)
	}
	got.Objects, want.Objects = withoutTemplates(got.Objects), withoutTemplates(want.Objects)
	if got.Pod != want.Pod || got.Class != want.Class || !reflect.DeepEqual(got.Objects, want.Objects) || !reflect.DeepEqual(got.Warnings, want.Warnings) {
		t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
	}
}

// withoutTemplates copies objects and leaves of each template what it reads.
func withoutTemplates(objects []provider.Object) []provider.Object {
	objects = slices.Clone(objects)
	for i, o := range objects {
		if o.Template != nil {
			objects[i].Key, objects[i].Template = fmt.Sprint(o.Template.Nodes(), o.Template.Paths()), nil
		}
	}
	return objects
}

// Whatever a pod or its author can say of itself: it changes what that pod asks
// for, and nothing of what another one does.
func TestClassesAreNotMixedUp(t *testing.T) {
	stores := vaultStores()
	stores["team"] = provider.Features{Roles: true, Vault: &provider.VaultLocation{
		Addresses: []string{"https://vault.invalid:8200"}, Namespace: "teams/{namespace}", AuthMount: "other", Audience: "vault",
	}}
	base := map[provider.Dialect]map[string]string{
		provider.DialectKeymount: {"store": "default", "role": "shop", "objects": "[{path: shop/db, key: a, file: a}, {path: shop/db, template: '{{ .a }}', file: b}]"},
		provider.DialectVault:    {"roleName": "shop", "vaultAddress": "https://vault.invalid:8200", "vaultNamespace": "teams/shop", "objects": vaultKey},
		provider.DialectOpenBao:  {"roleName": "shop", "vaultAddress": "https://vault.invalid:8200", "vaultNamespace": "teams/shop", "objects": vaultKey},
	}
	p := parser(stores)
	changes := map[string]func(*asked){
		"nothing":             func(*asked) {},
		"namespace":           func(a *asked) { a.volume.Pod.Namespace = "blog" },
		"pod":                 func(a *asked) { a.volume.Pod.Name, a.volume.Pod.UID = "web-0", "uid-2" },
		"no pod":              func(a *asked) { a.volume.Pod.UID = "" },
		"service account":     func(a *asked) { a.volume.Pod.ServiceAccount = "admin" },
		"class":               func(a *asked) { a.volume.Class = "other" },
		"tokens":              func(a *asked) { a.volume.Tokens = map[string]string{audience: "x"} },
		"permission":          func(a *asked) { a.permission = "256" },
		"bad permission":      func(a *asked) { a.permission = "x" },
		"objects":             func(a *asked) { a.volume.Parameters["objects"] += "\n" },
		"other objects":       func(a *asked) { a.volume.Parameters["objects"] = "[{path: blog/db, key: b, file: b}]" },
		"broken objects":      func(a *asked) { a.volume.Parameters["objects"] = "[" },
		"no objects":          func(a *asked) { delete(a.volume.Parameters, "objects") },
		"store":               func(a *asked) { a.volume.Parameters["store"] = "team" },
		"role":                func(a *asked) { a.volume.Parameters["role"], a.volume.Parameters["roleName"] = "blog", "blog" },
		"role alone":          func(a *asked) { delete(a.volume.Parameters, "store"); a.volume.Parameters["role"] = "default" },
		"store alone":         func(a *asked) { delete(a.volume.Parameters, "role"); a.volume.Parameters["store"] = "default" },
		"role of two words":   func(a *asked) { a.volume.Parameters["role"] = "shop\x00objects" },
		"mount":               func(a *asked) { a.volume.Parameters["vaultAuthMountPath"] = "other" },
		"old mount":           func(a *asked) { a.volume.Parameters["baoKubernetesMountPath"] = "other" },
		"audience":            func(a *asked) { a.volume.Parameters["audience"] = "openbao" },
		"strict":              func(a *asked) { a.volume.Parameters["strict"] = "true" },
		"unknown":             func(a *asked) { a.volume.Parameters["vaultSkipTLSVerify"] = "true" },
		"unknown, two":        func(a *asked) { a.volume.Parameters["unknown"], a.volume.Parameters["unknownb"] = "b", "" },
		"unknown, one":        func(a *asked) { a.volume.Parameters["unknown"] = "bunknownb" },
		"of the driver":       func(a *asked) { a.volume.Parameters["providerName"] = "other" },
		"of the kubelet":      func(a *asked) { a.volume.Parameters["csi.storage.k8s.io/objects"] = "[]" },
		"dialect of keymount": func(a *asked) { a.dialect = provider.DialectKeymount },
		"dialect of vault":    func(a *asked) { a.dialect = provider.DialectVault },
		"dialect of openbao":  func(a *asked) { a.dialect = provider.DialectOpenBao },
	}
	for range 3 { // in another order each time, and with more to remember
		for dialect, parameters := range base {
			for name, change := range changes {
				a := asked{dialect, "420", providertest.Volume{Pod: pod("shop", "api"), Class: "app", Parameters: maps.Clone(parameters)}}
				change(&a)
				a.check(t, string(dialect)+", "+name, p, stores)
			}
		}
	}
}

func TestMistakesAreNotRemembered(t *testing.T) {
	w := start(t)
	for _, namespace := range []string{"shop", "blog", "shop"} {
		const objects = `[{path: shop/db, key: a, fiel: a}]`
		w.refused(t, w.volume(pod(namespace, "api"), objects), codes.InvalidArgument, "bad request: SecretProviderClass "+namespace+
			"/app has 2 mistakes:\n  objects[0]: unknown field \"fiel\"; did you mean \"file\"?\n  objects[0]: file: missing; name the file to write, or a folder (\"tls/\") for one file per key")
	}
}

// Two pods of one class share what it means, and nothing else: with -race, and with
// every form of object at once.
func TestPodsShareAClass(t *testing.T) {
	w := start(t)
	const objects = `
- {path: team/db, key: password, file: password}
- {path: team/db, file: all/}
- {path: team/db, format: yaml, file: all.yaml}
- {path: team/db, template: '{{ .password | default "none" }} {{ range $k, $v := (secret "team/more") }}{{ $k }}={{ $v | upper }}{{ end }}', file: text}
- {path: team/absent, key: a, file: absent, optional: true}
`
	w.memory.Set("team/db", map[string]any{"password": canary, "user": "team"})
	w.memory.Set("team/more", map[string]any{"a": "x", "b": "y"})
	team := w.volume(pod("team", "api"), objects)
	stranger := w.volume(pod("blog", "api"), objects)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				files, _, err := w.mount(t, team)
				if err != nil || files["text"] != canary+" a=Xb=Y" || files["all/user"] != "team" || len(files) != 5 {
					t.Errorf("got %q, %v", files, err)
				}
			}
		})
		all.Go(func() {
			for range 5 {
				if _, _, err := w.mount(t, stranger); status.Code(err) != codes.PermissionDenied {
					t.Errorf("a pod of another namespace: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// What an execution says of its mistakes is the template's, whoever shares it.
func TestPodsShareABrokenTemplate(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"list": []any{"a"}})
	v := w.volume(pod("shop", "api"), `[{path: shop/db, template: '{{ range .list }}{{ $.absent.deep }}{{ end }}', file: f}]`)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, _, err := w.mount(t, v)
			if !strings.Contains(statusText(err), `at <$.absent.deep>: there is no key "absent"`) {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
}

func TestRememberedClassesAreBounded(t *testing.T) {
	stores := map[string]provider.Features{"default": {}}
	mount := func(p *provider.Provider, objects string) provider.Request {
		t.Helper()
		r, err := p.Parse(t.Context(), provider.DialectKeymount, asked{volume: providertest.Volume{
			Pod: pod("shop", "api"), Class: "app", Parameters: map[string]string{"objects": objects},
		}}.request(t))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	numbered := func(i int) string { return fmt.Sprintf("[{path: shop/db, key: a, file: f%d}]", i) }
	templates := func(i int) string {
		return fmt.Sprintf("[{path: shop/db, file: f%d, template: '%s'}]", i, strings.Repeat("{{ .a }}", 500))
	}
	p := parser(stores)
	first := mount(p, templates(-1)).Objects[0].Template
	for i := range 2 * provider.MaxClasses {
		mount(p, numbered(i))
		if again := mount(p, templates(-1)).Objects[0].Template; again != first {
			t.Fatal("a class that is used all the time is parsed again")
		}
	}
	if n, _ := p.RememberedClasses(); n != provider.MaxClasses {
		t.Errorf("%d classes are remembered", n)
	}
	p = parser(stores)
	for i := range 100 {
		mount(p, templates(i))
	}
	if n, size := p.RememberedClasses(); n == 0 || size > provider.MaxClassesSize || size < provider.MaxClassesSize/2 {
		t.Errorf("%d classes with %d bytes are remembered", n, size)
	}
	p = parser(stores)
	mount(p, numbered(0)+"#"+strings.Repeat("x", 64<<10))
	mount(p, strings.Repeat("- {path: a/b, file: f, template: '"+strings.Repeat("{{1}}", 1000)+"'}\n", 1))
	if n, size := p.RememberedClasses(); n != 0 {
		t.Errorf("%d large classes with %d bytes are remembered", n, size)
	}
}
