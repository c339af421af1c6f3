package bundle_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/bundle"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		yaml string
		want any
	}{
		"text":              {"shop", "shop"},
		"quoted":            {`"shop: \u00fc"`, "shop: ü"},
		"quoted number":     {`"0123"`, "0123"},
		"quoted null":       {"'~'", "~"},
		"quoted merge":      {`"<<"`, "<<"},
		"empty text":        {`""`, ""},
		"two halves":        {`"\ud83d\ude00 \\ud83d \u00fc"`, `😀 \ud83d ü`},
		"no halves":         {`'\ud83d\ude00'`, `\ud83d\ude00`},
		"YAML around JSON":  {`{"a": "https://x", "b": 1e400}`, map[string]any{"a": "https://x", "b": "1e400"}},
		"halves in JSON":    {`{"\ud83d\ude00": ["\ud83d\ude01"]}`, map[string]any{"😀": []any{"😁"}}},
		"block":             {"|\n      two\n      lines\n", "two\nlines\n"},
		"folded":            {">-\n      one\n      line\n", "one line"},
		"tagged text":       {"!!str 12", "12"},
		"integer":           {"5432", json.Number("5432")},
		"big integer":       {"12345678901234567890123", json.Number("12345678901234567890123")},
		"decimal":           {"1.10", json.Number("1.10")},
		"exponent":          {"-1E+7", json.Number("-1E+7")},
		"zero first":        {"0123", "0123"},
		"hexadecimal":       {"0x1F", "0x1F"},
		"octal":             {"0o17", "0o17"},
		"underscores":       {"1_000", "1_000"},
		"plus":              {"+1", "+1"},
		"no digit first":    {".5", ".5"},
		"infinite":          {"-.inf", "-.inf"},
		"not a number":      {".NaN", ".NaN"},
		"tagged as number":  {"!!int true", "true"},
		"tagged with space": {`!!float "1 "`, "1 "},
		"true":              {"true", true},
		"False":             {"False", false},
		"yes is a text":     {"yes", "yes"},
		"off is a text":     {"off", "off"},
		"null":              {"null", nil},
		"tilde":             {"~", nil},
		"nothing":           {"", nil},
		"date":              {"2001-12-14", "2001-12-14"},
		"time":              {"2001-12-14T21:59:43.10-05:00", "2001-12-14T21:59:43.10-05:00"},
		"binary":            {"!!binary aGVs\n      bG8=", "hello"},
		"binary block":      {"!!binary |\n      aGVs\n      bG8=\n", "hello"},
		"list":              {"[a, 1, null, [x]]", []any{"a", json.Number("1"), nil, []any{"x"}}},
		"map":               {"{a.b: 1, c: {d: e}}", map[string]any{"a.b": json.Number("1"), "c": map[string]any{"d": "e"}}},
		"keys as written":   {"{1.10: a, 0x1F: b, true: c, null: d, 2001-12-14: e, ? : f}", map[string]any{"1.10": "a", "0x1F": "b", "true": "c", "null": "d", "2001-12-14": "e", "": "f"}},
		"quoted merge key":  {`{"<<": a}`, map[string]any{"<<": "a"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			document, err := bundle.Parse([]byte("shop/db:\n  value: " + test.yaml + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(any(map[string]any{"value": test.want}), reveal(t, document, "shop/db")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A bundle that is JSON means what JSON says, also where YAML has other rules.
func TestParseJSON(t *testing.T) {
	long := strings.Repeat("k", 1025)
	tests := map[string]struct {
		json string
		want any
	}{
		"slash":                {`"https:\/\/x"`, "https://x"},
		"next line":            {"\"a\u0085b\"", "a\u0085b"},
		"separators":           {"\"a\u2028\u2029\ufeffb\"", "a\u2028\u2029\ufeffb"},
		"delete":               {"\"a\x7fb\"", "a\x7fb"},
		"long key":             {`{"` + long + `": "x"}`, map[string]any{long: "x"}},
		"break before a colon": {"{\"k\"\n: \"x\"}", map[string]any{"k": "x"}},
		"tabs":                 {"{\n\t\"k\":\t[\n\t1\t]\n}", map[string]any{"k": []any{json.Number("1")}}},
		"merge key":            {`{"<<": {"k": "x"}}`, map[string]any{"<<": map[string]any{"k": "x"}}},
		"scalars":              {`[null, true, false, "", "true", "1", "~", {}]`, []any{nil, true, false, "", "true", "1", "~", map[string]any{}}},
		"numbers": {`[0, -0, 1.10, 1E+7, 1e400, 12345678901234567890123]`, []any{
			json.Number("0"), json.Number("-0"), json.Number("1.10"), json.Number("1E+7"), json.Number("1e400"), json.Number("12345678901234567890123"),
		}},
		"two halves": {`"\ud83d\ude00 \\ud83d"`, `😀 \ud83d`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			document, err := bundle.Parse([]byte(`{"shop/db": {"value": ` + test.json + `}}`))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(any(map[string]any{"value": test.want}), reveal(t, document, "shop/db")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDocument(t *testing.T) {
	document, err := bundle.Parse([]byte("shop/tls: {}\nshop/db: {password: x}\n1.10: {a: b}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1.10", "shop/db", "shop/tls"}, document.Paths()); diff != "" {
		t.Errorf("Paths() (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(any(map[string]any{}), reveal(t, document, "shop/tls")); diff != "" {
		t.Errorf("empty secret (-want +got):\n%s", diff)
	}
	if _, ok := document.Get(path(t, "shop")); ok {
		t.Error("found what is not there")
	}
	var zero bundle.Document
	if _, ok := zero.Get(path(t, "shop/db")); ok || len(zero.Paths()) > 0 {
		t.Error("the zero Document holds something")
	}
}

// Each file of testdata/mistakes has the text of its mistakes beside it.
func TestParseMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("files %q, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			_, err := bundle.Parse(readFile(t, file))
			if err == nil {
				t.Fatal("no mistake was found")
			}
			want := string(readFile(t, strings.TrimSuffix(file, ".yaml")+".txt"))
			if diff := cmp.Diff(want, err.Error()+"\n"); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Error("the error quotes a value")
			}
		})
	}
}

func TestParseTooLarge(t *testing.T) {
	_, err := bundle.Parse(make([]byte, bundle.MaxPlaintext+1))
	if want := "holds more than 4 MiB; split it into several bundles, each a store of its own"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(readFile(f, file))
	}
	f.Add([]byte("shop/db:\n  username: shop\n  port: 5432\n  hosts: [a, {b: !!binary aGk=}]\n"))
	f.Add([]byte(`{"shop/db": {"url": "https:\/\/x", "n": [1e400, {}, null]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		document, err := bundle.Parse(data)
		if err != nil {
			if len(document.Paths()) > 0 {
				t.Error("secrets came with the error")
			}
			return
		}
		if len(document.Paths()) == 0 {
			t.Error("accepted a document without secrets")
		}
		for _, text := range document.Paths() {
			tree, ok := document.Get(path(t, text))
			if !ok {
				t.Errorf("%q is listed and not there", text)
			}
			if _, err := tree.Text(); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}

func path(tb testing.TB, text string) store.Path {
	tb.Helper()
	p, err := store.ParsePath(text)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func reveal(tb testing.TB, document bundle.Document, at string) any {
	tb.Helper()
	tree, ok := document.Get(path(tb, at))
	if !ok {
		tb.Fatalf("nothing at %q", at)
	}
	return tree.Reveal()
}

func readFile(tb testing.TB, name string) []byte {
	tb.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}
