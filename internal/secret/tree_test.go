package secret_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/internal/secret"
)

func example() map[string]any {
	return map[string]any{
		"username":  "shop",
		"tls.crt":   "flat",
		"tls":       map[string]any{"crt": "deep", "key": "k", "a.b": "dotted"},
		"a.b":       map[string]any{"c": "two and one"},
		"a":         map[string]any{"b.c": "one and two", "b": map[string]any{"d": "three"}},
		"users":     []any{map[string]any{"name": "first"}, map[string]any{"name": "second", "0": "digit"}},
		"matrix":    []any{[]any{"00", "01"}, []any{"10", "11"}},
		"byNumber":  map[string]any{"0": "zero", "01": "one", "-1": "minus"},
		"":          "no name",
		".env":      "dot first",
		"trailing.": "dot last",
		"nothing":   nil,
	}
}

func TestTreeGet(t *testing.T) {
	tests := map[string]any{
		"username":     "shop",
		"tls.crt":      "flat",
		"tls.key":      "k",
		"tls.a.b":      "dotted",
		"a.b.c":        "two and one", // "a.b" is longer than "a"
		"a.b.d":        "three",       // "a.b" leads nowhere, so "a" does
		"users.0.name": "first",
		"users.1.name": "second",
		"users.1.0":    "digit",
		"matrix.1.0":   "10",
		"byNumber.0":   "zero",
		"byNumber.01":  "one",
		"byNumber.-1":  "minus",
		"":             "no name",
		".env":         "dot first",
		"trailing.":    "dot last",
		"nothing":      nil,
		"matrix.0":     []any{"00", "01"},
	}
	root := tree(t, example())
	for key, want := range tests {
		t.Run(key, func(t *testing.T) {
			got, err := root.Get(key)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Reveal()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTreeGetNothing(t *testing.T) {
	root := tree(t, example())
	for _, key := range []string{
		"user", "Username", "username.x", "username.", "nothing.x", ".", "..", "tls.", "tls..key", ".tls",
		"users.2", "users.-1", "users.00", "users.01", "users.+0", "users.1e0", "users. 0", "users.", "users.0.", "users.0.nam",
		"users.18446744073709551616", "matrix.0.00", "matrix.1.0.0",
	} {
		t.Run(key, func(t *testing.T) {
			if got, err := root.Get(key); !errors.Is(err, secret.ErrNoKey) {
				t.Errorf("got %v, %v", got.Reveal(), err)
			}
		})
	}
}

func TestTreeGetOfOthers(t *testing.T) {
	for name, v := range map[string]any{"text": "x", "null": nil, "number": json.Number("1"), "bool": true, "list": []any{}} {
		t.Run(name, func(t *testing.T) {
			for _, key := range []string{"", "0", "x"} {
				if got, err := tree(t, v).Get(key); !errors.Is(err, secret.ErrNoKey) {
					t.Errorf("%q: got %v, %v", key, got.Reveal(), err)
				}
			}
		})
	}
}

func TestTreeText(t *testing.T) {
	tests := map[string]struct {
		value any
		want  string
	}{
		"text":      {"two\nlines\n", "two\nlines\n"},
		"empty":     {"", ""},
		"bytes":     {"\xff\x00", "\xff\x00"},
		"number":    {json.Number("1.10"), "1.10"},
		"bool":      {true, "true"},
		"null":      {nil, "null"},
		"list":      {[]any{"a", json.Number("1"), nil}, `["a",1,null]`},
		"map":       {map[string]any{"b": "<&>", "a": map[string]any{}}, `{"a":{},"b":"<&>"}`},
		"empty map": {map[string]any{}, "{}"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := tree(t, test.value).Text()
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Reveal()) != test.want {
				t.Errorf("got %q, want %q", got.Reveal(), test.want)
			}
		})
	}
}

func TestTreeKeysAndChild(t *testing.T) {
	root := tree(t, map[string]any{"b": nil, "a.c": "dotted", "a": map[string]any{"c": "deep"}})
	if diff := cmp.Diff([]string{"a", "a.c", "b"}, root.Keys()); diff != "" {
		t.Errorf("Keys() (-want +got):\n%s", diff)
	}
	for name, want := range map[string]any{"b": nil, "a.c": "dotted", "a": map[string]any{"c": "deep"}} {
		child, ok := root.Child(name)
		if !ok {
			t.Errorf("no child %q", name)
		}
		if diff := cmp.Diff(want, child.Reveal()); diff != "" {
			t.Errorf("Child(%q) (-want +got):\n%s", name, diff)
		}
	}
	if _, ok := root.Child("a.x"); ok {
		t.Error("a child that is not there")
	}
	list := tree(t, []any{"x"})
	if _, ok := list.Child("0"); ok || list.Keys() != nil {
		t.Error("a list has no names")
	}
	var zero secret.Tree
	if _, ok := zero.Child(""); ok || zero.Keys() != nil || zero.Reveal() != nil {
		t.Error("the zero Tree holds something")
	}
}

func TestNewTreeMistakes(t *testing.T) {
	tests := map[string]struct {
		value any
		want  string
	}{
		"int":            {1, "the secret: a secret cannot hold a value of Go type int"},
		"bytes":          {map[string]any{"a": []byte(canary)}, `"a": a secret cannot hold a value of Go type []uint8`},
		"deep float":     {map[string]any{"a": []any{nil, map[string]any{"b": 1.5}}}, `"a.1.b": a secret cannot hold a value of Go type float64`},
		"typed map":      {map[string]string{"a": canary}, "the secret: a secret cannot hold a value of Go type map[string]string"},
		"word as number": {[]any{json.Number(canary)}, `"0": not a JSON number`},
		"text as number": {json.Number(`"` + canary + `"`), "the secret: not a JSON number"},
		"empty number":   {json.Number(""), "the secret: not a JSON number"},
		"hexadecimal":    {json.Number("0x1f"), "the secret: not a JSON number"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			made, err := secret.NewTree(test.value)
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if made.Reveal() != nil {
				t.Error("a tree came with the error")
			}
		})
	}
}

// A made tree holds what its maker says, and what is in it what was made.
func TestMadeTree(t *testing.T) {
	made := 0
	lazy := secret.NewMadeTree(1000, func() any { made++; return map[string]any{"a": "b"} })
	if held := lazy.Held(); made != 0 || held < 1000 || held > 1100 {
		t.Errorf("it holds %d bytes and was made %d times", held, made)
	}
	part, err := lazy.Get("a")
	if err != nil || part.Reveal() != "b" || made != 1 || part.Held() > 100 {
		t.Errorf("got %v of %d bytes, %v, made %d times", part.Reveal(), part.Held(), err, made)
	}
	if held := (secret.Tree{}).Held() + (secret.Bytes{}).Held(); held != 0 {
		t.Errorf("nothing holds %d bytes", held)
	}
}
