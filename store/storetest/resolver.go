package storetest

import (
	"context"
	"slices"
	"testing"

	"github.com/keymount/keymount/store"
)

// ResolverSubject is a [store.Resolver] under test.
type ResolverSubject struct {
	Resolver store.Resolver
	Caller   store.Caller
	// Spellings are paths of one secret; the first is the one for access rules.
	Spellings []string
	// Literals are paths of no ordinary secrets.
	Literals []string
	// Reads is how many secrets the store was asked for so far.
	Reads func() int
	Faults
}

// Resolver checks the contract of [store.Resolver]:
//
//   - all spellings of a secret resolve to one, and this one to itself;
//   - a literal is a segment of the path;
//   - it reads no secret;
//   - a [store.PathRecaller] says the same once it has resolved a path;
//   - it fails like Read.
func Resolver(t *testing.T, open func(t *testing.T) ResolverSubject) {
	t.Helper()
	t.Run("spellings", func(t *testing.T) { open(t).testSpellings(t) })
	t.Run("literals", func(t *testing.T) { open(t).testLiterals(t) })
	faulty(t, func(t *testing.T) (Faults, []request) {
		t.Helper()
		s := open(t)
		return s.Faults, []request{{"Resolve", func(ctx context.Context) (any, error) {
			return s.Resolver.Resolve(ctx, s.Caller, ref(t, s.Spellings[0]))
		}}}
	})
}

func (s ResolverSubject) testSpellings(t *testing.T) {
	t.Helper()
	read := s.Reads()
	for _, spelling := range s.Spellings {
		got := s.resolve(t, spelling)
		if got.Path.String() != s.Spellings[0] || got.Literal != "" {
			t.Errorf("%q resolves to %q with the literal %q; want %q and none", spelling, got.Path, got.Literal, s.Spellings[0])
		}
	}
	if more := s.Reads() - read; more > 0 {
		t.Errorf("%d secrets were read", more)
	}
}

func (s ResolverSubject) testLiterals(t *testing.T) {
	t.Helper()
	for _, path := range s.Literals {
		if got := s.resolve(t, path); !slices.Contains(got.Path.Segments(), got.Literal) {
			t.Errorf("%q resolves to %q, which has no segment %q", path, got.Path, got.Literal)
		}
	}
}

// resolve does so twice: the result is one spelling.
func (s ResolverSubject) resolve(t *testing.T, path string) store.Resolved {
	t.Helper()
	got, err := s.Resolver.Resolve(t.Context(), s.Caller, ref(t, path))
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Resolver.Resolve(t.Context(), s.Caller, store.Ref{Path: got.Path})
	if err != nil || again != got {
		t.Errorf("%q resolves to %+v, and that to %+v, %v", path, got, again, err)
	}
	if paths, ok := s.Resolver.(store.PathRecaller); ok {
		if recalled, known := paths.RecallPath(store.Caller{Identity: s.Caller.Identity, Role: s.Caller.Role}, ref(t, path)); !known || recalled != got {
			t.Errorf("%q resolves to %+v, and is recalled as %+v, %t", path, got, recalled, known)
		}
	}
	return got
}
