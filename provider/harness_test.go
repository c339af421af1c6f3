package provider_test

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
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
	// canary marks every secret of these tests; no log line may hold it.
	canary = "canary-7f3a"
)

// direct reads a store that has no memory in front of it.
func direct(layers kind.Layers) provider.Store {
	s, _ := storetest.LoggedIn(layers)
	return keep.NewDirect(s)
}

// world is a running provider with a fake store, and a driver that calls it.
type world struct {
	t        *testing.T
	memory   *storetest.Memory
	issuer   *providertest.Issuer
	driver   *providertest.Driver
	socket   string
	keysFile string
	log      *logBuffer
	stop     func() error // as SIGTERM would
}

// setup is what a test may change before the provider starts.
type setup struct {
	options provider.Options
	sockets []string
	node    string
	now     func() time.Time
}

// start runs a provider whose store "default" lets each namespace read below its
// own name, and whose log is searched for secrets at the end.
func start(t *testing.T, changes ...func(*world, *setup)) *world {
	t.Helper()
	w := &world{t: t, memory: storetest.NewMemory(), log: &logBuffer{}}
	folder := shortDir(t)
	w.socket = filepath.Join(folder, "keymount.sock")
	w.keysFile = filepath.Join(folder, "jwks.json")
	w.issuer = newIssuer(t, issuerName, "key-1")
	w.publish(w.issuer)

	s := setup{node: node, now: time.Now, sockets: []string{w.socket}, options: provider.Options{
		Version: "v0.0.0-test", Deadline: 10 * time.Second, ParallelReads: 8,
		VersionKey: secret.New(bytes.Repeat([]byte{7}, 32)),
	}}
	s.options.Backends = []provider.Backend{{
		Name: "default", Audience: audience, Store: direct(kind.Layers{Store: w.memory}),
		Rules: rules(t, access.Rule{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{"{namespace}/**"}}),
	}}
	for _, change := range changes {
		change(w, &s)
	}
	issuers := []*auth.Issuer{auth.NewIssuer(issuerName, auth.FileKeys{Issuer: issuerName, File: w.keysFile}, time.Now)}
	s.options.Verifier = auth.NewVerifier(issuers, s.node, s.now)
	w.run(s)
	return w
}

func (w *world) run(s setup) {
	w.t.Helper()
	log := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.options.Recorders = append(s.options.Recorders, observe.NewLog(log))
	server, err := provider.Listen(w.t.Context(), s.sockets, provider.New(s.options), log)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(ctx) }()
	w.stop = sync.OnceValue(func() error { cancel(); return <-stopped })
	if w.driver, err = providertest.Dial(w.socket); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := w.driver.Close(); err != nil {
			w.t.Error(err)
		}
		if err := w.stop(); err != nil {
			w.t.Error(err)
		}
		if bytes.Contains(w.log.Bytes(), []byte(canary)) || bytes.Contains(w.log.Bytes(), []byte("eyJ")) {
			w.t.Errorf("the log holds a secret or a token:\n%s", w.log.Bytes())
		}
	})
}

// publish makes the keys of these issuers the accepted ones.
func (w *world) publish(issuer *providertest.Issuer) {
	w.t.Helper()
	keys, err := issuer.KeySet()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.keysFile, keys, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// volume is a mount of pod with a good token.
func (w *world) volume(pod auth.Pod, objects string) providertest.Volume {
	w.t.Helper()
	return providertest.Volume{
		Pod: pod, Class: "app", Parameters: map[string]string{"objects": objects},
		Tokens: map[string]string{audience: w.sign(w.issuer, w.issuer.ClaimsFor(pod, audience))},
	}
}

func (w *world) sign(issuer *providertest.Issuer, claims providertest.Claims) string {
	w.t.Helper()
	token, err := issuer.Sign(claims)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// mount publishes the volume into a fresh folder and reads its files back.
func (w *world) mount(t *testing.T, v providertest.Volume) (files map[string]string, versions map[string]string, err error) {
	t.Helper()
	target := t.TempDir()
	versions, err = w.driver.Mount(t.Context(), v, target)
	if err != nil {
		return nil, nil, err
	}
	files = map[string]string{}
	for path := range versions {
		content, err := os.ReadFile(filepath.Join(target, path))
		if err != nil {
			t.Fatal(err)
		}
		files[path] = string(content)
	}
	return files, versions, nil
}

// refused mounts and checks that the answer is exactly this.
func (w *world) refused(t *testing.T, v providertest.Volume, code codes.Code, text string) {
	t.Helper()
	_, _, err := w.mount(t, v)
	checkStatus(t, err, code, text)
}

func checkStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	got := status.Convert(err)
	if got.Code() != code || got.Message() != text {
		t.Errorf("got  %s: %s\nwant %s: %s", got.Code(), got.Message(), code, text)
	}
}

func pod(namespace, serviceAccount string) auth.Pod {
	return auth.Pod{Namespace: namespace, Name: serviceAccount + "-0", UID: "uid-" + namespace + "-" + serviceAccount, ServiceAccount: serviceAccount}
}

func rules(t *testing.T, list ...access.Rule) access.Rules {
	t.Helper()
	compiled, err := access.Compile("access", list, access.Kind{})
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

// shortDir is a temporary folder whose sockets fit into a socket's address, which
// t.TempDir with its long names does not promise.
func shortDir(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "km") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
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

func statusText(err error) string { return status.Convert(err).Message() }

func parsePath(t *testing.T, text string) store.Path {
	t.Helper()
	path, err := store.ParsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
