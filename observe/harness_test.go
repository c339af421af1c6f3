package observe_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuerName = "https://cluster.invalid"
	node       = "node-1"
	audience   = "keymount"
	// canary marks every secret of these tests.
	canary = "canary-7f3a"
	oneKey = "[{path: shop/db, key: password, file: a}]"
)

// direct reads a store that has no memory in front of it.
func direct(layers kind.Layers) provider.Store {
	s, _ := storetest.LoggedIn(layers)
	return keep.NewDirect(s)
}

// world is a provider with a fake store "default", and its recorders.
type world struct {
	t        *testing.T
	memory   *storetest.Memory
	issuer   *providertest.Issuer
	provider *provider.Provider
}

// start makes a provider whose store lets each namespace read below its own name.
func start(t *testing.T, changes ...func(*world, *provider.Options)) *world {
	t.Helper()
	w := &world{t: t, memory: storetest.NewMemory(), issuer: newIssuer(t, issuerName, "key-1")}
	o := provider.Options{
		Version: "v0.0.0-test", Deadline: 10 * time.Second, ParallelReads: 8, VersionKey: secret.New(bytes.Repeat([]byte{7}, 32)),
		Verifier: auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", w.issuer, time.Now)}, node, time.Now),
		Backends: []provider.Backend{{
			Name: "default", Audience: audience, Store: direct(kind.Layers{Store: w.memory}),
			Rules: rules(t, access.None, access.Rule{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{"{namespace}/**"}}),
		}},
	}
	for _, change := range changes {
		change(w, &o)
	}
	w.provider = provider.New(o)
	return w
}

// volume is a mount of pod with a good token.
func (w *world) volume(pod auth.Pod, objects string) providertest.Volume {
	w.t.Helper()
	token, err := w.issuer.Sign(w.issuer.ClaimsFor(pod, audience))
	if err != nil {
		w.t.Fatal(err)
	}
	return providertest.Volume{
		Pod: pod, Class: "app", Parameters: map[string]string{"objects": objects}, Tokens: map[string]string{audience: token},
	}
}

// mount is a call of the driver.
func (w *world) mount(v providertest.Volume) error {
	attributes, err := v.Attributes()
	if err != nil {
		return err
	}
	_, err = w.provider.Mount(w.t.Context(), &v1alpha1.MountRequest{Attributes: attributes, Permission: "420"})
	return err
}

// loginStore is a store with logins and two spellings of a path: data/ in front means
// the same.
type loginStore struct {
	*storetest.Memory
	mu      sync.Mutex
	logins  int
	revoked map[string]bool
}

func (l *loginStore) Login(_ context.Context, _ auth.Identity, _ secret.Bytes, role string) (login.Login, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logins++
	if role == "unbound" {
		return login.Login{}, store.Denied.Errorf("login as role %q", role)
	}
	return login.Login{Token: secret.New(fmt.Appendf(nil, "token-%d", l.logins))}, nil
}

func (l *loginStore) Resolve(_ context.Context, _ store.Caller, ref store.Ref) (store.Resolved, error) {
	path, err := store.ParsePath(strings.TrimPrefix(ref.Path.String(), "data/"))
	return store.Resolved{Path: path}, err
}

func (l *loginStore) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	l.mu.Lock()
	ended := l.revoked[string(caller.Login.Reveal())]
	l.mu.Unlock()
	if ended {
		return store.Value{}, store.Ended.Errorf("revoked")
	}
	resolved, err := l.Resolve(ctx, caller, ref)
	if err != nil {
		return store.Value{}, err
	}
	return l.Memory.Read(ctx, caller, store.Ref{Path: resolved.Path})
}

// startCounted is a world with a second store "logins" whose requests are counted.
func startCounted(t *testing.T, metrics *observe.Metrics) (*world, *loginStore) {
	t.Helper()
	l := &loginStore{Memory: storetest.NewMemory(), revoked: map[string]bool{}}
	w := start(t, func(w *world, o *provider.Options) {
		counting(o, metrics)
		o.Backends[0].Store = direct(metrics.Count("default", kind.Layers{Store: w.memory}))
		o.Backends = append(o.Backends, provider.Backend{
			Name: "logins", Audience: audience, Class: class.Store{Traits: kind.Traits{Roles: access.Required}},
			Rules: rules(t, access.Required, access.Rule{
				Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"{namespace}", "unbound"}, Paths: []string{"{namespace}/**"},
			}),
			Store: direct(metrics.Count("logins", storetest.LayersOf(l, l))), Resolves: true,
		})
	})
	l.Set("shop/db", map[string]any{"password": canary})
	return w, l
}

// counting has the mounts counted.
func counting(o *provider.Options, metrics *observe.Metrics) {
	o.Recorders, o.Mounting = append(o.Recorders, metrics), metrics.Mounting
}

func pod(namespace, serviceAccount string) auth.Pod {
	return auth.Pod{Namespace: namespace, Name: serviceAccount + "-0", UID: "uid-" + namespace + "-" + serviceAccount, ServiceAccount: serviceAccount}
}

func rules(t *testing.T, need access.Need, list ...access.Rule) access.Rules {
	t.Helper()
	compiled, err := access.Compile("access", list, access.Kind{Roles: need})
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func newIssuer(t *testing.T, name, keyID string) *providertest.Issuer {
	t.Helper()
	issuer, err := providertest.NewIssuer(name, keyID)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *logBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buffer.Bytes())
}
