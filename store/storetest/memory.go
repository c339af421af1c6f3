// Package storetest has what tests of stores need: [Run], the conformance suite
// that every store passes, and [Memory], a fake that passes it too and can be
// told to fail, hang or panic.
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
	behave  func(context.Context, store.Session, store.Ref) error
	reads   int
}

// NewMemory returns a store that holds nothing.
func NewMemory() *Memory { return &Memory{secrets: make(map[string][]secret.Tree)} }

// Set puts a copy of data at path as its next version; the first is 1. It panics when no
// store could hold that: the test is wrong.
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
func (m *Memory) Behave(f func(ctx context.Context, session store.Session, ref store.Ref) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.behave = f
}

// Reads is how often Read was called, failures included.
func (m *Memory) Reads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// Read implements [store.Store]. Every session may read everything.
func (m *Memory) Read(ctx context.Context, session store.Session, ref store.Ref) (store.Value, error) {
	if behave := m.begin(); behave != nil {
		if err := behave(ctx, session, ref); err != nil {
			return store.Value{}, err
		}
	}
	if ctx.Err() != nil {
		return store.Value{}, fmt.Errorf("%w: read %q: %w", store.ErrUnavailable, ref.Path, context.Cause(ctx))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	versions := m.secrets[ref.Path.String()]
	if len(versions) == 0 {
		return store.Value{}, fmt.Errorf("%w: no secret at %q", store.ErrNotFound, ref.Path)
	}
	if ref.Version == "" {
		return store.Value{Data: versions[len(versions)-1]}, nil
	}
	n, err := strconv.Atoi(ref.Version)
	if err != nil {
		return store.Value{}, fmt.Errorf("%w: %q is no version", store.ErrInvalid, ref.Version)
	}
	if n < 1 || n > len(versions) {
		return store.Value{}, fmt.Errorf("%w: no version %d of %q", store.ErrNotFound, n, ref.Path)
	}
	return store.Value{Data: versions[n-1]}, nil
}

func (m *Memory) begin() func(context.Context, store.Session, store.Ref) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return m.behave
}

// clone copies maps and lists, so that the test may go on changing its own.
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
