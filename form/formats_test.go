package form_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	goccy "github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/joho/godotenv"
	"github.com/magiconair/properties"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/form"
	"github.com/keymount/keymount/internal/secret"
)

const canary = "canary-91c7"

func tree(tb testing.TB, v any) secret.Tree {
	tb.Helper()
	made, err := secret.NewTree(v)
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

func write(tb testing.TB, f form.Format, v any) string {
	tb.Helper()
	text, err := form.Write(f, tree(tb, v))
	if err != nil {
		tb.Fatalf("%s: %v", f, err)
	}
	return string(text.Reveal())
}

// example is one secret of every kind of value.
func example() map[string]any {
	return map[string]any{
		"user": "shop", "port": json.Number("5432"), "ratio": json.Number("1.10"), "tls": true, "note": nil,
		"html": "<a&b>", "words": "it is $HOME", "hosts": []any{"a", json.Number("1"), map[string]any{"k": "v", "l": []any{}}},
		"deep": map[string]any{"z": map[string]any{"y": []any{[]any{"x"}, nil}}, "empty": map[string]any{}}, "no": "no",
	}
}

func TestWrite(t *testing.T) {
	tests := map[form.Format]string{
		form.JSON: `{"deep":{"empty":{},"z":{"y":[["x"],null]}},"hosts":["a",1,{"k":"v","l":[]}],"html":"<a&b>","no":"no",` +
			`"note":null,"port":5432,"ratio":1.10,"tls":true,"user":"shop","words":"it is $HOME"}` + "\n",
		form.YAML: `deep:
  empty: {}
  z:
    "y":
      - - x
      - null
hosts:
  - a
  - 1
  - k: v
    l: []
html: "<a&b>"
"no": "no"
note: null
port: 5432
ratio: 1.10
tls: true
user: shop
words: "it is $HOME"
`,
		form.Dotenv: `deep='{"empty":{},"z":{"y":[["x"],null]}}'
hosts='["a",1,{"k":"v","l":[]}]'
html='<a&b>'
no='no'
note=''
port='5432'
ratio='1.10'
tls='true'
user='shop'
words='it is $HOME'
`,
		form.Properties: `deep={"empty":{},"z":{"y":[["x"],null]}}
hosts=["a",1,{"k":"v","l":[]}]
html=<a&b>
no=no
note=
port=5432
ratio=1.10
tls=true
user=shop
words=it is $HOME
`,
	}
	for f, want := range tests {
		t.Run(string(f), func(t *testing.T) {
			if diff := cmp.Diff(want, write(t, f, example())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// nasty are values that some format or reader gets wrong.
func nasty() []string {
	values := []string{
		"", " ", "a b", " a", "a ", "\ta", "a\t", "\n", "a\n", "\na", "a\nb", "a\n\nb\n", "a\rb", "a\r\nb", "\x00", "a\x01b", "\x1b", "\x7f", "\u0085", "\u009f",
		"'", "''", "it's", "'it'", `"`, `""`, `"a"`, `a"`, `it's "a"`, "`id`", "it's `id`", "$HOME", "${HOME}", "$(id)", "it's $5", `\`, `a\`, `a\b`, `\n`, `it's \n`, `a\\b`,
		"#", "a #b", "a#b", "# a", "!", "!!str a", "a: b", "a:", ":", "a=b", "=b", "=", "- a", "-", "--", "---", "...", "? a", "&a", "*a", "[a]", "{a}", "{}", "[]", "%a", "@a", ",", "|", ">", "<<",
		"no", "No", "NO", "on", "off", "yes", "y", "n", "Y", "true", "True", "FALSE", "null", "Null", "NULL", "~", "nil", "none", ".nan", "nan", ".inf", "-.INF", "inf",
		"0", "007", "0o17", "0x1f", "0b11", "1e3", "1E3", "1_000", "1.", ".5", "+1", "-1", "190:20:30", "1.10", "12e03", "2001-01-01", "2001-12-14t21:59:43.10-05:00",
		"é", "ÿ", "漢字", "😀", "a😀b", "\u2028", "a\u2028b", "\u2029", "\ufeff", "a\ufeff", "\ufffe", "\uffff", "\U0001ffff", "\U0010ffff", "\u00a0", "\u200b", "\u202e", "\f", "\v", "\b",
		"line1\nKEY='x'\nline3", "x # y\n# z", "%s%d", "&lt;", `\u0041`, `\x41`, strings.Repeat("long ", 300),
		"-----BEGIN KEY-----\nabc+/=\n-----END KEY-----\n",
	}
	for c := range 0x20 {
		values = append(values, "a"+string(rune(c))+"b")
	}
	return values
}

// nastyTree has each nasty value as a value, as an element and as a key.
func nastyTree() map[string]any {
	all := map[string]any{}
	var list []any
	byKey := map[string]any{}
	for i, v := range nasty() {
		all[fmt.Sprintf("k%03d", i)] = v
		list = append(list, v, map[string]any{"a": v, "b": []any{[]any{v}, map[string]any{}}})
		byKey[v] = map[string]any{v: []any{v, map[string]any{v: nil}}}
	}
	all["list"], all["by key"] = list, byKey
	return all
}

func TestJSONReadsBack(t *testing.T) {
	for name, v := range map[string]any{"nasty": nastyTree(), "text": "a\nb", "list": []any{nil, true}, "null": nil, "empty": map[string]any{}} {
		text := write(t, form.JSON, v)
		if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
			t.Errorf("%s: not one line", name)
		}
		var got any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		// A parser of YAML 1.2 reads JSON, too, which makes it independent of ours.
		if err := goccy.Unmarshal([]byte(write(t, form.JSON, example())), &got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// yamlReaders are two parsers with different ancestors; the first leans towards
// YAML 1.1, the second towards 1.2.
func yamlReaders() map[string]func(string) (any, error) {
	return map[string]func(string) (any, error){
		"yaml.v3": func(text string) (v any, err error) { err = yaml.Unmarshal([]byte(text), &v); return v, err },
		"goccy":   func(text string) (v any, err error) { err = goccy.Unmarshal([]byte(text), &v); return v, err },
	}
}

func TestYAMLReadsBack(t *testing.T) {
	tests := map[string]any{
		"nasty": nastyTree(), "null": nil, "bool": false, "empty map": map[string]any{}, "empty list": []any{}, "list": []any{[]any{}, []any{"a", []any{"b"}}},
		"long key": map[string]any{strings.Repeat("k", 2000): "v", strings.Repeat("😀 ", 400): map[string]any{"a": []any{"b"}}, "short": "x"},
		"deep":     nested(90),
	}
	for i, v := range nasty() {
		tests["text "+strconv.Itoa(i)] = v
	}
	for name, v := range tests {
		text := write(t, form.YAML, v)
		for reader, read := range yamlReaders() {
			got, err := read(text)
			if err != nil {
				t.Fatalf("%s, %s: %v\n%s", name, reader, err, text)
			}
			if !reflect.DeepEqual(v, got) { // cmp.Diff takes for ever on what is deep
				t.Errorf("%s, %s: read %#v\nof %s", name, reader, got, text)
			}
		}
	}
}

func indented(depth, lines int) any {
	var v any = slices.Repeat([]any{"x"}, lines)
	for range depth {
		v = []any{v}
	}
	return v
}

func nested(depth int) any {
	var v any = "bottom"
	for i := range depth {
		if i%2 == 0 {
			v = []any{v, "x"}
		} else {
			v = map[string]any{"a": v, "b": "y"}
		}
	}
	return v
}

func TestNumbersStayAsTheyAre(t *testing.T) {
	for _, number := range []string{"0", "-0", "1.10", "1e400", "1E+2", "12345678901234567890123", "-0.0"} {
		for f, want := range map[form.Format]string{
			form.JSON: `{"a":%s}`, form.YAML: `a: %s`, form.Dotenv: `a='%s'`, form.Properties: `a=%s`,
		} {
			if got := write(t, f, map[string]any{"a": json.Number(number)}); got != fmt.Sprintf(want, number)+"\n" {
				t.Errorf("%s: %q", f, got)
			}
		}
	}
}

// refusedByDotenv is the rule in words of the test.
func refusedByDotenv(v string) bool {
	return strings.ContainsAny(v, "\r\x00") || strings.HasSuffix(v, `\`) ||
		strings.Contains(v, "'") && strings.ContainsAny(v, "\"$\\`")
}

// dotenvOf writes the nasty values that dotenv takes, and checks that it refuses
// the others.
func dotenvOf(t *testing.T) (string, map[string]string) {
	t.Helper()
	want := map[string]string{}
	all := map[string]any{}
	for i, v := range nasty() {
		key := fmt.Sprintf("K_%d", i)
		_, err := form.Write(form.Dotenv, tree(t, map[string]any{key: v}))
		switch {
		case !refusedByDotenv(v) && err == nil:
			want[key], all[key] = v, v
		case refusedByDotenv(v) != (err != nil):
			t.Errorf("%q: %v", v, err)
		case !strings.Contains(err.Error(), `key "`+key+`"`) || !strings.Contains(err.Error(), "format json"):
			t.Errorf("%q: %v", v, err)
		}
	}
	return write(t, form.Dotenv, all), want
}

func TestDotenvReadsBackWithGodotenv(t *testing.T) {
	text, want := dotenvOf(t)
	got, err := godotenv.Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDotenvReadsBackWithShell(t *testing.T) {
	text, want := dotenvOf(t)
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	script := "set -a; . " + file
	keys := slices.Sorted(maps.Keys(want))
	for _, key := range keys {
		script += "; printf '%s\\001END' \"$" + key + `"`
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script).Output() //nolint:gosec // the script is ours
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range strings.Split(strings.TrimSuffix(string(out), "\x01END"), "\x01END") {
		if got != want[keys[i]] {
			t.Errorf("%q read as %q", want[keys[i]], got)
		}
	}
}

func TestPropertiesReadBack(t *testing.T) {
	want := map[string]string{}
	all := map[string]any{}
	for i, v := range nasty() {
		key := fmt.Sprintf("k%d", i)
		want[key], all[key] = v, v
		want[v+"k"], all[v+"k"] = key, key
	}
	text := write(t, form.Properties, all)
	if i := strings.IndexFunc(text, func(r rune) bool { return r > '~' || r < ' ' && r != '\n' }); i >= 0 {
		t.Errorf("not plain ASCII at %d", i)
	}
	if diff := cmp.Diff(want, readProperties(t, text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// readProperties reads with magiconair/properties, which takes \uXXXX for a
// character where Java takes it for a unit of UTF-16. What it would lose of the
// characters beyond the first 65536 is spelled in private ones for the while.
func readProperties(tb testing.TB, text string) map[string]string {
	tb.Helper()
	hidden, original := hideSurrogates(text)
	loader := properties.Loader{Encoding: properties.ISO_8859_1, DisableExpansion: true}
	p, err := loader.LoadBytes([]byte(hidden))
	if err != nil {
		tb.Fatal(err)
	}
	got := map[string]string{}
	for k, v := range p.Map() {
		got[original.Replace(k)] = original.Replace(v)
	}
	return got
}

func hideSurrogates(text string) (string, *strings.Replacer) {
	var pairs []string
	seen := map[string]string{}
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && text[i+1] != 'u' {
			i++
			continue
		}
		if !strings.HasPrefix(text[i:], `\uD`) {
			continue
		}
		high, err := strconv.ParseUint(text[i+2:i+6], 16, 16)
		if err != nil || high < 0xd800 || high > 0xdbff {
			continue
		}
		low, err := strconv.ParseUint(text[i+8:i+12], 16, 16)
		if err != nil || text[i+6:i+8] != `\u` {
			continue
		}
		pair := text[i : i+12]
		if seen[pair] == "" {
			n := len(seen)
			seen[pair] = fmt.Sprintf(`\uE0%02X\uE0%02X`, n/256, n%256)
			mark := fmt.Sprintf("%c%c", 0xe000+n/256, 0xe000+n%256)
			pairs = append(pairs, mark, string(utf16.DecodeRune(rune(high), rune(low))))
		}
		text = text[:i] + seen[pair] + text[i+12:]
	}
	return text, strings.NewReplacer(pairs...)
}

func TestMistakesOfFormats(t *testing.T) {
	const instead = "; take format json, or give the key a file of its own"
	tests := map[string]struct {
		format form.Format
		value  any
		want   string
	}{
		"dotenv of a list":      {form.Dotenv, []any{canary}, "dotenv holds keys with values, and the secret is not a map; take format json or yaml"},
		"properties of a text":  {form.Properties, canary, "properties holds keys with values, and the secret is not a map; take format json or yaml"},
		"dotenv name":           {form.Dotenv, map[string]any{"a-b": canary}, `key "a-b" is no name for a variable (letters, digits and _, no digit first)` + instead},
		"dotenv digit":          {form.Dotenv, map[string]any{"1a": canary}, `key "1a" is no name for a variable (letters, digits and _, no digit first)` + instead},
		"dotenv no name":        {form.Dotenv, map[string]any{"": canary}, `key "" is no name for a variable (letters, digits and _, no digit first)` + instead},
		"dotenv unicode name":   {form.Dotenv, map[string]any{"é": canary}, `key "é" is no name for a variable (letters, digits and _, no digit first)` + instead},
		"dotenv return":         {form.Dotenv, map[string]any{"a": canary + "\r"}, `key "a" has a value with a carriage return or NUL, and readers of dotenv disagree about it` + instead},
		"dotenv NUL":            {form.Dotenv, map[string]any{"a": canary + "\x00"}, `key "a" has a value with a carriage return or NUL, and readers of dotenv disagree about it` + instead},
		"dotenv backslash":      {form.Dotenv, map[string]any{"a": canary + `\`}, `key "a" has a value that ends in a backslash, and readers of dotenv disagree about it` + instead},
		"dotenv quotes":         {form.Dotenv, map[string]any{"a": canary + `'"`}, `key "a" has a value with ' and one of " $ \ ` + "`, and readers of dotenv disagree about it" + instead},
		"dotenv bytes":          {form.Dotenv, map[string]any{"a": canary + "\xff"}, `key "a" has a value that is not UTF-8, and readers of dotenv disagree about it` + instead},
		"dotenv bytes below":    {form.Dotenv, map[string]any{"a": []any{canary, "\xff"}}, `key "a" at "1": is not UTF-8, which json cannot hold; give it a file of its own`},
		"properties bytes":      {form.Properties, map[string]any{"a": canary + "\xff"}, `key "a" is not UTF-8, or its value is not, which properties cannot hold; give it a file of its own`},
		"properties no key":     {form.Properties, map[string]any{"": canary}, `key "" is empty, which readers of properties disagree about; take format json`},
		"json bytes":            {form.JSON, map[string]any{"a": map[string]any{"b": canary + "\xff"}}, `at "a.b": is not UTF-8, which json cannot hold; give it a file of its own`},
		"json bytes of a key":   {form.JSON, map[string]any{"a": map[string]any{"\xff": canary}}, `at "a": a key is not UTF-8, which json cannot hold; give it a file of its own`},
		"yaml bytes":            {form.YAML, canary + "\xff", `is not UTF-8, which yaml cannot hold; give it a file of its own`},
		"yaml too long":         {form.YAML, indented(90, 40_000), `makes a text of more than 4194304 bytes, which is more than the driver takes`},
		"properties too long":   {form.Properties, map[string]any{"a": strings.Repeat("\u20ac", 400_000), "b": strings.Repeat("\u20ac", 400_000)}, `makes a text of more than 4194304 bytes, which is more than the driver takes`},
		"every key":             {form.Dotenv, map[string]any{"b-": canary, "a": "\r", "ok": canary}, `key "a" has a value with a carriage return or NUL, and readers of dotenv disagree about it` + instead + "\n" + `key "b-" is no name for a variable (letters, digits and _, no digit first)` + instead},
		"no format":             {"", canary, `"" is no format; there are json, yaml, dotenv, properties`},
		"another format":        {"pem", canary, `"pem" is no format; there are json, yaml, dotenv, properties`},
		"nearly another format": {"jsn", canary, `"jsn" is no format; did you mean "json"?; there are json, yaml, dotenv, properties`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text, err := form.Write(test.format, tree(t, test.value))
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
			if text.Len() > 0 {
				t.Error("a text came with the error")
			}
		})
	}
}

// However many keys cannot be written, and however long they are, the error stays short:
// it is held, and copied, while other mounts want the memory.
func TestManyMistakesOfFormats(t *testing.T) {
	many, long := map[string]any{}, map[string]any{strings.Repeat("-", 1<<20): canary}
	for i := range 100_000 {
		many[fmt.Sprint(i)] = canary
	}
	for name, test := range map[string]struct {
		value map[string]any
		lines int
		end   string
	}{
		"100,000 keys":   {many, 21, "and maybe more"},
		"a key of 1 MiB": {long, 1, "give the key a file of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := form.Write(form.Dotenv, tree(t, test.value))
			if err == nil || !strings.HasSuffix(err.Error(), test.end) {
				t.Fatalf("error %.200v, want one that ends in %q", err, test.end)
			}
			if lines := strings.Count(err.Error(), "\n") + 1; lines != test.lines || len(err.Error()) > 4<<10 {
				t.Errorf("%d lines of %d bytes together, want %d and at most 4 KiB", lines, len(err.Error()), test.lines)
			}
		})
	}
}

func TestParseFormat(t *testing.T) {
	for _, name := range []string{"json", "yaml", "dotenv", "properties"} {
		if f, err := form.ParseFormat(name); string(f) != name || err != nil {
			t.Errorf("%s: %q, %v", name, f, err)
		}
	}
	for _, name := range []string{"", "JSON", "env", "pem"} {
		if f, err := form.ParseFormat(name); f != "" || err == nil {
			t.Errorf("%s: %q, %v", name, f, err)
		}
	}
}

func TestEmptyMap(t *testing.T) {
	for f, want := range map[form.Format]string{form.JSON: "{}\n", form.YAML: "{}\n", form.Dotenv: "", form.Properties: ""} {
		if got := write(t, f, map[string]any{}); got != want {
			t.Errorf("%s: %q", f, got)
		}
	}
}

// fuzzed makes a map out of random texts: keys and values in turn.
func fuzzed(a, b, c, d string) map[string]any {
	return map[string]any{a: b, "K" + c: d, b: c, "x": a + b + c}
}

func seeds(f *testing.F) {
	f.Helper()
	values := nasty()
	for i, v := range values {
		f.Add(v, values[(i+7)%len(values)], values[(i+31)%len(values)], v+values[(i+3)%len(values)])
	}
}

func FuzzDotenv(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		for key, v := range fuzzed(a, b, c, d) {
			text, err := form.Write(form.Dotenv, tree(t, map[string]any{key: v}))
			if err != nil {
				continue
			}
			got, err := godotenv.Unmarshal(string(text.Reveal()))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{key: v.(string)}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	})
}

func FuzzProperties(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		m := fuzzed(a, b, c, d)
		text, err := form.Write(form.Properties, tree(t, m))
		if err != nil {
			return
		}
		want := map[string]string{}
		for k, v := range m {
			want[k] = v.(string)
		}
		if diff := cmp.Diff(want, readProperties(t, string(text.Reveal()))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func FuzzYAML(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		m := fuzzed(a, b, c, d)
		m["deep"] = []any{fuzzed(d, c, b, a), []any{a, map[string]any{c: []any{d}}}, b}
		text, err := form.Write(form.YAML, tree(t, m))
		if err != nil {
			return
		}
		for name, read := range yamlReaders() {
			got, err := read(string(text.Reveal()))
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text.Reveal())
			}
			if !reflect.DeepEqual(any(m), got) {
				t.Errorf("%s: read %#v\nof %s", name, got, text.Reveal())
			}
		}
	})
}

func TestEncodings(t *testing.T) {
	tests := map[string]struct {
		encoding form.Encoding
		text     string
		want     string
		err      string
	}{
		"padded":             {form.Base64, "YQ==", "a", ""},
		"not padded":         {form.Base64, "YQ", "a", ""},
		"whole group":        {form.Base64, "YWJj", "abc", ""},
		"standard alphabet":  {form.Base64, "+/+/", "\xfb\xff\xbf", ""},
		"alphabet of URLs":   {form.Base64, "-_-_", "\xfb\xff\xbf", ""},
		"URLs, not padded":   {form.Base64, "-_8", "\xfb\xff", ""},
		"wrapped":            {form.Base64, "YW\r\n Jj\tZA\n=\n=\n", "abcd", ""},
		"empty":              {form.Base64, "", "", ""},
		"mixed alphabets":    {form.Base64, "YW+_", "", "not base64: the standard alphabet (+ and /) and that of URLs (- and _) are mixed, at byte 3"},
		"other byte":         {form.Base64, "YWJ\x00", "", "not base64: byte 3 is not of its alphabet"},
		"text":               {form.Base64, canary + "!", "", "not base64: byte 11 is not of its alphabet"},
		"cut short":          {form.Base64, "YWJjZ\n", "", "not base64: it ends at byte 6 in the middle of a group of four"},
		"too much padding":   {form.Base64, "YWI==", "", "not base64: 2 padding characters where 1 belong, at byte 5"},
		"too little padding": {form.Base64, "YQ=", "", "not base64: 1 padding characters where 2 belong, at byte 3"},
		"padding alone":      {form.Base64, "====", "", "not base64: 4 padding characters where 0 belong, at byte 4"},
		"two texts":          {form.Base64, "YQ==YQ==", "", "not base64: there is more after the padding, at byte 4"},
		"lower":              {form.Hex, "00ff", "\x00\xff", ""},
		"upper":              {form.Hex, "00 FF\n", "\x00\xff", ""},
		"no hex":             {form.Hex, "", "", ""},
		"odd":                {form.Hex, "00f", "", "not hex: it ends at byte 3 in the middle of a pair of digits"},
		"not hex":            {form.Hex, "0x00", "", "not hex: byte 1 is no hexadecimal digit"},
		"no encoding":        {"", "00", "", `"" is no encoding; there are base64, hex`},
		"nearly":             {"base46", "00", "", `"base46" is no encoding; did you mean "base64"?; there are base64, hex`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := form.Decode(test.encoding, secret.New([]byte(test.text)))
			if string(got.Reveal()) != test.want {
				t.Errorf("%q, want %q", got.Reveal(), test.want)
			}
			if (test.err == "") != (err == nil) || err != nil && err.Error() != test.err {
				t.Errorf("error %v, want %s", err, test.err)
			}
		})
	}
}

func TestDecodeLeavesItsInputAlone(t *testing.T) {
	text := []byte("YW Jj")
	if _, err := form.Decode(form.Base64, secret.New(text)); err != nil || !bytes.Equal(text, []byte("YW Jj")) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestParseEncoding(t *testing.T) {
	for _, name := range []string{"base64", "hex"} {
		if e, err := form.ParseEncoding(name); string(e) != name || err != nil {
			t.Errorf("%s: %q, %v", name, e, err)
		}
	}
	if e, err := form.ParseEncoding("gzip"); e != "" || err == nil {
		t.Errorf("%q, %v", e, err)
	}
}
