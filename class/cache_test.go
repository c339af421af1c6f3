package class_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/vault"
)

// callParts is one request, in parts that a test can change one by one.
type callParts struct {
	dialect    class.Dialect
	permission string
	volume     providertest.Volume
}

func (a callParts) call(t *testing.T) class.Call {
	t.Helper()
	attributes, err := a.volume.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	return class.Call{Attributes: attributes, Permission: a.permission, Dialect: a.dialect}
}

// check compares the results of a cache and of the pure parsers for a call.
func (a callParts) check(t *testing.T, name string, c *class.Cache, stores map[string]class.Store) {
	t.Helper()
	call := a.call(t)
	got, err := c.Parse(call, atOnce)
	want, pure := class.Parse(call, stores)
	if fmt.Sprint(err) != fmt.Sprint(pure) {
		t.Errorf("%s: got %v, want %v", name, err, pure)
	}
	got.Objects, want.Objects = withoutTemplates(got.Objects), withoutTemplates(want.Objects)
	if got.Pod != want.Pod || got.Class != want.Class || !reflect.DeepEqual(got.Secrets, want.Secrets) || tokenOf(got) != tokenOf(want) || !reflect.DeepEqual(got.Objects, want.Objects) || !reflect.DeepEqual(got.Warnings, want.Warnings) {
		t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
	}
}

// tokenOf is the token of a request, or why it has none.
func tokenOf(r class.Request) string {
	token, err := r.Tokens.For(audience)
	if err != nil {
		return err.Error()
	}
	return string(token.Reveal())
}

// atOnce is the turn of a call that waits for none.
func atOnce(_ class.Request, _ int, work func()) error {
	work()
	return nil
}

// withoutTemplates copies objects; of each template the copy has only the paths.
func withoutTemplates(objects []class.Object) []class.Object {
	objects = slices.Clone(objects)
	for i, o := range objects {
		if o.Template != nil {
			objects[i].Key, objects[i].Template = fmt.Sprint(o.Template.Nodes(), o.Template.Paths()), nil
		}
	}
	return objects
}

// The attributes of a pod change its own request, and never that of another pod.
func TestClassesAreNotMixedUp(t *testing.T) {
	stores := vaultStores()
	stores["team"] = class.Store{Traits: kind.Traits{Roles: access.Required}, Settings: &vault.Settings{
		Addresses: []string{"https://vault.invalid:8200"}, Namespace: "teams/{namespace}", Auth: vault.Auth{Mount: "other", Audience: "vault"},
	}}
	base := map[class.Dialect]map[string]string{
		class.DialectKeymount: {"store": "default", "role": "shop", "objects": "[{path: shop/db, key: a, file: a}, {path: shop/db, template: '{{ .a }}', file: b}]"},
		class.DialectVault:    {"roleName": "shop", "vaultAddress": "https://vault.invalid:8200", "vaultNamespace": "teams/shop", "objects": vaultKey},
		class.DialectOpenBao:  {"roleName": "shop", "vaultAddress": "https://vault.invalid:8200", "vaultNamespace": "teams/shop", "objects": vaultKey},
	}
	c := class.NewCache(stores)
	changes := map[string]func(*callParts){
		"nothing":             func(*callParts) {},
		"namespace":           func(a *callParts) { a.volume.Pod.Namespace = "blog" },
		"pod":                 func(a *callParts) { a.volume.Pod.Name, a.volume.Pod.UID = "web-0", "uid-2" },
		"no pod":              func(a *callParts) { a.volume.Pod.UID = "" },
		"service account":     func(a *callParts) { a.volume.Pod.ServiceAccount = "admin" },
		"class":               func(a *callParts) { a.volume.Class = "other" },
		"tokens":              func(a *callParts) { a.volume.Tokens = map[string]string{audience: "x"} },
		"new tokens":          func(a *callParts) { a.volume.Tokens = map[string]string{audience: "\" \\ y", "other": "z"} },
		"permission":          func(a *callParts) { a.permission = "256" },
		"bad permission":      func(a *callParts) { a.permission = "x" },
		"objects":             func(a *callParts) { a.volume.Parameters["objects"] += "\n" },
		"other objects":       func(a *callParts) { a.volume.Parameters["objects"] = "[{path: blog/db, key: b, file: b}]" },
		"broken objects":      func(a *callParts) { a.volume.Parameters["objects"] = "[" },
		"no objects":          func(a *callParts) { delete(a.volume.Parameters, "objects") },
		"store":               func(a *callParts) { a.volume.Parameters["store"] = "team" },
		"role":                func(a *callParts) { a.volume.Parameters["role"], a.volume.Parameters["roleName"] = "blog", "blog" },
		"role alone":          func(a *callParts) { delete(a.volume.Parameters, "store"); a.volume.Parameters["role"] = "default" },
		"store alone":         func(a *callParts) { delete(a.volume.Parameters, "role"); a.volume.Parameters["store"] = "default" },
		"role of two words":   func(a *callParts) { a.volume.Parameters["role"] = "shop\x00objects" },
		"mount":               func(a *callParts) { a.volume.Parameters["vaultAuthMountPath"] = "other" },
		"old mount":           func(a *callParts) { a.volume.Parameters["baoKubernetesMountPath"] = "other" },
		"audience":            func(a *callParts) { a.volume.Parameters["audience"] = "openbao" },
		"strict":              func(a *callParts) { a.volume.Parameters["strict"] = "true" },
		"unknown":             func(a *callParts) { a.volume.Parameters["vaultSkipTLSVerify"] = "true" },
		"unknown, two":        func(a *callParts) { a.volume.Parameters["unknown"], a.volume.Parameters["unknownb"] = "b", "" },
		"unknown, one":        func(a *callParts) { a.volume.Parameters["unknown"] = "bunknownb" },
		"of the driver":       func(a *callParts) { a.volume.Parameters["providerName"] = "other" },
		"of the kubelet":      func(a *callParts) { a.volume.Parameters["csi.storage.k8s.io/objects"] = "[]" },
		"dialect of keymount": func(a *callParts) { a.dialect = class.DialectKeymount },
		"dialect of vault":    func(a *callParts) { a.dialect = class.DialectVault },
		"dialect of openbao":  func(a *callParts) { a.dialect = class.DialectOpenBao },
	}
	for range 3 { // in another order each time, and with more to remember
		for dialect, parameters := range base {
			for name, change := range changes {
				a := callParts{dialect, "420", providertest.Volume{Pod: pod(), Class: "app", Parameters: maps.Clone(parameters)}}
				change(&a)
				a.check(t, string(dialect)+", "+name, c, stores)
			}
		}
	}
}

func TestRememberedClassesAreBounded(t *testing.T) {
	stores := map[string]class.Store{"default": {}}
	mount := func(c *class.Cache, objects string) class.Request {
		t.Helper()
		r, err := c.Parse(callParts{dialect: class.DialectKeymount, volume: providertest.Volume{
			Pod: pod(), Class: "app", Parameters: map[string]string{"objects": objects},
		}}.call(t), atOnce)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	numbered := func(i int) string { return fmt.Sprintf("[{path: shop/db, key: a, file: f%d}]", i) }
	templates := func(i int) string {
		return fmt.Sprintf("[{path: shop/db, file: f%d, template: '%s'}]", i, strings.Repeat("{{ .a }}", 100))
	}
	c := class.NewCache(stores)
	first := mount(c, templates(-1)).Objects[0].Template
	for i := range 2 * class.MaxClasses {
		mount(c, numbered(i))
		if again := mount(c, templates(-1)).Objects[0].Template; again != first {
			t.Fatal("a class that is used all the time is parsed again")
		}
	}
	if n, _ := c.Remembered(); n != class.MaxClasses {
		t.Errorf("%d classes are remembered", n)
	}
	c = class.NewCache(stores)
	for i := range 300 {
		mount(c, templates(i))
	}
	if n, size := c.Remembered(); n == 0 || size > class.MaxClassesSize || size < class.MaxClassesSize/2 {
		t.Errorf("%d classes with %d bytes are remembered", n, size)
	}
}

// Large classes are remembered, too, and take no room from the others. The largest are not.
func TestRememberedLargeClassesAreBounded(t *testing.T) {
	parsed := 0
	counted := func(r class.Request, bytes int, work func()) error { parsed++; return atOnce(r, bytes, work) }
	mount := func(c *class.Cache, objects string) {
		t.Helper()
		call := callParts{dialect: class.DialectKeymount, volume: providertest.Volume{
			Pod: pod(), Class: "app", Parameters: map[string]string{"objects": objects},
		}}.call(t)
		if _, err := c.Parse(call, counted); err != nil {
			t.Fatal(err)
		}
	}
	many := func(of int) string {
		var objects strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&objects, "- {path: shop/db-%d, key: a, file: f%d}\n", i, i)
		}
		return fmt.Sprintf("%s# %d", &objects, of)
	}
	const small = "[{path: shop/db, key: a, file: a}]"
	c := class.NewCache(map[string]class.Store{"default": {}})
	mount(c, small)
	for i := range 30 {
		mount(c, many(i))
		mount(c, many(i))
	}
	if mount(c, small); parsed != 31 {
		t.Errorf("31 classes were parsed %d times", parsed)
	}
	if n, size := c.RememberedLarge(); n < 2 || size > class.MaxLargeSize || size < class.MaxLargeSize/2 {
		t.Errorf("%d large classes with %d bytes are remembered", n, size)
	}
	parsed = 0
	for range 2 {
		template := strings.Repeat("{{1}}", 1200)
		mount(c, fmt.Sprintf("[{path: a/b, file: f, template: '%[1]s'}, {path: a/b, file: g, template: '%[1]s'}, {path: a/b, file: h, template: '%[1]s'}]", template))
	}
	if parsed != 2 {
		t.Errorf("the largest class was parsed %d times in two calls", parsed)
	}
}

// A call that comes again is not parsed again, whatever its JSON looks like: the last of two
// attributes of one name counts, as for [class.Parse].
func TestCallsAreKnownAgain(t *testing.T) {
	const added = `"csi.storage.k8s.io/pod.name":"api","csi.storage.k8s.io/pod.namespace":"shop","csi.storage.k8s.io/pod.uid":"uid","csi.storage.k8s.io/serviceAccount.name":"api"`
	const objects = `"objects":"[{path: shop/db, key: a, file: a}]"`
	tokens := func(token string) string {
		return fmt.Sprintf(`"csi.storage.k8s.io/serviceAccount.tokens":"{\"%s\":{\"token\":\"%s\"}}"`, audience, token)
	}
	stores := map[string]class.Store{"default": {}}
	for name, test := range map[string]struct{ attributes, token string }{
		"last":              {"{" + added + "," + objects + "," + tokens("x") + "}", "x"},
		"first":             {"{" + tokens("x") + "," + added + "," + objects + "}", "x"},
		"twice":             {"{" + tokens("x") + "," + added + "," + tokens("y") + "," + objects + "}", "y"},
		"with spaces":       {" { " + added + " , " + objects + " ,\n" + strings.Replace(tokens("x"), ":", "\t:\n ", 1) + "\n} ", "x"},
		"with escapes":      {"{" + added + "," + objects + "," + strings.Replace(tokens("x"), "csi.", `\u0063si.`, 1) + "}", "x"},
		"no UTF-8 before":   {"{\"providerName\":\"\xff\"," + added + "," + objects + "," + tokens("x") + "}", "x"},
		"in another's text": {"{" + added + `,"providerName":"\"csi.storage.k8s.io/serviceAccount.tokens\":\"no\"",` + objects + "," + tokens("x") + "}", "x"},
		"null":              {"{" + added + "," + objects + "," + tokens("x") + `,"csi.storage.k8s.io/serviceAccount.tokens":null}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := class.NewCache(stores)
			for range 3 {
				call := class.Call{Attributes: test.attributes, Permission: "420"}
				got, err := c.Parse(call, atOnce)
				want, pure := class.Parse(call, stores)
				if err != nil || pure != nil {
					t.Fatal(err, pure)
				}
				if got.Pod != want.Pod || tokenOf(got) != tokenOf(want) || test.token != "" && tokenOf(got) != test.token || len(got.Objects) != 1 {
					t.Errorf("got %+v, token %q; want %+v, token %q", got, tokenOf(got), want, tokenOf(want))
				}
			}
			if n := c.Known(); n != 1 || !c.Repeats(class.Call{Attributes: test.attributes, Permission: "420"}) {
				t.Errorf("%d calls are known, and this one is not", n)
			}
		})
	}
}

// However many calls there are, and however large, what is remembered of them is bounded.
func TestKnownCallsAreBounded(t *testing.T) {
	c := class.NewCache(map[string]class.Store{"default": {}})
	for i := range 3 * class.MaxCalls {
		volume := providertest.Volume{Pod: pod(), Class: "app", Parameters: map[string]string{"objects": "[{path: shop/db, key: a, file: a}]"}}
		volume.Pod.Name = fmt.Sprint(i) + strings.Repeat("x", i)
		if _, err := c.Parse(callParts{volume: volume}.call(t), atOnce); err != nil {
			t.Fatal(err)
		}
		if n, size := c.Known(), c.KnownSize(); n > class.MaxCalls || size > class.MaxCallsSize {
			t.Fatalf("%d calls of %d bytes", n, size)
		}
	}
}
