package bundle_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/bundle"
)

const commented = `# The shop's secrets.

# rotated by hand
shop/db:
    # for the application
    username: shop
    password: "0123" # since May
    port: 05432
    # for backups
    backup: {user: b, "pass": 'c'}
# public anyway
shop/tls:
    tls.crt: |
        -----BEGIN CERTIFICATE-----
        MIIB
        -----END CERTIFICATE-----
    version: 1.10
# the end
`

func TestSet(t *testing.T) {
	tests := map[string]struct {
		path, key string
		value     any
		old, now  string // the part of commented that changes
	}{
		"a text":          {"shop/db", "username", "shop2", "username: shop\n", "username: shop2\n"},
		"with a comment":  {"shop/db", "password", "4567", `"0123" #`, `"4567" #`},
		"special":         {"shop/db", "username", "# & *", "username: shop\n", "username: '# & *'\n"},
		"like a number":   {"shop/db", "username", "1.10", "username: shop\n", "username: \"1.10\"\n"},
		"a number":        {"shop/db", "username", json.Number("1.10"), "username: shop\n", "username: 1.10\n"},
		"a huge number":   {"shop/db", "username", json.Number("1e400"), "username: shop\n", "username: !!float 1e400\n"},
		"null":            {"shop/db", "username", nil, "username: shop\n", "username: null\n"},
		"bool":            {"shop/db", "username", true, "username: shop\n", "username: true\n"},
		"like a bool":     {"shop/db", "username", "true", "username: shop\n", "username: \"true\"\n"},
		"empty":           {"shop/db", "username", "", "username: shop\n", "username: \"\"\n"},
		"bytes":           {"shop/db", "username", "\xff\x00", "username: shop\n", "username: !!binary /wA=\n"},
		"lines":           {"shop/db", "username", "a\nb\n", "username: shop\n", "username: |\n        a\n        b\n"},
		"lines, no end":   {"shop/db", "username", "a\nb", "username: shop\n", "username: |-\n        a\n        b\n"},
		"odd lines":       {"shop/db", "username", " a\n\r\nb\n\n", "username: shop\n", `username: " a\n\r\nb\n\n"` + "\n"},
		"a list":          {"shop/db", "username", []any{"a", json.Number("1"), []any{}}, "username: shop\n", "username:\n        - a\n        - 1\n        - []\n"},
		"a map":           {"shop/db", "username", map[string]any{"b": "x", "a": nil}, "username: shop\n", "username:\n        a: null\n        b: x\n"},
		"in place of map": {"shop/db", "backup", "x", `backup: {user: b, "pass": 'c'}`, "backup: x"},
		"a new key":       {"shop/tls", "tls.key", "k", "version: 1.10\n", "version: 1.10\n    tls.key: k\n"},
		"key in quotes":   {"shop/tls", "<<", "k", "version: 1.10\n", "version: 1.10\n    \"<<\": k\n"},
		"a new path":      {"shop/new", "key", "k", "# the end\n", "# the end\n\nshop/new:\n    key: k\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := bundle.Set([]byte(commented), path(t, test.path), test.key, tree(t, test.value))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Replace(commented, test.old, test.now, 1), string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func tree(tb testing.TB, v any) secret.Tree {
	tb.Helper()
	made, err := secret.NewTree(v)
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

func TestSetMistakes(t *testing.T) {
	tests := map[string]struct{ text, path, key, want string }{
		"broken document": {"shop/db: canary\n", "shop/db", "x", `line 1: "shop/db": is not a map of keys to values`},
		"inside another":  {commented, "shop/db", "backup.user", `"shop/db": "backup.user" lies inside another key; set that one whole, as JSON, or edit the document`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := bundle.Set([]byte(test.text), path(t, test.path), test.key, tree(t, "canary"))
			wantRefusal(t, got, err, test.want)
		})
	}
}

func TestSetTooLarge(t *testing.T) {
	value := tree(t, strings.Repeat("x", bundle.MaxPlaintext))
	got, err := bundle.Set([]byte(commented), path(t, "shop/db"), "password", value)
	wantRefusal(t, got, err, "holds more than 4 MiB; split it into several bundles, each a store of its own")
}

func wantRefusal(t *testing.T, text []byte, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if text != nil {
		t.Error("a text came with the error")
	}
}

func TestRemove(t *testing.T) {
	top, _, _ := strings.Cut(commented, "# public")
	const flow = "{shop/db: {a: x}, shop/tls: {b: y}}\n"
	tests := map[string]struct {
		text, path, key string // no key removes the secret
		want            string
	}{
		"a key":         {commented, "shop/db", "username", strings.Replace(commented, "    # for the application\n    username: shop\n", "", 1)},
		"its last line": {commented, "shop/db", "backup", strings.Replace(commented, "    # for backups\n    backup: {user: b, \"pass\": 'c'}\n", "", 1)},
		"a block":       {"a: {x: y}\nb:\n  k: |\n    one\n  l: two\n", "b", "k", "a: {x: y}\nb:\n  l: two\n"},
		"the last key":  {flow, "shop/db", "a", "{shop/tls: {b: y}}\n"},
		"a secret":      {commented, "shop/tls", "", top + "# the end\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := removeAt(t, test.text, test.path, test.key)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func removeAt(t *testing.T, text, at, key string) ([]byte, error) {
	t.Helper()
	if key == "" {
		return bundle.RemoveSecret([]byte(text), path(t, at))
	}
	return bundle.RemoveKey([]byte(text), path(t, at), key)
}

func TestRemoveMistakes(t *testing.T) {
	const last = "shop/db: {a: canary}\n"
	const lastRefused = `"shop/db" is the last secret, and without any it would be no bundle; remove the file instead`
	tests := map[string]struct{ text, path, key, want string }{
		"broken document":      {"shop/db: canary\n", "shop/db", "", `line 1: "shop/db": is not a map of keys to values`},
		"broken, a key":        {"shop/db: canary\n", "shop/db", "a", `line 1: "shop/db": is not a map of keys to values`},
		"no such secret":       {commented, "shop/bd", "", `has nothing at "shop/bd"; did you mean "shop/db"?`},
		"no such secret's key": {commented, "blog", "a", `has nothing at "blog"`},
		"no such key":          {commented, "shop/db", "pasword", `"shop/db" has no key "pasword"; did you mean "password"?`},
		"inside another":       {commented, "shop/db", "backup.user", `"shop/db": "backup.user" lies inside another key; set that one whole, as JSON, or edit the document`},
		"the last secret":      {last, "shop/db", "", lastRefused},
		"its last key":         {last, "shop/db", "a", lastRefused},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := removeAt(t, test.text, test.path, test.key)
			wantRefusal(t, got, err, test.want)
		})
	}
}

func TestDiff(t *testing.T) {
	before := parse(t, "gone: {b: 1, a: 2}\nhollow: {}\nsame: {a: [1, {b: c}]}\nshop/db: {user: x, old: y, port: 1.10, text: '1'}\n")
	after := parse(t, "shop/db: {user: canary, port: 1.1, new: z, text: 1}\nsame: {a: [1, {b: c}]}\nblank: {}\n")
	want := []bundle.Change{
		{Path: "blank", What: bundle.Added},
		{Path: "gone", Key: "a", What: bundle.Removed},
		{Path: "gone", Key: "b", What: bundle.Removed},
		{Path: "hollow", What: bundle.Removed},
		{Path: "shop/db", Key: "new", What: bundle.Added},
		{Path: "shop/db", Key: "old", What: bundle.Removed},
		{Path: "shop/db", Key: "port", What: bundle.Changed},
		{Path: "shop/db", Key: "text", What: bundle.Changed},
		{Path: "shop/db", Key: "user", What: bundle.Changed},
	}
	if diff := cmp.Diff(want, bundle.Diff(before, after)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := bundle.Diff(before, before); got != nil {
		t.Errorf("a document differs from itself: %v", got)
	}
}

func TestParseValue(t *testing.T) {
	tests := map[string]any{
		`"a\u00fc\n"`: "aü\n", "1.10": json.Number("1.10"), "1e400": json.Number("1e400"), "true": true, "null\n": nil,
		"[]": []any{}, "{}": map[string]any{}, `{"a":[1,{"b":"c"}],"":""}`: map[string]any{"a": []any{json.Number("1"), map[string]any{"b": "c"}}, "": ""},
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			got, err := bundle.ParseValue([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Reveal()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseValueMistakes(t *testing.T) {
	const notJSON = "is not JSON; put quotes around a text, or leave out --json"
	tests := map[string]struct{ text, want string }{
		"empty":       {"", notJSON},
		"text":        {"canary", notJSON},
		"two values":  {"1 2", notJSON},
		"open":        {`{"a": "canary"`, notJSON},
		"bytes":       {"\"\xff\"", notJSON},
		"deep":        {strings.Repeat("[", 1<<20), notJSON},
		"half":        {`["canary \ud83d"]`, `holds half of a character, such as \ud83d without \ude00; write both halves, or the character itself`},
		"a key twice": {`[{"canary": 1, "canary": 2}]`, "has a key twice in one map"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := bundle.ParseValue([]byte(test.text))
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if got.Reveal() != nil {
				t.Error("a value came with the error")
			}
		})
	}
}

// FuzzSet: after a set the key has its value and everything else the one it had.
// A removal of the key then leaves everything else as well.
func FuzzSet(f *testing.F) {
	for _, value := range []string{"x", "a: b\n# c\n", " \t\r\n", "\xff", `"q"`, "<<", "| \n", "\u0085\u2028\ufeff"} {
		f.Add([]byte(commented), "shop/db", "username", value)
		f.Add([]byte("{a: {b: c}}"), "a/b", value, value)
	}
	f.Add([]byte("a:\n  b: |+\n    x\n\n  c: >-\n    y\n   # z\n"), "a", "d", "e")
	f.Add([]byte("{\"a/b\": {\"c\": \"\\/\u0085\x7f\", \"n\": [1e400, -0]}}"), "a/b", "d", "\u0085")
	f.Fuzz(func(t *testing.T, text []byte, at, key, value string) {
		place, err := store.ParsePath(at)
		before, parseErr := bundle.Parse(text)
		if err != nil || parseErr != nil || !utf8.ValidString(key) {
			t.Skip()
		}
		now, err := bundle.Set(text, place, key, tree(t, value))
		if err != nil {
			t.Skip() // refused: nothing is written
		}
		after := parse(t, string(now))
		if got := reveal(t, after, at).(map[string]any)[key]; got != value {
			t.Errorf("set to %q and read %q", value, got)
		}
		wantOthers(t, before, after, at, key)
		now, err = bundle.RemoveKey(now, place, key)
		if err != nil {
			t.Skip()
		}
		wantOthers(t, before, parse(t, string(now)), at, key)
	})
}

// wantOthers compares everything but one key.
func wantOthers(t *testing.T, before, after bundle.Document, at, key string) {
	t.Helper()
	without := func(d bundle.Document) map[string]any {
		others := make(map[string]any)
		for _, p := range d.Paths() {
			values := maps.Clone(reveal(t, d, p).(map[string]any))
			if p == at {
				delete(values, key)
			}
			if p != at || len(values) > 0 {
				others[p] = values
			}
		}
		return others
	}
	if diff := cmp.Diff(without(before), without(after)); diff != "" {
		t.Errorf("other keys (-before +after):\n%s", diff)
	}
}

func parse(tb testing.TB, text string) bundle.Document {
	tb.Helper()
	document, err := bundle.Parse([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return document
}
