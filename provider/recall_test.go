package provider_test

import (
	"context"
	"fmt"
	"math"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

// startKept is a world whose store remembers, as Vault's does.
func startKept(t *testing.T, more ...func(*world, *setup)) (*world, *loginStore) {
	t.Helper()
	l := &loginStore{Memory: storetest.NewMemory(), revoked: map[string]bool{}}
	inner, _ := storetest.LoggedIn(storetest.LayersOf(l, l))
	w := start(t, append([]func(*world, *setup){func(_ *world, s *setup) {
		compiled, err := access.Compile("access", []access.Rule{{
			Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"{namespace}"}, Paths: []string{"{namespace}/**"},
		}}, access.Kind{Roles: access.Required, Writes: true})
		if err != nil {
			t.Fatal(err)
		}
		s.options.Backends = []provider.Backend{{
			Name: "default", Audience: audience, Rules: compiled, Class: class.Store{Traits: kind.Traits{Roles: access.Required}},
			Store: keep.New(inner, keep.Options{
				Refresh: time.Hour, Pool: keep.NewPool(64<<20, time.Now, nil), Now: time.Now,
			}),
			Resolves: true,
		}}
	}}, more...)...)
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

// recalls notes the role of every request that is recalled.
type recalls struct {
	provider.Store
	roles []string
}

func (r *recalls) Recall(request login.Request) keep.Recollection {
	r.roles = append(r.roles, request.Role)
	return r.Store.Recall(request)
}

// However many secrets a mount has, its store recalls them together: all paths as of one
// moment, and all values as of the next, for there may be a wait between them.
func TestSecretsAreRecalledTogether(t *testing.T) {
	noted := &recalls{}
	w, l := startKept(t, func(_ *world, s *setup) {
		noted.Store = s.options.Backends[0].Store
		s.options.Backends[0].Store = noted
	})
	var objects strings.Builder
	for i := range 20 {
		l.Set(fmt.Sprintf("shop/s%d", i), map[string]any{"password": canary})
		fmt.Fprintf(&objects, "- {path: shop/s%d, role: shop, key: password, file: f%d}\n", i, i)
	}
	for range 2 {
		noted.roles = nil
		if files, _, err := w.mount(t, w.volume(pod("shop", "api"), objects.String())); err != nil || len(files) != 20 {
			t.Fatalf("got %d files, %v", len(files), err)
		}
		if got := strings.Join(noted.roles, " "); got != "shop shop" {
			t.Errorf("recalled as %q, want one time for the paths and one for the values", got)
		}
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

// They stay one read in a mount that has to read again, with a third secret between them.
func TestSpellingsAreReadAgainAsOne(t *testing.T) {
	w, l := startWithLogins(t, withRoom(onePlace()))
	for i := range 2 {
		l.Set(fmt.Sprintf("shop/%d", i), map[string]any{"key": fmt.Sprintf("%s-%d", canary, i), "more": strings.Repeat("x", 2<<20)})
	}
	files, _, err := w.mount(t, w.volume(pod("shop", "api"), `
- {path: shop/0, store: logins, role: shop, key: key, file: a}
- {path: data/shop/0, store: logins, role: shop, key: key, file: b}
- {path: shop/1, store: logins, role: shop, key: key, file: c}
- {path: data/shop/1, store: logins, role: shop, file: d, template: '{{ .key }} and {{ (secret "data/shop/0").key }}'}`))
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"a": canary + "-0", "b": canary + "-0", "c": canary + "-1", "d": canary + "-1 and " + canary + "-0"} {
		if files[file] != want {
			t.Errorf("%s is %q, want %q", file, files[file], want)
		}
	}
	if l.Reads() > 4 {
		t.Errorf("%d reads of two secrets, each read twice", l.Reads())
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

// watched is the store of a mount that may be told not to ask.
type watched struct {
	provider.Store
	t    *testing.T
	warm bool
}

func (w *watched) asked(what string) {
	if w.warm {
		w.t.Errorf("a warm mount goes the slow way to %s", what)
	}
}

func (w *watched) Resolve(ctx context.Context, request login.Request, ref store.Ref) (store.Resolved, error) {
	w.asked("what a path is")
	return w.Store.Resolve(ctx, request, ref)
}

func (w *watched) Read(ctx context.Context, request login.Request, ref store.Ref, resolved store.Resolved) (keep.Answer, error) {
	w.asked("a secret")
	return w.Store.Read(ctx, request, ref, resolved)
}

// atHand is a store that has its secrets at hand, as a bundle does.
type atHand struct{ *storetest.Memory }

func (a atHand) Recall(caller store.Caller, ref store.Ref) (store.Value, bool) {
	value, err := a.Read(context.Background(), caller, ref)
	return value, err == nil
}

// A warm mount starts no goroutine, whatever the kind of store: one that remembers, one
// that has to be asked what a path is, and one that has its secrets at hand.
func TestWarmMountStartsNoGoroutine(t *testing.T) {
	memory := storetest.NewMemory()
	memory.Set("shop/db", map[string]any{"password": canary})
	memory.Set("shop/host", map[string]any{"name": "db"})
	kept := func(layers kind.Layers) provider.Store {
		inner, _ := storetest.LoggedIn(layers)
		return keep.New(inner, keep.Options{Refresh: time.Hour, Pool: keep.NewPool(1<<20, time.Now, nil), Now: time.Now})
	}
	for name, test := range map[string]struct {
		store    provider.Store
		resolves bool
	}{
		"kept":             {kept(kind.Layers{Store: memory}), false},
		"kept and resolve": {kept(storetest.LayersOf(resolving{memory}, anyLogin{})), true},
		"at hand":          {keep.NewDirect(login.Open(login.Options{Store: memory, Recaller: atHand{memory}, Now: time.Now})), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &watched{Store: test.store, t: t}
			mount := mounting(t, provider.Backend{
				Name: "default", Audience: audience, Store: s, Resolves: test.resolves,
				Rules: rules(t, access.Rule{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{"{namespace}/**"}}),
			}, `[{path: shop/db, key: password, file: a}, {path: shop/host, file: b, template: '{{ .name }}'}]`)
			mount()
			s.warm = true
			fewest := uint64(math.MaxUint64)
			for range 5 { // the runtime may start one of its own meanwhile, but not each time
				before := goroutinesCreated()
				mount()
				fewest = min(fewest, goroutinesCreated()-before)
			}
			if fewest != 0 {
				t.Errorf("a warm mount starts %d goroutines", fewest)
			}
		})
	}
}

// mounting is a mount without a socket, of a class with objects.
func mounting(t *testing.T, b provider.Backend, objects string) (mount func()) {
	t.Helper()
	issuer := newIssuer(t, issuerName, "key-1")
	p := provider.New(provider.Options{
		Version: "v0.0.0-test", Deadline: 10 * time.Second, ParallelReads: 8, VersionKey: secret.New(make([]byte, 32)),
		Verifier: auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", issuer, time.Now)}, node, time.Now),
		Backends: []provider.Backend{b},
	})
	api := pod("shop", "api")
	token, err := issuer.Sign(issuer.ClaimsFor(api, audience))
	if err != nil {
		t.Fatal(err)
	}
	attributes, err := providertest.Volume{
		Pod: api, Class: "app", Parameters: map[string]string{"objects": objects}, Tokens: map[string]string{audience: token},
	}.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		answer, err := p.Mount(t.Context(), &v1alpha1.MountRequest{Attributes: attributes, Permission: "420"})
		if err != nil || len(answer.GetFiles()) != 2 {
			t.Fatalf("got %d files, %v", len(answer.GetFiles()), err)
		}
	}
}

// goroutinesCreated is how many there were since the process began.
func goroutinesCreated() uint64 {
	sample := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
