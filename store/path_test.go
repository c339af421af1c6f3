package store_test

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store"
)

func TestParsePath(t *testing.T) {
	tests := map[string][]string{
		"db":                   {"db"},
		"secret/shop/db":       {"secret", "shop", "db"},
		"secret/shop.eu/db..1": {"secret", "shop.eu", "db..1"},
		"secret/.../...x":      {"secret", "...", "...x"},
		"secret/a b/c":         {"secret", "a b", "c"},
		"secret/Grüße/密码":      {"secret", "Grüße", "密码"},
		"secret/a:b@c+d=e&f*g": {"secret", "a:b@c+d=e&f*g"},
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			path, err := store.ParsePath(text)
			if err != nil {
				t.Fatal(err)
			}
			if path.String() != text {
				t.Errorf("String() = %q", path)
			}
			if diff := cmp.Diff(want, path.Segments()); diff != "" {
				t.Errorf("Segments() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParsePathMistakes(t *testing.T) {
	const slash = "; write it without a slash at either end and without doubled slashes"
	const character = "; a path has no %, ?, #, backslash or invisible characters"
	tests := map[string]string{
		"":               "is empty",
		"/":              `"/" has an empty segment` + slash,
		"/shop/db":       `"/shop/db" has an empty segment` + slash,
		"shop/db/":       `"shop/db/" has an empty segment` + slash,
		"shop//db":       `"shop//db" has an empty segment` + slash,
		".":              `"." has the segment "."; write the path out`,
		"shop/./db":      `"shop/./db" has the segment "."; write the path out`,
		"shop/../db":     `"shop/../db" has the segment ".."; write the path out`,
		"shop/%2e%2e/db": `"shop/%2e%2e/db" holds '%'` + character,
		"shop/db?x":      `"shop/db?x" holds '?'` + character,
		"shop/db#x":      `"shop/db#x" holds '#'` + character,
		`shop\db`:        `"shop\\db" holds '\\'` + character,
		"shop/db\n":      `"shop/db\n" holds '\n'` + character,
		"shop/\x00":      `"shop/\x00" holds '\x00'` + character,
		"shop/\u202edb":  `"shop/\u202edb" holds '\u202e'` + character,
		"shop/\u00a0db":  `"shop/\u00a0db" holds '\u00a0'` + character,
		"shop/\xff":      "is not UTF-8",
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			path, err := store.ParsePath(text)
			if err == nil {
				t.Fatalf("accepted as %q", path)
			}
			if err.Error() != want {
				t.Errorf("error\n%s\nwant\n%s", err, want)
			}
		})
	}
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{
		"secret/shop/db", "db", "", "/", "a//b", "a/./b", "a/../b", "a/%2e%2e/b", "a?b", "a#b", `a\b`,
		"a\nb", "a/\x00", "\xff", "\u202eb", "\u200b", "密码/🔑", ".../a", "..a/b..", " / ",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path, err := store.ParsePath(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(text, `%?#\`) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("accepted %q with a forbidden character", text)
		}
		for _, segment := range path.Segments() {
			if slices.Contains([]string{"", ".", ".."}, segment) {
				t.Errorf("accepted %q with the segment %q", text, segment)
			}
		}
		if again, err := store.ParsePath(path.String()); err != nil || again != path || path.String() != text {
			t.Errorf("%q became %q, then %q (%v)", text, path, again, err)
		}
	})
}
