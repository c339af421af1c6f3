package provider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

// heard keeps the records of mounts, and fails with its error.
type heard struct {
	mu     sync.Mutex
	mounts []record.Mount
	err    error
}

func (h *heard) Record(_ context.Context, m *record.Mount) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mounts = append(h.mounts, *m)
	return h.err
}

// take is what was heard since.
func (h *heard) take() []record.Mount {
	h.mu.Lock()
	defer h.mu.Unlock()
	mounts := h.mounts
	h.mounts = nil
	return mounts
}

// one is the only mount that was heard since.
func (h *heard) one(t *testing.T) record.Mount {
	t.Helper()
	mounts := h.take()
	if len(mounts) != 1 {
		t.Fatalf("%d records of one mount", len(mounts))
	}
	return mounts[0]
}

// recorderFunc is a Recorder that is a function.
type recorderFunc func(*record.Mount) error

func (f recorderFunc) Record(_ context.Context, m *record.Mount) error { return f(m) }

// heardBy has recorders hear of the mounts of a world.
func heardBy(recorders ...provider.Recorder) func(*world, *setup) {
	return func(_ *world, s *setup) { s.options.Recorders = recorders }
}

// Every way out of a mount leaves exactly one record, with the outcome that the driver
// is told.
func TestEveryMountHasOneRecord(t *testing.T) {
	h := &heard{}
	w := start(t, heardBy(h), func(_ *world, s *setup) { s.options.Deadline = 2 * time.Second })
	for _, name := range []string{"db", "bug", "late", "broken"} {
		w.memory.Set("shop/"+name, map[string]any{"password": canary})
	}
	w.memory.Behave(func(ctx context.Context, _ store.Caller, ref store.Ref) error {
		switch ref.Path.String() {
		case "shop/bug":
			panic(canary)
		case "shop/late":
			<-ctx.Done()
			return ctx.Err()
		case "shop/broken":
			return &store.Error{Reason: store.Invalid, Said: "no JSON", RequestID: "request-7"}
		}
		return nil
	})
	for name, test := range map[string]struct {
		objects string
		change  func(v map[string]string)
		code    codes.Code
		reads   int
	}{
		"success":             {objects: oneKey, code: codes.OK, reads: 1},
		"a mistake":           {objects: "[{path: shop/db, fiel: a}]", code: codes.InvalidArgument},
		"a token of another":  {objects: oneKey, change: func(tokens map[string]string) { tokens[audience] = "e30.e30.e30" }, code: codes.Unauthenticated},
		"a rule":              {objects: "[{path: blog/db, key: password, file: a}]", code: codes.PermissionDenied, reads: 1},
		"absent":              {objects: "[{path: shop/none, key: password, file: a}]", code: codes.NotFound, reads: 1},
		"absent, optional":    {objects: "[{path: shop/none, key: password, file: a, optional: true}]", code: codes.OK, reads: 1},
		"no such key":         {objects: "[{path: shop/db, key: none, file: a}]", code: codes.NotFound, reads: 1},
		"an odd answer":       {objects: "[{path: shop/broken, key: password, file: a}]", code: codes.FailedPrecondition, reads: 1},
		"a deadline":          {objects: "[{path: shop/late, key: password, file: a}]", code: codes.FailedPrecondition, reads: 1},
		"a panic of a store":  {objects: "[{path: shop/bug, key: password, file: a}]", code: codes.Internal, reads: 1},
		"some, and one fails": {objects: "[{path: shop/db, key: password, file: a}, {path: shop/none, key: b, file: b}]", code: codes.NotFound, reads: 2},
	} {
		t.Run(name, func(t *testing.T) {
			v := w.volume(pod("shop", "api"), test.objects)
			if test.change != nil {
				test.change(v.Tokens)
			}
			_, _, err := w.mount(t, v)
			m := h.one(t)
			checkStatus(t, err, m.Code, m.Message)
			if m.Code != test.code || (m.Err == nil) != (test.code == codes.OK) || len(m.Reads) != test.reads || m.Took <= 0 || m.Began.IsZero() {
				t.Errorf("got %+v", m)
			}
			if m.Pod != v.Pod || m.Class != "app" || m.Dialect != class.DialectKeymount {
				t.Errorf("got %+v", m)
			}
		})
	}
}

// What cannot be read at all is recorded as well.
func TestRecordOfNoRequest(t *testing.T) {
	h := &heard{}
	w := start(t, heardBy(h))
	if _, err := w.driver.Call(t.Context(), "no JSON"); err == nil {
		t.Error("a call without attributes was answered")
	}
	if m := h.one(t); m.Code != codes.InvalidArgument || m.Pod != (auth.Pod{}) || m.Class != "" || !m.First || m.Message == "" {
		t.Errorf("got %+v", m)
	}
}

// A panic in a step that is not a store's is recorded, and the process lives.
func TestRecordOfAPanic(t *testing.T) {
	h := &heard{}
	w := start(t, heardBy(h), func(_ *world, s *setup) { s.options.Backends[0].Store = panicking{} })
	_, _, err := w.mount(t, w.volume(pod("shop", "api"), oneKey))
	m := h.one(t)
	checkStatus(t, err, codes.Internal, m.Message)
	if m.Code != codes.Internal || len(m.Reads) != 1 || m.Reads[0].Err != nil {
		t.Errorf("got %+v", m)
	}
}

// panicking is a store whose bug is met in the mount's own goroutine.
type panicking struct{ provider.Store }

func (panicking) Recall(login.Request) keep.Recollection { panic(canary) }

// A record has the identity, the rules' answer, the store's version and request, and the
// files of every secret.
func TestRecordOfReads(t *testing.T) {
	h := &heard{}
	w := start(t, heardBy(h), func(w *world, s *setup) {
		s.options.Backends[0].Store = direct(storetest.LayersOf(versioned{w.memory}, nil))
	})
	w.memory.Set("shop/db", map[string]any{"user": "shop", "password": canary})
	w.memory.Set("shop/host", map[string]any{"name": "db"})
	_, _, err := w.mount(t, w.volume(pod("shop", "api"), `
- {path: shop/db, key: password, file: password}
- {path: shop/db, file: dsn, template: '{{ .user }}@{{ (secret "shop/host").name }}/{{ (secret "shop/host").name }}'}
- {path: shop/none, key: a, file: none, optional: true}`))
	if err != nil {
		t.Fatal(err)
	}
	m := h.one(t)
	if m.Files != 2 || len(m.Reads) != 3 || !m.First {
		t.Fatalf("got %+v", m)
	}
	for i, want := range []record.Read{
		{Files: []string{"password", "dsn"}, Version: "7", RequestID: "of shop/db", Source: record.FromStore},
		{Files: []string{"dsn"}, Version: "7", RequestID: "of shop/host", Source: record.FromStore},
		{RequestID: "of shop/none"},
	} {
		got := m.Reads[i]
		if got.Version != want.Version || got.RequestID != want.RequestID || got.Source != want.Source || !got.Rule.Allowed {
			t.Errorf("reads[%d] is %+v", i, got)
		}
		if diff := cmp.Diff(want.Files, got.Files); diff != "" {
			t.Errorf("files of reads[%d] (-want +got):\n%s", i, diff)
		}
		if got.Identity.ServiceAccount != "api" || got.Identity.PodUID != "uid-shop-api" || got.Identity.Issuer != issuerName || got.Identity.Audience != audience {
			t.Errorf("reads[%d] is for %+v", i, got.Identity)
		}
	}
	if s := m.Reads[1].Secret; s.Store != "default" || s.Path != parsePath(t, "shop/host") || !errors.Is(m.Reads[2].Err, store.NotFound) {
		t.Errorf("got %+v", m.Reads)
	}
	_, _, _ = w.mount(t, w.volume(pod("shop", "api"), oneKey))
	if m := h.one(t); m.First {
		t.Error("a volume that was mounted counts as a first one")
	}
	_, _, _ = w.mount(t, w.volume(pod("shop", "api"), "[{path: blog/db, key: a, file: a}]"))
	if m := h.one(t); len(m.Reads) != 1 || m.Reads[0].Rule.Allowed || !m.Reads[0].Denied() {
		t.Errorf("a denied read is %+v", m.Reads)
	}
}

// What a class sends to a store stays between them.
func TestRecordHoldsNoArguments(t *testing.T) {
	h := &heard{}
	w := start(t, heardBy(h), func(_ *world, s *setup) {
		b := &s.options.Backends[0]
		b.Class.Traits.Writes = true
		compiled, err := access.Compile("access", []access.Rule{{
			Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{"{namespace}/**"}, Writes: []string{"{namespace}/**"},
		}}, access.Kind{Writes: true})
		if err != nil {
			t.Fatal(err)
		}
		b.Rules = compiled
	})
	w.memory.Set("shop/db", map[string]any{"password": canary})
	_, _, _ = w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/db, key: password, file: a, args: {pin: "+canary+"}}]"))
	m := h.one(t)
	if len(m.Reads) != 1 || !m.Reads[0].Write || m.Reads[0].Err != nil {
		t.Fatalf("got %+v", m)
	}
	if one := m.Reads[0].Secret; one.Args != "" || one.Query != "" {
		t.Errorf("the record holds %q and %q", one.Args, one.Query)
	}
}

// versioned is a store that counts versions and names its requests.
type versioned struct{ *storetest.Memory }

func (v versioned) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	value, err := v.Memory.Read(ctx, caller, ref)
	value.Version, value.RequestID = "7", "of "+ref.Path.String()
	if failed, ok := errors.AsType[*store.Error](err); ok {
		failed.RequestID = value.RequestID
	}
	return value, err
}

// A record says whether memory answered.
func TestRecordOfMemory(t *testing.T) {
	h := &heard{}
	w := start(t, heardBy(h), func(w *world, s *setup) {
		inner, _ := storetest.LoggedIn(storetest.LayersOf(w.memory, nil))
		s.options.Backends[0].Store = keep.New(inner, keep.Options{Refresh: time.Hour, Stale: time.Hour, Pool: keep.NewPool(1<<20, time.Now, nil), Now: time.Now})
	})
	w.memory.Set("shop/db", map[string]any{"password": canary})
	for _, want := range []record.Source{record.FromStore, record.FromMemory} {
		_, _, _ = w.mount(t, w.volume(pod("shop", "api"), oneKey))
		if m := h.one(t); len(m.Reads) != 1 || m.Reads[0].Source != want {
			t.Errorf("got %+v, want it from the %s", m.Reads, want)
		}
	}
	for source, same := range map[keep.Source]record.Source{
		keep.FromStore: record.FromStore, keep.FromMemory: record.FromMemory, keep.Stale: record.Stale,
	} {
		if record.Source(source) != same {
			t.Errorf("%q is %q in a record", source, same)
		}
	}
}

// Without its record no mount is answered, and the Recorders that come after hear that.
func TestRecordThatCannotBeWritten(t *testing.T) {
	before, full, after := &heard{}, &heard{err: errors.New("disk full; make room in /var/lib/keymount")}, &heard{}
	w := start(t, heardBy(before, full, after))
	const text = "the record of this mount cannot be written: disk full; make room in /var/lib/keymount"
	w.memory.Set("shop/db", map[string]any{"password": canary})
	for range 2 { // the pod has not got its files: it is a first mount again
		w.refused(t, w.volume(pod("shop", "api"), oneKey), codes.FailedPrecondition, text)
		if m := before.one(t); m.Code != codes.OK || m.Err != nil {
			t.Errorf("before: %+v", m)
		}
		if m := full.one(t); m.Code != codes.OK || !m.First {
			t.Errorf("the one that fails: %+v", m)
		}
		if m := after.one(t); m.Code != codes.FailedPrecondition || m.Message != text || m.Err == nil || m.Files != 1 {
			t.Errorf("after: %+v", m)
		}
	}
	const none = `objects[0]: secret "shop/none" of store "default": not found: no secret at "shop/none"`
	w.refused(t, w.volume(pod("shop", "api"), "[{path: shop/none, key: a, file: a}]"), codes.NotFound, none+"\n"+text)
	if m := after.one(t); m.Code != codes.NotFound {
		t.Errorf("after a mount that fails anyway: %+v", m)
	}
	if !strings.Contains(string(w.log.Bytes()), `"code":"FailedPrecondition"`) {
		t.Errorf("the line of the log does not tell the final code:\n%s", w.log.Bytes())
	}
}

// A bug of a Recorder costs neither the process nor the mount, and others are told.
func TestRecorderPanics(t *testing.T) {
	others := &heard{}
	w := start(t, heardBy(recorderFunc(func(*record.Mount) error { panic(canary) }), others))
	volume := w.volume(pod("shop", "api"), oneKey)
	_, _, _ = w.mount(t, volume)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	if _, _, err := w.mount(t, volume); err != nil {
		t.Errorf("the mount fails with %v", err)
	}
	if got := others.take(); len(got) != 2 {
		t.Errorf("the others were told %+v", got)
	}
	var panics []string
	for line := range bytes.Lines(w.log.Bytes()) {
		var l struct{ Level, Code, Panic, Stack string }
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		panics = append(panics, l.Level+" "+l.Code+" "+l.Panic)
		if !strings.Contains(l.Stack, "TestRecorderPanics") {
			t.Errorf("the stack does not show the recorder: %s", l.Stack)
		}
	}
	if diff := cmp.Diff([]string{"ERROR NotFound string", "ERROR OK string"}, panics); diff != "" {
		t.Errorf("lines of the log (-want +got):\n%s", diff)
	}
}

// What a class had better not say is in the record of each of its mounts, in its words.
func TestRecordOfWarnings(t *testing.T) {
	h := &heard{}
	w, _ := startVault(t, "vault.sock", func(s *setup, _ *vaultServer) { heardBy(h)(nil, s) })
	var texts []string
	for _, parameters := range []map[string]string{{"vaultSkipTLSVerify": "true"}, {"vaultSkipTLSVerify": "true"}, {"vaultCACertPath": "/ca"}} {
		if _, _, err := w.mount(t, w.vaultVolume(vaultKey, parameters)); err != nil {
			t.Fatal(err)
		}
		m := h.one(t)
		if len(m.Warnings) != 1 || m.Dialect != class.DialectVault {
			t.Errorf("got %+v", m)
		}
		texts = append(texts, m.Warning())
	}
	if texts[0] != texts[1] || texts[0] == texts[2] {
		t.Errorf("got %q", texts)
	}
}

// A second way to spell a secret is no second read, and its files are told once.
func TestRecordOfTwoSpellings(t *testing.T) {
	h := &heard{}
	l := &loginStore{Memory: storetest.NewMemory(), revoked: map[string]bool{}}
	w := start(t, heardBy(h), func(_ *world, s *setup) {
		compiled, err := access.Compile("access", []access.Rule{{
			Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"{namespace}"}, Paths: []string{"{namespace}/**"},
		}}, access.Kind{Roles: access.Required, Writes: true})
		if err != nil {
			t.Fatal(err)
		}
		s.options.Backends = []provider.Backend{{
			Name: "default", Audience: audience, Rules: compiled, Class: class.Store{Traits: kind.Traits{Roles: access.Required}}, Store: direct(storetest.LayersOf(l, l)), Resolves: true,
		}}
	})
	l.Set("shop/db", map[string]any{"password": canary})
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), `
- {path: shop/db, role: shop, key: password, file: a}
- {path: data/shop/db, role: shop, file: b, template: '{{ .password }}{{ (secret "shop/db").password }}'}`)); err != nil {
		t.Fatal(err)
	}
	m := h.one(t)
	if len(m.Reads) != 1 || m.Reads[0].Secret.Role != "shop" {
		t.Fatalf("got %+v", m.Reads)
	}
	if diff := cmp.Diff([]string{"a", "b"}, m.Reads[0].Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
