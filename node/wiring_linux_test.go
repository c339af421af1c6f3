package node_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/state"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/kind"
)

// played is a store with logins that counts its requests.
type played struct {
	ends  bool          // the values have an end
	hangs chan struct{} // reads end with it; nil for none

	mu            sync.Mutex
	logins, reads int
}

func (p *played) Read(context.Context, store.Caller, store.Ref) (value store.Value, err error) {
	p.mu.Lock()
	p.reads++
	p.mu.Unlock()
	if p.hangs != nil {
		<-p.hangs
	}
	if p.ends {
		value.NotAfter = time.Now().Add(time.Hour)
	}
	value.Data, err = secret.NewTree(map[string]any{"password": "obviously-fake"})
	return value, err
}

func (p *played) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.logins++
	return p.prolong(login.Login{Token: secret.New([]byte(strconv.Itoa(p.logins)))}), nil
}

func (*played) prolong(l login.Login) login.Login {
	l.Expires, l.Renewable = time.Now().Add(90*time.Minute), true
	return l
}

func (p *played) Renew(_ context.Context, _ auth.Identity, l login.Login) (login.Login, error) {
	return p.prolong(l), nil
}

func (*played) Revoke(context.Context, auth.Identity, login.Login) error { return nil }

// playedStore is a played store behind the layers that a node puts in front of a store.
type playedStore struct {
	provider.Backend

	t   *testing.T
	run func(context.Context) error
}

func playedVault(t *testing.T, folder *state.Folder, settings string, layers kind.Layers) playedStore {
	t.Helper()
	return playedIn(t, folder, `{vault: {addresses: ["https://vault.invalid:8200"]}, access: store`+settings+`}`, layers)
}

func playedIn(t *testing.T, folder *state.Folder, text string, layers kind.Layers) playedStore {
	t.Helper()
	c, err := config.Parse([]byte("stores: ["+text+"]"), all.All())
	if err != nil {
		t.Fatal(err)
	}
	backend, run := node.OpenPlayedIn(folder, c, layers, slog.New(noBugs{t}))
	return playedStore{backend, t, run}
}

// requestOf is one of a pod of shop/api.
func requestOf(pod string) login.Request {
	return login.Request{Role: "shop", Identity: auth.Identity{
		Namespace: "shop", ServiceAccount: "api", PodName: pod, PodUID: "uid-" + pod, Expires: time.Now().Add(time.Hour),
	}}
}

// read reads a path for a pod of shop/api; below make/, each read makes something.
func (p playedStore) read(ctx context.Context, pod, path string) error {
	parsed, err := store.ParsePath(path)
	if err != nil {
		return err
	}
	ref := store.Ref{Path: parsed}
	if strings.HasPrefix(path, "make/") {
		ref.Args = "{}"
	}
	_, err = p.Store.Read(ctx, requestOf(pod), ref, store.Resolved{Path: parsed, Makes: ref.Args != ""})
	return err
}

// during runs the background work of the store during a story.
func (p playedStore) during(story func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = p.run(ctx) })
	story()
	cancel()
	running.Wait()
}

// inMemory makes a path for a state folder, and opens it.
func inMemory(t *testing.T) (path string, open func(log *slog.Logger) *state.Folder) {
	t.Helper()
	parent, err := os.MkdirTemp("/dev/shm", "km-") //nolint:usetesting // a state folder is in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	path = filepath.Join(parent, "state")
	return path, func(log *slog.Logger) *state.Folder {
		folder, err := state.Open(path, secret.New(bytes.Repeat([]byte("k"), 32)), "node-1", log)
		if err != nil {
			t.Fatal(err)
		}
		return folder
	}
}

// The file of a store is bound to the place of the store, and to the way to log in: any
// other binding would put the files of running nodes aside. A bundle keeps no state.
func TestStateIsBound(t *testing.T) {
	c, err := config.Parse([]byte(`
stores:
  - {name: prod, vault: {addresses: ["https://vault:8200"]}, access: store}
  - {name: files, bundle: {file: none.age, identityFile: none.txt}}
`), all.All())
	if err != nil {
		t.Fatal(err)
	}
	path, open := inMemory(t)
	folder := open(slog.New(slog.DiscardHandler))
	if _, err := node.OpenIn(t.Context(), c, folder, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	_ = folder.During(t.Context(), func() error { return nil })
	folder.Close()
	files, err := filepath.Glob(filepath.Join(path, "*"))
	if diff := cmp.Diff([]string{filepath.Join(path, "prod.state")}, files); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	var log bytes.Buffer
	folder = open(slog.New(slog.NewTextHandler(&log, nil)))
	defer folder.Close()
	folder.File("prod", []any{[]string{"https://vault:8200"}, "", "kubernetes", "kubernetes", "serviceAccount"})
	folder.Restore(t.Context())
	if !strings.Contains(log.String(), "the state is taken over") {
		t.Errorf("the file does not open: %s", log.String())
	}
}

// A login or a value that was made is in the state a moment after the store gave it, and not
// only when keymount stops.
func TestStateFollowsTheStore(t *testing.T) {
	for path, layers := range map[string]kind.Layers{
		"secret/db": {Store: &played{}, Login: &played{}},
		"make/db":   {Store: &played{ends: true}},
	} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				folderPath, open := inMemory(t)
				folder := open(slog.New(slog.DiscardHandler))
				defer folder.Close()
				s := playedVault(t, folder, "", layers)
				_ = folder.During(t.Context(), func() error {
					s.during(func() {
						if err := s.read(t.Context(), "api-0", path); err != nil {
							t.Error(err)
						}
						<-time.After(2 * time.Second)
						if _, err := os.Stat(filepath.Join(folderPath, "default.state")); err != nil {
							t.Error(err)
						}
					})
					return nil
				})
			})
		})
	}
}

// A login is used by pods that are served from memory, too: it is renewed for them.
func TestLoginOfRememberedValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &played{}
		s := playedVault(t, nil, ", refresh: 1h", kind.Layers{Store: p, Login: p})
		s.during(func() {
			for range 90 {
				if err := s.read(t.Context(), "api-0", "secret/db"); err != nil {
					t.Fatal(err)
				}
				<-time.After(2 * time.Minute)
			}
		})
		if p.logins != 1 {
			t.Errorf("there were %d logins in three hours, want 1", p.logins)
		}
	})
}

// A store has 64 requests at most, four fifths of them of one namespace, and the others wait.
func TestStoreIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &played{hangs: make(chan struct{})}
		s := playedVault(t, nil, "", kind.Layers{Store: p})
		var reading sync.WaitGroup
		for n := range 65 {
			reading.Go(func() { _ = s.read(t.Context(), "api-0", fmt.Sprint("secret/", n)) })
		}
		synctest.Wait()
		if p.reads != 52 {
			t.Errorf("%d requests are at the store, want 52", p.reads)
		}
		close(p.hangs)
		reading.Wait()
	})
}

// The setting session decides whether pods share a login, and the secrets read with it.
func TestSession(t *testing.T) {
	for session, want := range map[string]int{"serviceAccount": 1, "pod": 2} {
		t.Run(session, func(t *testing.T) {
			p := &played{}
			s := playedVault(t, nil, ", session: "+session, kind.Layers{Store: p, Login: p})
			for _, pod := range []string{"api-0", "api-1"} {
				if err := s.read(t.Context(), pod, "secret/db"); err != nil {
					t.Error(err)
				}
			}
			if p.logins != want || p.reads != want {
				t.Errorf("%d logins, %d reads, want %d each", p.logins, p.reads, want)
			}
		})
	}
}

// A store of a node has the abilities and the settings that keymount.yaml gives to it.
func TestBackends(t *testing.T) {
	c, err := config.Parse([]byte(`
stores:
  - {name: prod, vault: {addresses: ["https://vault:8200"], auth: {audience: here}}, access: store, tokensWithoutPod: true}
  - {name: files, bundle: {file: none.age, identityFile: none.txt}}
`), all.All())
	if err != nil {
		t.Fatal(err)
	}
	backends, err := node.OpenIn(t.Context(), c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	type fields struct {
		Name, Audience             string
		Resolves, TokensWithoutPod bool
	}
	var got []fields
	for i, b := range backends {
		got = append(got, fields{b.Name, b.Audience, b.Resolves, b.TokensWithoutPod})
		if diff := cmp.Diff(c.Stores[i].Kind.Traits(), b.Class.Traits); diff != "" || b.Class.Settings != c.Stores[i].Settings {
			t.Errorf("%s has other traits or settings: %s", b.Name, diff)
		}
	}
	if diff := cmp.Diff([]fields{{"prod", "here", true, true}, {"files", "keymount", false, false}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// recalling has each value at hand.
type recalling struct{ *played }

func (recalling) Recall(store.Caller, store.Ref) (store.Value, bool) { return store.Value{}, true }

// A store that has values at hand is not asked for them.
func TestRecall(t *testing.T) {
	p := recalling{&played{}}
	s := playedIn(t, nil, "{bundle: {file: none.age, identityFile: none.txt}}", kind.Layers{Store: p, Recaller: p})
	if _, known := s.Store.Recall(requestOf("api-0")).Value(store.Ref{}, store.Resolved{}); !known {
		t.Error("the store has the value at hand, and would be asked")
	}
}

// silent writes no events.
type silent struct{}

func (silent) Warning(auth.Pod, string, string, string) {}
func (silent) Normal(auth.Pod, string, string, string)  {}

// The trail is first: a mount fails without its record. The log is last, for its line has all
// that the others left; the others are all there.
func TestRecorders(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for want, got := range map[string][]provider.Recorder{
		"[*audit.Trail *observe.Events *observe.Metrics *observe.Rotation *observe.Log]": node.Recorders(silent{}, observe.NewMetrics("", ""), &observe.Rotation{}, log),
		"[*audit.Trail *observe.Metrics *observe.Rotation *observe.Log]":                 node.Recorders(nil, nil, &observe.Rotation{}, log),
	} {
		types := make([]string, len(got))
		for i, r := range got {
			types[i] = fmt.Sprintf("%T", r)
		}
		if fmt.Sprint(types) != want {
			t.Errorf("got %s, want %s", types, want)
		}
	}
}
