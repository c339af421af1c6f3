package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store"
)

// canary stands in a secret and must stand in no error.
const canary = "canary-5e0f2b"

// soon is how long a read may take after its context ended. It is generous: only
// a store that hangs fails.
const soon = 10 * time.Second

// conformance are the secrets the suite reads, one for each kind of value.
func conformance() map[string]map[string]any {
	return map[string]map[string]any{
		"secret/suite/text":      {"first": "correct horse", "second": "shop"},
		"secret/suite/number":    {"ratio": json.Number("1.10"), "port": json.Number("5432"), "big": json.Number("12345678901234567890"), "tiny": json.Number("-1e-7")},
		"secret/suite/bool":      {"on": true, "off": false, "text": "true"},
		"secret/suite/null":      {"nothing": nil, "text": "null"},
		"secret/suite/map":       {"db": map[string]any{"users": map[string]any{"owner": "shop"}, "empty": map[string]any{}}},
		"secret/suite/list":      {"hosts": []any{"a", json.Number("2"), map[string]any{"name": "c"}, []any{}}},
		"secret/suite/unicode":   {"grüße": "пароль 密码 🔑"},
		"secret/suite/empty":     {"text": ""},
		"secret/suite/multiline": {"tls.crt": "-----BEGIN-----\n  indented\n\ttab\n\n-----END-----\n"},
		"secret/suite/dots":      {"tls.crt": "flat", "tls": map[string]any{"crt": "deep"}, ".env": "A=1"},
		"secret/suite/symbols":   {"symbols": "#'\"{}[]&*!|>%@`\\ $x: y -- ${z}", "0123": "0123", "yes": "no"},
		"secret/sibling/canary":  {"value": canary},
	}
}

// Run checks that a store keeps the contract of [store.Store]:
//
//   - a value is what was stored, whatever its kind, and a number is spelled as it was;
//   - two reads agree, in a row and at once, and reading one secret leaves the others alone;
//   - what is not there is [store.ErrNotFound], also above and below a path that is;
//   - a read whose context has ended answers soon, with the value or an error;
//   - every error wraps exactly one kind, and no error has a part of a secret.
//
// Open makes a store that holds the secrets, by path, and a session that may read
// them all. It is called for each test of the suite, and cleans up by t.Cleanup.
// All paths begin with "secret/", so a store with mounts needs that one alone.
func Run(t *testing.T, open func(t *testing.T, secrets map[string]map[string]any) (store.Store, store.Session)) {
	t.Helper()
	tests := map[string]func(*testing.T, store.Store, store.Session){
		"values":     testValues,
		"again":      testAgain,
		"not found":  testNotFound,
		"concurrent": testConcurrent,
		"ended":      testEnded,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			opened, session := open(t, conformance())
			test(t, opened, session)
		})
	}
}

func testValues(t *testing.T, s store.Store, session store.Session) {
	t.Helper()
	for path, want := range conformance() {
		t.Run(path, func(t *testing.T) {
			value, err := s.Read(t.Context(), session, ref(t, path))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(any(want), value.Data.Reveal()); diff != "" {
				t.Errorf("value (-want +got):\n%s", diff)
			}
		})
	}
}

// testAgain keeps the first values while it reads all the others.
func testAgain(t *testing.T, s store.Store, session store.Session) {
	t.Helper()
	read := func() map[string]any {
		values := make(map[string]any)
		for path := range conformance() {
			value, err := s.Read(t.Context(), session, ref(t, path))
			if err != nil {
				t.Fatal(err)
			}
			values[path] = value.Data.Reveal()
		}
		return values
	}
	first, second := read(), read()
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("second read (-first +second):\n%s", diff)
	}
	for path, want := range conformance() {
		if diff := cmp.Diff(any(want), first[path]); diff != "" {
			t.Errorf("%s changed after it was read (-want +got):\n%s", path, diff)
		}
	}
}

func testNotFound(t *testing.T, s store.Store, session store.Session) {
	t.Helper()
	tests := map[string]string{
		"unknown":           "secret/unknown",
		"sibling":           "secret/sibling/other",
		"prefix":            "secret/sibling",
		"part of a segment": "secret/sibling/can",
		"below a secret":    "secret/sibling/canary/value",
		"other case":        "secret/sibling/Canary",
	}
	for name, path := range tests {
		t.Run(name, func(t *testing.T) {
			value, err := s.Read(t.Context(), session, ref(t, path))
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("error = %v; want one that wraps ErrNotFound", err)
			}
			if value.Data.Reveal() != nil {
				t.Error("a value came with the error")
			}
			checkError(t, err)
		})
	}
}

func testConcurrent(t *testing.T, s store.Store, session store.Session) {
	t.Helper()
	var readers sync.WaitGroup
	defer readers.Wait()
	for range 8 {
		readers.Go(func() {
			for path, want := range conformance() {
				value, err := s.Read(t.Context(), session, ref(t, path))
				if err != nil {
					t.Error(err)
					return
				}
				if diff := cmp.Diff(any(want), value.Data.Reveal()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", path, diff)
				}
			}
		})
	}
}

func testEnded(t *testing.T, s store.Store, session store.Session) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	at := ref(t, "secret/sibling/canary")
	done := make(chan error, 1)
	go func() {
		_, err := s.Read(ctx, session, at)
		done <- err
	}()
	select {
	case err := <-done:
		checkError(t, err)
	case <-time.After(soon):
		t.Fatalf("no answer %v after the context ended", soon)
	}
}

// checkError checks what holds for every error of a store; nil is none.
func checkError(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	kinds := 0
	for _, kind := range []error{store.ErrNotFound, store.ErrDenied, store.ErrUnavailable, store.ErrInvalid} {
		if errors.Is(err, kind) {
			kinds++
		}
	}
	if kinds != 1 {
		t.Errorf("error %q wraps %d kinds; want one", err, kinds)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
		t.Error("the error has a part of a secret")
	}
}

// ref may run in any goroutine: the paths of the suite are good.
func ref(t *testing.T, path string) store.Ref {
	t.Helper()
	p, err := store.ParsePath(path)
	if err != nil {
		t.Errorf("path %v", err)
	}
	return store.Ref{Path: p}
}
