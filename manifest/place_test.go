package manifest_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// TestInside puts a @ into a text in each style, and looks for it in the file: its place in
// the parsed text has to lead there.
func TestInside(t *testing.T) {
	tests := map[string]struct {
		text string
		want *manifest.Position // nil for the place of the @
	}{
		"literal":               {"a:\n  b: |\n    one\n    two @\n", nil},
		"literal, kept":         {"a:\n  b: |+\n    one\n\n    @two\n\n", nil},
		"literal, stripped":     {"b: |-\n  @\n", nil},
		"literal, indicator":    {"a:\n  b: |2\n      one\n    @two\n", nil},
		"literal, indicator -":  {"a:\n  b: |1-\n     one @\n", nil},
		"literal, comment":      {"b: | # about it\n  one\n  @\n", nil},
		"literal, blank first":  {"b: |\n\n\n  one @\n", nil},
		"literal, CRLF":         {"b: |\r\n  one\r\n  @two\r\n", nil},
		"literal, deep lines":   {"b: |\n  - one:\n      two:\n        @\n", nil},
		"literal, on next line": {"b:\n  |\n  one\n  @\n", nil},
		"literal, in a list":    {"b:\n- |\n  one\n  @\n", nil},
		"literal, wide letters": {"b: |\n  ä鍵🔑 @\n", nil},
		"plain":                 {"{b: one @two}\n", nil},
		"single quotes":         {"b: 'it''s @'\n", nil},
		"double quotes":         {`b: "a\tb\x41\u00e4\U0001f511 @"` + "\n", nil},
		"double quotes, lines":  {`b: "one\n\ntwo @"` + "\n", nil},
		"JSON":                  {"{\n  \"b\" : \"one\\ntwo\\/ \\ud83d\\ude00 @\"\n}", nil},
		"JSON, wide letters":    {`{"ä": 1, "b":"鍵@"}`, nil},
		"folded":                {"b: >\n  one\n  two @\n", &manifest.Position{Line: 1, Column: 4}},
		"quotes, several lines": {"b: \"one\n  two @\"\n", &manifest.Position{Line: 1, Column: 4}},
		"anchor":                {"b: &c '@'\n", &manifest.Position{Line: 1, Column: 4}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := manifest.Parse("x.yaml", []byte(test.text))
			scalar := found(f.Objects[0].Node)
			line, column := place(scalar.Value)
			var want manifest.Position
			if want.Line, want.Column = place(test.text); test.want != nil {
				want = *test.want
			}
			if got := f.Inside(scalar, line, column); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// found is the scalar with a @.
func found(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "@") {
		return n
	}
	for _, child := range n.Content {
		if at := found(child); at != nil {
			return at
		}
	}
	return nil
}

// place is that of the @ in a text.
func place(text string) (line, column int) {
	before, _, _ := strings.Cut(text, "@")
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
}

func FuzzInside(f *testing.F) {
	f.Add("b: |\n  a\n", 1, 1)
	f.Add("b: \"a\\ud83d\\ude00\\n\\x\"", 2, 1)
	f.Add("b: 'it''", 1, 5)
	f.Fuzz(func(t *testing.T, text string, line, column int) {
		file := manifest.Parse("x.yaml", []byte(text))
		for _, o := range file.Objects {
			for _, n := range o.Node.Content {
				if got := file.Inside(n, line, column); got.Line < n.Line {
					t.Errorf("%+v is in front of %d", got, n.Line)
				}
			}
		}
	})
}
