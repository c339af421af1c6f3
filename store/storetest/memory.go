// Package storetest has the tests of a store: a suite for each part of the contract, and
// [Memory], a fake that passes the suite of stores and fails, hangs or panics on demand.
//
// A new kind of store passes [Kind] and [Read], and for further abilities [Resolver],
// [Leaser] and [Login]. Each suite gets a function to open a subject, anew for each test;
// [Faults] make a subject fail. Where the real server cannot run in a test, a fake of it
// stands behind the subject.
package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// Memory is a store in memory, for tests. It may be changed while it is read.
type Memory struct {
	mu      sync.Mutex
	secrets map[string][]secret.Tree // by path, oldest version first
	behave  func(context.Context, store.Caller, store.Ref) error
	reads   int
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{secrets: make(map[string][]secret.Tree)} }

// Set puts a copy of data at path as its next version; the first is 1. It panics on data
// that no store could hold: the test is wrong.
func (m *Memory) Set(path string, data map[string]any) {
	p, err := store.ParsePath(path)
	if err != nil {
		panic(fmt.Sprintf("storetest: path %v", err)) //nolint:forbidigo // the test is wrong
	}
	tree, err := secret.NewTree(clone(data))
	if err != nil {
		panic(fmt.Sprintf("storetest: %q: %v", path, err)) //nolint:forbidigo // the test is wrong
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.secrets[p.String()] = append(m.secrets[p.String()], tree)
}

// Remove takes the secret at path away; none there is no mistake.
func (m *Memory) Remove(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.secrets, path)
}

// Behave has f called at the start of every later read, without a lock, possibly
// by several reads at once. An error of f is the answer of the read. With nil the
// store behaves well again.
func (m *Memory) Behave(f func(ctx context.Context, caller store.Caller, ref store.Ref) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.behave = f
}

// Fail makes later reads failures of this reason.
func (m *Memory) Fail(reason store.Reason) {
	m.Behave(func(context.Context, store.Caller, store.Ref) error { return reason.Errorf("as the test wants it") })
}

// Hang makes later reads wait until their contexts end. The channel is closed when the
// first does.
func (m *Memory) Hang() (waiting <-chan struct{}) {
	reached := make(chan struct{})
	reach := sync.OnceFunc(func() { close(reached) })
	m.Behave(func(ctx context.Context, _ store.Caller, _ store.Ref) error {
		reach()
		<-ctx.Done()
		return nil // the read sees that its context has ended
	})
	return reached
}

// Faults are those of m, which can be all.
func (m *Memory) Faults() Faults { return Faults{Fail: m.Fail, Hang: m.Hang} }

// Reads is how often Read was called, failures included.
func (m *Memory) Reads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// Read implements [store.Store]. Every caller may read everything.
func (m *Memory) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	if behave := m.begin(); behave != nil {
		if err := behave(ctx, caller, ref); err != nil {
			return store.Value{}, err
		}
	}
	if ctx.Err() != nil {
		return store.Value{}, &store.Error{Reason: store.Unavailable, Said: fmt.Sprintf("read %q", ref.Path), Cause: context.Cause(ctx)}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	versions := m.secrets[ref.Path.String()]
	if len(versions) == 0 {
		return store.Value{}, store.NotFound.Errorf("no secret at %q", ref.Path)
	}
	if ref.Version == "" {
		return store.Value{Data: versions[len(versions)-1]}, nil
	}
	n, err := strconv.Atoi(ref.Version)
	if err != nil {
		return store.Value{}, store.Invalid.Errorf("%q is no version", ref.Version)
	}
	if n < 1 || n > len(versions) {
		return store.Value{}, store.NotFound.Errorf("no version %d of %q", n, ref.Path)
	}
	return store.Value{Data: versions[n-1]}, nil
}

func (m *Memory) begin() func(context.Context, store.Caller, store.Ref) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return m.behave
}

// clone copies maps and lists, which the test may go on changing.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := maps.Clone(v)
		for name, e := range v {
			out[name] = clone(e)
		}
		return out
	case []any:
		out := slices.Clone(v)
		for i, e := range v {
			out[i] = clone(e)
		}
		return out
	default:
		return v
	}
}
