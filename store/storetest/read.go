package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store"
)

// Subject is a store under test.
type Subject struct {
	Store  store.Store
	Caller store.Caller // may read everything
	Faults
}

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
		"secret/sibling/canary":  {"value": Canary},
	}
}

// Read checks the contract of [store.Store]:
//
//   - a value is equal to the stored one, of any kind, and a number keeps its
//     spelling;
//   - two reads agree, in a row and at once, and reading one secret leaves the others
//     alone;
//   - a missing secret is [store.NotFound], also above and below the path of another;
//   - a missing version is NotFound, or Invalid in a store without versions;
//   - a read with an ended context answers soon, with the value or as Unavailable;
//   - the store gives each reason that it claims, in an error as [store.Error] says,
//     with no part of a secret and no value beside it.
//
// Open makes a store with these secrets, by path. It is called for each test of the suite,
// and cleans up by t.Cleanup. All paths begin with "secret/", so a store with mounts needs
// one alone.
func Read(t *testing.T, open func(t *testing.T, secrets map[string]map[string]any) Subject) {
	t.Helper()
	tests := map[string]func(*testing.T, store.Store, store.Caller){
		"values":     testValues,
		"again":      testAgain,
		"not found":  testNotFound,
		"concurrent": testConcurrent,
		"version":    testVersion,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := open(t, conformance())
			test(t, s.Store, s.Caller)
		})
	}
	faulty(t, func(t *testing.T) (Faults, []request) {
		t.Helper()
		s := open(t, conformance())
		return s.Faults, []request{{"Read", func(ctx context.Context) (any, error) {
			return s.Store.Read(ctx, s.Caller, ref(t, "secret/sibling/canary"))
		}}}
	})
}

func testValues(t *testing.T, s store.Store, caller store.Caller) {
	t.Helper()
	for path, want := range conformance() {
		t.Run(path, func(t *testing.T) {
			value, err := s.Read(t.Context(), caller, ref(t, path))
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
func testAgain(t *testing.T, s store.Store, caller store.Caller) {
	t.Helper()
	read := func() map[string]any {
		values := make(map[string]any)
		for path := range conformance() {
			value, err := s.Read(t.Context(), caller, ref(t, path))
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

func testNotFound(t *testing.T, s store.Store, caller store.Caller) {
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
			value, err := s.Read(t.Context(), caller, ref(t, path))
			if !errors.Is(err, store.NotFound) {
				t.Errorf("error = %v; want one that wraps NotFound", err)
			}
			checkNone(t, value, err)
			checkError(t, err)
		})
	}
}

// testVersion asks for a missing version, in stores with and without versions.
func testVersion(t *testing.T, s store.Store, caller store.Caller) {
	t.Helper()
	none := ref(t, "secret/sibling/canary")
	none.Version = "999999"
	value, err := s.Read(t.Context(), caller, none)
	if !errors.Is(err, store.NotFound) && !errors.Is(err, store.Invalid) {
		t.Errorf("error = %v; want %q or %q", err, store.NotFound, store.Invalid)
	}
	checkNone(t, value, err)
	checkError(t, err)
}

func testConcurrent(t *testing.T, s store.Store, caller store.Caller) {
	t.Helper()
	var readers sync.WaitGroup
	defer readers.Wait()
	for range 8 {
		readers.Go(func() {
			for path, want := range conformance() {
				value, err := s.Read(t.Context(), caller, ref(t, path))
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

// ref may run in any goroutine: the paths of the suite are good.
func ref(t *testing.T, path string) store.Ref {
	t.Helper()
	p, err := store.ParsePath(path)
	if err != nil {
		t.Errorf("path %v", err)
	}
	return store.Ref{Path: p}
}
