package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/keymount/keymount/internal/secret"
)

func decode(text string) (v any, err error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	err = decoder.Decode(&v)
	return v, err
}

func depthOf(v any) int {
	deepest := 0
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
		return deepest + 1
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
		return deepest + 1
	}
	return 0
}

func depthOfText(text []byte) int {
	decoder, depth, deepest := json.NewDecoder(bytes.NewReader(text)), 0, 0
	for {
		switch token, err := decoder.Token(); {
		case err != nil:
			return deepest
		case token == json.Delim('{'), token == json.Delim('['):
			depth++
			deepest = max(deepest, depth)
		case token == json.Delim('}'), token == json.Delim(']'):
			depth--
		}
	}
}

// The weight of a text is at least what its tree holds, and not many times as much.
func TestWeigh(t *testing.T) {
	many := func(element string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
	}
	entries := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"key%d":"value",`, i)
		}
		return "{" + strings.TrimSuffix(b.String(), ",") + "}"
	}
	for name, text := range map[string]string{ //nolint:gosec // G101: the texts are made up
		"a text": `"` + strings.Repeat("x", 10_000) + `"`, "escapes": `"` + strings.Repeat(`\"\\\u00e9`, 100) + `"`, "numbers": many("1", 10_000), "words": many("null", 10_000),
		"tiny objects": many(`{"a":1}`, 10_000), "empty objects": many("{}", 10_000), "empty lists": many("[]", 10_000), "a map": entries(10_000),
		"no UTF-8": `"` + strings.Repeat("\xff", 10_000) + `"`, "names that are no UTF-8": `{"` + strings.Repeat("\xff", 10_000) + `":1}`,
		"nested": strings.Repeat(`{"a":[`, 50) + strings.Repeat(`]}`, 50), "a secret": `{"username": "shop", "hosts": ["a", "b"], "ports": [5432, 5433]}`,
	} {
		t.Run(name, func(t *testing.T) {
			v, err := decode(text)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := secret.NewTree(v)
			if err != nil {
				t.Fatal(err)
			}
			weight, depth := secret.Weigh([]byte(text))
			if held := tree.Held(); weight < held*95/100-64 || weight > 3*held {
				t.Errorf("weighs %d, holds %d", weight, held)
			}
			if want := depthOf(v); depth != want {
				t.Errorf("depth %d, want %d", depth, want)
			}
		})
	}
}

func TestWeighAllocatesNothing(t *testing.T) {
	text := []byte(strings.Repeat(`{"a":[`, 9_000))
	if n := testing.AllocsPerRun(10, func() { secret.Weigh(text) }); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// Whatever decodes is not lighter than what it becomes, and nothing panics.
func FuzzWeigh(f *testing.F) {
	for _, text := range []string{"", `"`, `{"a":[1,2,{"b":null}],"c":"\""}`, `[[[[`, `]]}`, `{"a"`, "\x00", `[1,2`, `{"a":{"b":{"c":{}}}}`, `"\u12"`, `-1e5 true`, "[\"\xff\xfe\"]", `{"a":[[1]],"a":2}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		weight, depth := secret.Weigh(text)
		if !json.Valid(text) {
			return
		}
		v, err := decode(string(bytes.TrimSpace(text)))
		if err != nil {
			return
		}
		// The text may be deeper than its tree, in which a name that comes twice has its last value.
		if want := depthOfText(text); depth != want {
			t.Errorf("depth %d, want %d", depth, want)
		}
		tree, err := secret.NewTree(v)
		if err != nil {
			return
		}
		// Doubled names are weighed twice, and escapes by their spelling.
		if held := tree.Held(); weight < held*9/10-64 {
			t.Errorf("weighs %d, holds %d", weight, held)
		}
	})
}
