package secret_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/keymount/keymount/internal/secret"
)

// chain is a secret that is nested so deep.
func chain(depth int) any {
	var v any = "bottom"
	for range depth {
		v = map[string]any{"a": v}
	}
	return v
}

// A tree is as deep as every walk over it may be, and no deeper; what is refused is
// refused at once, however deep it goes on.
func TestDepth(t *testing.T) {
	if _, err := secret.NewTree(chain(secret.MaxDepth)); err != nil {
		t.Error(err)
	}
	for _, depth := range []int{secret.MaxDepth + 1, 9_980} {
		want := `"` + strings.Repeat("a.", 40) + `"...: nested more than 100 deep`
		if _, err := secret.NewTree(chain(depth)); err == nil || err.Error() != want {
			t.Errorf("%d deep: %v, want %s", depth, err, want)
		}
	}
}

// To check a tree allocates nothing for its parts, however many there are and wherever
// they are: what a walk costs grows with the parts alone.
func TestWalkAllocatesNothing(t *testing.T) {
	for name, v := range map[string]any{
		"deep": chain(99), "wide": wide(10_000), "deep and wide": map[string]any{strings.Repeat("k", 1000): map[string]any{"a": wide(10_000)}},
	} {
		// The few are those of the tree itself and of texts that are looked at.
		if n := testing.AllocsPerRun(10, func() { _, _ = secret.NewTree(v) }); n > 8 {
			t.Errorf("%s: %.0f allocations", name, n)
		}
	}
}

func wide(n int) any {
	list := make([]any, n)
	for i := range list {
		list[i] = map[string]any{"a": true}
	}
	return list
}

// A secret whose names were made for it cannot have a key looked for for long: each dot
// of the key may be a step or part of a name.
func TestKeyWithManyWays(t *testing.T) {
	key := strings.TrimSuffix(strings.Repeat("a.", 512), ".")
	var hostile func(depth, left int) map[string]any
	hostile = func(depth, left int) map[string]any {
		m := map[string]any{}
		for n := 1; n <= 6 && left > 1; n++ {
			if n < depth {
				m[strings.TrimSuffix(strings.Repeat("a.", n), ".")] = hostile(depth-n, left/6)
			}
		}
		return m
	}
	tree, err := secret.NewTree(hostile(512, 300_000))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Get(key); !errors.Is(err, secret.ErrManyWays) {
		t.Errorf("got %v", err)
	}
	tree, err = secret.NewTree(map[string]any{key: "found", "a": map[string]any{"b.c.d": json.Number("7")}})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{key: "found", "a.b.c.d": "7"} {
		found, err := tree.Get(key)
		if got := fmt.Sprint(found.Reveal()); err != nil || got != want {
			t.Errorf("got %s, %v", got, err)
		}
	}
}

// BenchmarkNewTree is what a large secret of small parts costs to check.
func BenchmarkNewTree(b *testing.B) {
	v := wide(100_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := secret.NewTree(v); err != nil {
			b.Fatal(err)
		}
	}
}
