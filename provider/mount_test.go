package provider_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store"
)

const oneKey = "[{path: shop/db, key: password, file: db/password}]"

func TestMountEveryForm(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"user": "shop", "password": canary, "port": json.Number("5432"), "tls.crt": "dotted"})
	w.memory.Set("shop/deep", map[string]any{"users": []any{map[string]any{"name": "ann"}, map[string]any{"name": "bo"}}})
	tests := map[string]struct {
		objects string
		want    map[string]string
	}{
		"one key":          {"[{path: shop/db, key: password, file: a}]", map[string]string{"a": canary}},
		"in a folder":      {"[{path: shop/db, key: password, file: a/b/c}]", map[string]string{"a/b/c": canary}},
		"key with a dot":   {"[{path: shop/db, key: tls.crt, file: a}]", map[string]string{"a": "dotted"}},
		"number":           {"[{path: shop/db, key: port, file: a}]", map[string]string{"a": "5432"}},
		"list by index":    {"[{path: shop/deep, key: users.1.name, file: a}]", map[string]string{"a": "bo"}},
		"part as JSON":     {"[{path: shop/deep, key: users.0, file: a}]", map[string]string{"a": `{"name":"ann"}`}},
		"all keys":         {"[{path: shop/db, file: db/}]", map[string]string{"db/user": "shop", "db/password": canary, "db/port": "5432", "db/tls.crt": "dotted"}},
		"all keys on top":  {"[{path: shop/db, file: ./}]", map[string]string{"user": "shop", "password": canary, "port": "5432", "tls.crt": "dotted"}},
		"JSON":             {"[{\"path\": \"shop\\/db\", \"key\"\n: \"user\", \"file\": \"user\"}]", map[string]string{"user": "shop"}},
		"folder and more":  {"[{path: shop/deep, file: f/}, {path: shop/db, key: user, file: f/user}]", map[string]string{"f/users": `[{"name":"ann"},{"name":"bo"}]`, "f/user": "shop"}},
		"optional, there":  {"[{path: shop/db, key: user, file: a, optional: true}]", map[string]string{"a": "shop"}},
		"optional, absent": {"[{path: shop/none, key: user, file: a, optional: true}, {path: shop/db, key: user, file: b}]", map[string]string{"b": "shop"}},
		"optional, no key": {"[{path: shop/db, key: none, file: a, optional: true}, {path: shop/db, key: user, file: b}]", map[string]string{"b": "shop"}},
		"nothing there":    {"[{path: shop/none, key: user, file: a, optional: true}]", map[string]string{".keymount": ""}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, _, err := w.mount(t, w.volume(pod("shop", "api"), test.objects))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestModes(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	target := t.TempDir()
	objects := `[{path: shop/db, key: password, file: default},
		{path: shop/db, key: password, file: quoted, mode: "0400"},
		{path: shop/db, key: password, file: plain, mode: 0440},
		{path: shop/db, key: password, file: three, mode: 600},
		{path: shop/db, key: password, file: prefixed, mode: 0o640}]`
	if _, err := w.driver.Mount(t.Context(), w.volume(pod("shop", "api"), objects), target); err != nil {
		t.Fatal(err)
	}
	want := map[string]os.FileMode{"default": 0o444, "quoted": 0o400, "plain": 0o440, "three": 0o600, "prefixed": 0o640}
	for file, mode := range want {
		info, err := os.Stat(filepath.Join(target, file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %04o, want %04o", file, info.Mode().Perm(), mode)
		}
	}
}

func TestVersionsFollowBytes(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"user": "shop", "password": canary + "-1"})
	v := w.volume(pod("shop", "api"), "[{path: shop/db, file: db/}]")
	_, first, err := w.mount(t, v)
	if err != nil {
		t.Fatal(err)
	}
	_, again, _ := w.mount(t, v)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("versions changed without a change of bytes:\n%s", diff)
	}

	w.memory.Set("shop/db", map[string]any{"user": "shop", "password": canary + "-2"})
	_, rotated, err := w.mount(t, v)
	if err != nil {
		t.Fatal(err)
	}
	if rotated["db/password"] == first["db/password"] {
		t.Error("the password changed and its version did not")
	}
	if rotated["db/user"] != first["db/user"] {
		t.Error("the user's version changed with its sibling")
	}

	other := start(t)
	other.memory.Set("shop/db", map[string]any{"user": "shop", "password": canary + "-1"})
	_, elsewhere, _ := other.mount(t, other.volume(pod("shop", "api"), "[{path: shop/db, file: db/}]"))
	if diff := cmp.Diff(first, elsewhere); diff != "" {
		t.Errorf("two nodes with one version key disagree:\n%s", diff)
	}
}

func TestVersionsTellNothingAcrossIdentities(t *testing.T) {
	w := start(t)
	seen := map[string]string{}
	for _, p := range []struct{ namespace, account string }{{"shop", "api"}, {"shop", "web"}, {"blog", "api"}} {
		w.memory.Set(p.namespace+"/db", map[string]any{"password": canary})
		objects := fmt.Sprintf("[{path: %s/db, key: password, file: a}, {path: %s/db, key: password, file: b}]", p.namespace, p.namespace)
		_, versions, err := w.mount(t, w.volume(pod(p.namespace, p.account), objects))
		if err != nil {
			t.Fatal(err)
		}
		for file, version := range versions {
			who := p.namespace + "/" + p.account + " " + file
			if other, twice := seen[version]; twice {
				t.Errorf("%s and %s hold the same bytes and show the same version", who, other)
			}
			seen[version] = who
		}
	}
}

func TestPodsSeeWhatTheirRulesAllow(t *testing.T) {
	w := start(t, func(_ *world, s *setup) {
		s.options.Backends[0].Rules = rules(t,
			access.Rule{Namespaces: []string{"shop"}, ServiceAccounts: []string{"api"}, Paths: []string{"shop/db"}},
			access.Rule{Namespaces: []string{"shop"}, ServiceAccounts: []string{"web"}, Paths: []string{"shop/web/**"}})
	})
	w.memory.Set("shop/db", map[string]any{"password": canary})
	w.memory.Set("shop/web/session", map[string]any{"password": canary})
	const db, web = "[{path: shop/db, key: password, file: f}]", "[{path: shop/web/session, key: password, file: f}]"
	for account, objects := range map[string]string{"api": db, "web": web} {
		if _, _, err := w.mount(t, w.volume(pod("shop", account), objects)); err != nil {
			t.Errorf("%s is refused its own secret: %v", account, err)
		}
	}
	reads := w.memory.Reads()
	w.refused(t, w.volume(pod("shop", "web"), db), codes.PermissionDenied,
		`objects[0]: not allowed: service account shop/web may not read "shop/db" of store "default"; no rule under access of that store in keymount.yaml allows it`)
	w.refused(t, w.volume(pod("shop", "api"), web), codes.PermissionDenied,
		`objects[0]: not allowed: service account shop/api may not read "shop/web/session" of store "default"; no rule under access of that store in keymount.yaml allows it`)
	w.refused(t, w.volume(pod("blog", "api"), db), codes.PermissionDenied,
		`objects[0]: not allowed: service account blog/api may not read "shop/db" of store "default"; no rule under access of that store in keymount.yaml allows it`)
	if w.memory.Reads() != reads {
		t.Error("the store was read for a denied pod")
	}
}

func TestStoreWithoutRulesAllowsNothing(t *testing.T) {
	w := start(t, func(_ *world, s *setup) { s.options.Backends[0].Rules = rules(t) })
	w.memory.Set("shop/db", map[string]any{"password": canary})
	w.refused(t, w.volume(pod("shop", "api"), oneKey), codes.PermissionDenied,
		`objects[0]: not allowed: service account shop/api may not read "shop/db" of store "default"; no rule under access of that store in keymount.yaml allows it`)
}

// One denied object denies the mount: all files or none.
func TestAllFilesOrNone(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	target := t.TempDir()
	objects := "[{path: shop/db, key: password, file: a}, {path: shop/none, key: x, file: b}, {path: shop/db, key: y, file: c}]"
	_, err := w.driver.Mount(t.Context(), w.volume(pod("shop", "api"), objects), target)
	checkStatus(t, err, codes.NotFound, `objects[1]: secret "shop/none" of store "default": not found: no secret at "shop/none"`)
	if entries, _ := os.ReadDir(target); len(entries) != 0 {
		t.Errorf("the volume holds %v", entries)
	}
}

func TestOneSecretIsReadOnce(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"user": "shop", "password": canary})
	objects := "[{path: shop/db, key: user, file: a}, {path: shop/db, key: password, file: b}, {path: shop/db, file: c/}]"
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), objects)); err != nil {
		t.Fatal(err)
	}
	if got := w.memory.Reads(); got != 1 {
		t.Errorf("three objects of one secret cost %d reads, want 1", got)
	}
}

// No other spelling of a secret's path may pass a rule that the path would not.
func TestSpellings(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	w.memory.Set("blog/db", map[string]any{"password": canary})
	for _, path := range []string{
		"blog/../shop/db", "blog/./../shop/db", "/shop/db", "shop/db/", "shop//db", "./shop/db", "blog/..//shop/db", "shop/./db",
		"blog/%2e%2e/shop/db", "shop%2Fdb", "shop/db?x=blog/", "blog/?/../../shop/db", "shop/db#blog", "blog\\..\\shop/db",
		"blog/\u202e/shop", "blog/\u0000", "blog/\n", "blog/\u00a0", "..", ".", "blog/..", "%", "blog/%00", "shop/db\u200b",
		"blog/*", "blog/**", "**", "*/db", "{namespace}/db", "Blog/db", "BLOG/db", " blog/db", "shop/db ", "shop／db",
	} {
		text, err := json.Marshal(path)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = w.mount(t, w.volume(pod("blog", "web"), fmt.Sprintf("[{path: %s, key: password, file: f}]", text)))
		if code := status.Code(err); code != codes.InvalidArgument && code != codes.PermissionDenied && code != codes.NotFound {
			t.Errorf("path %s answers %s: %v", text, code, err)
		}
	}
}

func TestStoreFailures(t *testing.T) {
	tests := map[string]struct {
		err  error
		code codes.Code
		text string
	}{
		"denied":      {store.Denied.Errorf("policy"), codes.PermissionDenied, "denied by the store: policy"},
		"invalid":     {store.Invalid.Errorf("no map"), codes.FailedPrecondition, "invalid: no map"},
		"unavailable": {store.Unavailable.Errorf("sealed"), codes.FailedPrecondition, "store unavailable: sealed"},
		"canceled":    {context.Canceled, codes.FailedPrecondition, "context canceled"},
		"deadline":    {context.DeadlineExceeded, codes.FailedPrecondition, "context deadline exceeded"},
		"unknown":     {errors.New("odd"), codes.Internal, "odd"},
		"not UTF-8":   {errors.New("odd \xff"), codes.Internal, "odd \uFFFD"},
		"status": {
			status.Error(codes.Unavailable, "from elsewhere"), codes.Internal,
			"rpc error: code = Unavailable desc = from elsewhere",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(_ *world, s *setup) { s.options.Deadline = time.Second })
			w.memory.Behave(func(context.Context, store.Caller, store.Ref) error { return test.err })
			w.refused(t, w.volume(pod("shop", "api"), oneKey), test.code, `objects[0]: secret "shop/db" of store "default": `+test.text)
		})
	}
}

func TestStoreComesBackWithinTheCall(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	var mu sync.Mutex
	failures := 2
	w.memory.Behave(func(context.Context, store.Caller, store.Ref) error {
		mu.Lock()
		defer mu.Unlock()
		if failures == 0 {
			return nil
		}
		failures--
		return store.Unavailable.Errorf("starting")
	})
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), oneKey)); err != nil {
		t.Errorf("a store that is back after two tries fails the mount: %v", err)
	}
}

func TestPanicHarmsOneMount(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	for name, fault := range map[string]func() error{
		"a text with a secret": func() error { panic("panic with " + canary) },
		"the runtime":          func() error { return any(canary).(error) },
	} {
		t.Run(name, func(t *testing.T) {
			w.memory.Behave(func(context.Context, store.Caller, store.Ref) error { return fault() })
			w.refused(t, w.volume(pod("shop", "api"), oneKey), codes.Internal,
				`objects[0]: secret "shop/db" of store "default": keymount ran into a bug of its own; its log has the stack, please report it`)
			w.memory.Behave(nil)
			if _, _, err := w.mount(t, w.volume(pod("shop", "api"), oneKey)); err != nil {
				t.Errorf("the next mount fails, too: %v", err)
			}
		})
	}
	if !strings.Contains(string(w.log.Bytes()), "interface conversion: string is not error") {
		t.Error("the log does not say what the runtime said")
	}
}

func TestDeadline(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	tests := map[string]struct {
		hang func(ctx context.Context) error
		want string
	}{
		"store heeds the deadline": {func(ctx context.Context) error {
			<-ctx.Done()
			return store.Unavailable.Errorf("no answer from 127.0.0.1")
		}, "store unavailable: no answer from 127.0.0.1"},
		"store does not": {func(context.Context) error {
			<-release
			return nil
		}, "store unavailable: no answer before the mount's deadline"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(_ *world, s *setup) { s.options.Deadline = 100 * time.Millisecond })
			w.memory.Behave(func(ctx context.Context, _ store.Caller, _ store.Ref) error { return test.hang(ctx) })
			w.refused(t, w.volume(pod("shop", "api"), oneKey), codes.FailedPrecondition,
				`objects[0]: secret "shop/db" of store "default": `+test.want)
		})
	}
}

// The caller's own deadline would make grpc answer DeadlineExceeded; ours comes first.
func TestAnswerBeforeTheCallersDeadline(t *testing.T) {
	w := start(t)
	w.memory.Behave(func(ctx context.Context, _ store.Caller, _ store.Ref) error {
		<-ctx.Done()
		return store.Unavailable.Errorf("hangs")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := w.driver.Mount(ctx, w.volume(pod("shop", "api"), oneKey), t.TempDir())
	checkStatus(t, err, codes.FailedPrecondition, `objects[0]: secret "shop/db" of store "default": store unavailable: hangs`)
}

func TestConcurrentMounts(t *testing.T) {
	w := start(t)
	const mounts, namespaces = 200, 20
	for n := range namespaces {
		w.memory.Set(fmt.Sprintf("ns-%d/db", n), map[string]any{"password": fmt.Sprintf("%s-%d", canary, n)})
	}
	var all sync.WaitGroup
	for m := range mounts {
		all.Go(func() {
			n := m % namespaces
			namespace := fmt.Sprintf("ns-%d", n)
			files, _, err := w.mount(t, w.volume(pod(namespace, "api"), fmt.Sprintf("[{path: %s/db, file: ./}]", namespace)))
			if err != nil || files["password"] != fmt.Sprintf("%s-%d", canary, n) {
				t.Errorf("%s got %q, %v", namespace, files["password"], err)
			}
		})
	}
	all.Wait()
}

func TestSizes(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/big", map[string]any{"a": strings.Repeat("a", 5<<20), "b": "small"})
	w.memory.Set("shop/fits", map[string]any{"a": strings.Repeat("a", 4<<20-500)})
	junk := w.volume(pod("shop", "api"), strings.Repeat("- {a: b}\n", 1<<20/9))
	huge := w.volume(pod("shop", "api"), strings.Repeat("x", 6<<20))
	most := w.volume(pod("shop", "api"), strings.Repeat("x", 15<<20))
	_, _, err := w.mount(t, most)
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("15 MiB: %v", err)
	}
	_, _, err = w.mount(t, junk)
	if code := status.Code(err); code != codes.InvalidArgument {
		t.Errorf("1 MiB of junk: %v", err)
	}
	_, _, err = w.mount(t, huge)
	if got := status.Convert(err); got.Code() != codes.InvalidArgument || !strings.Contains(got.Message(), "more than the 1048576 bytes that one may have; split it") {
		t.Errorf("6 MiB: %v", err)
	}
	w.refused(t, w.volume(pod("shop", "api"), "[{path: shop/big, file: big/}]"), codes.FailedPrecondition,
		"the files are too large: 5242885 bytes or more, and the driver takes 4194304; split the class, the heaviest are big/a (5242880 bytes)")
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/fits, file: ./}]")); err != nil {
		t.Errorf("an answer just below the limit: %v", err)
	}
}

func TestVersionCall(t *testing.T) {
	w := start(t)
	got, err := w.driver.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.GetRuntimeName() != "keymount" || got.GetRuntimeVersion() != "v0.0.0-test" || got.GetVersion() != "v1alpha1" {
		t.Errorf("got %v", got)
	}
}

// A mount is one line, and a denial one more at debug level: the pod is not told which
// rule came nearest.
func TestOneLogLinePerMount(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	_, _, _ = w.mount(t, w.volume(pod("shop", "api"), oneKey))
	_, _, _ = w.mount(t, w.volume(pod("blog", "web"), oneKey))
	var got []map[string]any
	for line := range strings.Lines(string(w.log.Bytes())) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		delete(entry, "time")
		delete(entry, "took_ms")
		delete(entry, "pod_uid")
		got = append(got, entry)
	}
	want := []map[string]any{
		{"level": "INFO", "msg": "call", "rpc": "Mount", "namespace": "shop", "pod": "api-0", "service_account": "api", "class": "app", "files": 1.0, "reads": 1.0, "first": true, "code": "OK"},
		{ //nolint:gosec // G101: the name of a secret
			"level": "DEBUG", "msg": "denied by the rules", "namespace": "blog", "pod": "web-0", "service_account": "web", "class": "app",
			"secret": `secret "shop/db" of store "default"`, "rule": "access[0]", "list": "paths",
		},
		{
			"level": "WARN", "msg": "call", "rpc": "Mount", "namespace": "blog", "pod": "web-0", "service_account": "web", "class": "app", "code": "PermissionDenied",
			"store": "default", "cause": "no_rule",
			"error": `objects[0]: not allowed: service account blog/web may not read "shop/db" of store "default"; no rule under access of that store in keymount.yaml allows it`,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// A class whose objects all want one large value costs the value once, not a
// thousand times: the answer is refused before it is built.
func TestAmplification(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/big", map[string]any{"a": strings.Repeat("a", 3<<20)})
	var objects strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&objects, "- {path: shop/big, key: a, file: f%d}\n", i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.refused(t, w.volume(pod("shop", "api"), objects.String()), codes.FailedPrecondition,
		"the files are too large: 6291460 bytes or more, and the driver takes 4194304; split the class, the heaviest are f0 (3145728 bytes), f1 (3145728 bytes)")
	runtime.ReadMemStats(&after)
	if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 100 {
		t.Errorf("the mount allocated %d MiB", allocated)
	}
}

// Whatever time the caller gives, the answer is ours and final.
func TestShortDeadlines(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	w := start(t)
	w.memory.Behave(func(context.Context, store.Caller, store.Ref) error { <-release; return nil })
	v := w.volume(pod("shop", "api"), oneKey)
	for _, limit := range []time.Duration{400 * time.Millisecond, 800 * time.Millisecond, time.Second} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err := w.driver.Mount(ctx, v, t.TempDir())
		cancel()
		checkStatus(t, err, codes.FailedPrecondition, `objects[0]: secret "shop/db" of store "default": store unavailable: no answer before the mount's deadline`)
	}
}

// Reads of one mount do not wait for each other.
func TestReadsAreParallel(t *testing.T) {
	w := start(t)
	var all sync.WaitGroup
	all.Add(8)
	w.memory.Behave(func(context.Context, store.Caller, store.Ref) error {
		all.Done()
		all.Wait() // until eight are here
		return nil
	})
	var objects strings.Builder
	for i := range 8 {
		w.memory.Set(fmt.Sprintf("shop/%d", i), map[string]any{"a": canary})
		fmt.Fprintf(&objects, "- {path: shop/%d, key: a, file: f%d}\n", i, i)
	}
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), objects.String())); err != nil {
		t.Error(err)
	}
}

// A panic anywhere in a mount, not only in a store, is that mount's error.
func TestPanicOutsideTheStore(t *testing.T) {
	broken := true
	w := start(t, func(_ *world, s *setup) {
		s.now = func() time.Time {
			if broken {
				panic("clock " + canary)
			}
			return time.Now()
		}
	})
	w.memory.Set("shop/db", map[string]any{"password": canary})
	w.refused(t, w.volume(pod("shop", "api"), oneKey), codes.Internal,
		"keymount ran into a bug of its own; its log has the stack, please report it")
	broken = false
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), oneKey)); err != nil {
		t.Errorf("the next mount fails, too: %v", err)
	}
}

func TestLongErrorsAreCut(t *testing.T) {
	w := start(t)
	w.memory.Behave(func(context.Context, store.Caller, store.Ref) error {
		return store.Invalid.Errorf("%s", strings.Repeat("€", 5000))
	})
	_, _, err := w.mount(t, w.volume(pod("shop", "api"), oneKey))
	if got := statusText(err); len(got) > 9<<10 || !strings.HasSuffix(got, "€ ... (cut)") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-20:])
	}
}

// Versions are a promise to other nodes and other releases: this one is computed
// by hand from docs/architecture.md.
func TestVersionByHand(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": "obviously-fake"})
	_, versions, err := w.mount(t, w.volume(pod("shop", "api"), oneKey))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, bytes.Repeat([]byte{7}, 32))
	for _, part := range []string{"shop", "api", "default", "db/password", "obviously-fake"} {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		mac.Write([]byte(part))
	}
	if want := base64.RawURLEncoding.EncodeToString(mac.Sum(nil)); versions["db/password"] != want {
		t.Errorf("got %s, want %s", versions["db/password"], want)
	}
}

// What a template reads is judged, read and shared like an object.
func TestTemplatesReadLikeObjects(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"user": "shop", "password": canary})
	w.memory.Set("shop/host", map[string]any{"name": "db"})
	w.memory.Set("payments/db", map[string]any{"password": canary})
	template := func(text string) string {
		return "- {path: shop/db, key: user, file: user}\n- {path: shop/db, file: dsn, template: '" + text + "'}"
	}
	files, _, err := w.mount(t, w.volume(pod("shop", "api"), template(`{{ .user }}@{{ (secret "shop/host").name }}/{{ (secret "shop/db").user }}`)))
	if err != nil || files["dsn"] != "shop@db/shop" {
		t.Errorf("got %q, %v", files["dsn"], err)
	}
	if got := w.memory.Reads(); got != 2 {
		t.Errorf("two secrets cost %d reads", got)
	}
	w.refused(t, w.volume(pod("shop", "api"), template(`{{ (secret "payments/db").password }}`)), codes.PermissionDenied,
		`objects[1]: not allowed: service account shop/api may not read "payments/db" of store "default"; no rule under access of that store in keymount.yaml allows it`)
	w.refused(t, w.volume(pod("shop", "api"), template(`{{ (secret "shop/none").password }}`)), codes.NotFound,
		`objects[1]: secret "shop/none" of store "default": not found: no secret at "shop/none"`)
	files, _, err = w.mount(t, w.volume(pod("shop", "api"), `[{path: shop/db, key: user, file: user}, {path: shop/db, file: dsn, optional: true, template: '{{ (secret "shop/none").x }}'}]`))
	if _, there := files["dsn"]; err != nil || there {
		t.Errorf("an optional template without its secret: %v, %v", files, err)
	}
	_, _, err = w.mount(t, w.volume(pod("shop", "api"), template(`{{ range .password }}{{ end }}`)))
	if text := statusText(err); status.Code(err) != codes.FailedPrecondition || strings.Contains(text, canary) {
		t.Errorf("got %v", err)
	}
}

func TestEncodingsOfAllKeys(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/keys", map[string]any{"a": "66616b65", "b": "66 61 6B 65\n"})
	files, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/keys, encoding: hex, file: keys/}]"))
	if diff := cmp.Diff(map[string]string{"keys/a": "fake", "keys/b": "fake"}, files); err != nil || diff != "" {
		t.Errorf("%v, files (-want +got):\n%s", err, diff)
	}
	w.memory.Set("shop/keys", map[string]any{"a": canary})
	_, _, err = w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/keys, encoding: hex, file: keys/}]"))
	if text := statusText(err); status.Code(err) != codes.FailedPrecondition || strings.Contains(text, canary) {
		t.Errorf("a value that is no hex: %v", err)
	}
}

func TestPinnedVersionThatIsNotThere(t *testing.T) {
	w := start(t, func(_ *world, s *setup) { s.options.Backends[0].Class.Traits.Versions = true })
	w.memory.Set("shop/db", map[string]any{"password": canary})
	w.refused(t, w.volume(pod("shop", "api"), "[{path: shop/db, key: password, version: 2, file: a}]"), codes.NotFound,
		`objects[0]: secret "shop/db" of store "default": not found: no version 2 of "shop/db"`)
}

// A Secret that the driver syncs from the files would fail; the log says so.
func TestTooLargeToSync(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/big", map[string]any{"a": strings.Repeat("a", 1<<20), "b": "b"})
	if _, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/big, file: ./}]")); err != nil {
		t.Fatal(err)
	}
	const want = `"warning":"1048577 bytes are more than a Secret synced from these files can hold (1048576); the heaviest are a (1048576 bytes), b (1 bytes)"`
	if !strings.Contains(string(w.log.Bytes()), want) {
		t.Errorf("the log says nothing of it:\n%s", w.log.Bytes())
	}
}

func TestReadVersionKey(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "version.key")
	for content, want := range map[string]string{
		"":      file + ": is empty; fill it with 32 random bytes: head -c 32 /dev/urandom",
		"short": file + ": 5 bytes are too few; it needs at least 32 random ones: head -c 32 /dev/urandom",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := provider.ReadVersionKey(file); err == nil || err.Error() != "versionKeyFile: "+want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A secret without keys is absent to whatever takes its keys.
func TestEmptySecrets(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/empty", map[string]any{})
	w.memory.Set("shop/deep", map[string]any{"tls": map[string]any{}})
	for _, object := range []string{
		"path: shop/empty, file: tls/", "path: shop/empty, file: ./", "path: shop/empty, file: tls/, format: pem", "path: shop/empty, file: tls.pem, format: pem",
	} {
		files, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{"+object+", optional: true}]"))
		if diff := cmp.Diff(map[string]string{".keymount": ""}, files); err != nil || diff != "" {
			t.Errorf("%s: %v %s", object, err, diff)
		}
	}
	files, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/empty, file: tls/, optional: true}, {path: shop/empty, file: a, format: json}]"))
	if diff := cmp.Diff(map[string]string{"a": "{}\n"}, files); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	w.refused(t, w.volume(pod("shop", "api"), "[{path: shop/empty, file: tls/}]"), codes.NotFound,
		`objects[0]: secret "shop/empty" of store "default": not found: it has no keys, and so the folder no files; fill it, or say optional: true`)
}
