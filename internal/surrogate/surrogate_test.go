package surrogate_test

import (
	"encoding/json"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/surrogate"
)

// parse is the first value of a map in YAML, and the halves of its nodes.
func parse(tb testing.TB, text string) (value string, halves int) {
	tb.Helper()
	hidden := surrogate.Hide([]byte(text))
	var document yaml.Node
	if err := yaml.Unmarshal(hidden.Text, &document); err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	halves = len(hidden.Restore(&document))
	root := document.Content[0]
	if len(root.Content) < 2 {
		return root.Value, halves
	}
	return root.Content[1].Value, halves
}

func TestEscapesOfTwoHalves(t *testing.T) {
	tests := map[string]string{
		`{"a": "\ud83d\ude00"}`:               "😀",
		`{"a": "x\uD83D\uDE00\ud83d\ude01y"}`: "x😀😁y",
		`{"a": "\\ud83d\\ude00"}`:             `\ud83d\ude00`, // backslashes
		`{"a": "\\\ud83d\ude00"}`:             `\😀`,
		`{"a": "\u00e4 \u20ac"}`:              "ä €",
		`a: '\ud83d\ude00'`:                   `\ud83d\ude00`, // no escapes there
		`a: \ud83d\ude00`:                     `\ud83d\ude00`,
		`a: x \uD83D\uDE00 \ud83d`:            `x \uD83D\uDE00 \ud83d`,
		"a: |\n  \\ud83d\\ude00\n":            "\\ud83d\\ude00\n",
		"a: >-\n  \\ud83d\n  \\ude00\n":       `\ud83d \ude00`,
		`a: "é \ud83d\ude00" # \ud83d`:        "é 😀",
	}
	for text, want := range tests {
		got, halves := parse(t, text)
		if got != want || halves != 0 {
			t.Errorf("%s is %q, want %q; %d halves", text, got, want, halves)
		}
	}
}

func TestHalves(t *testing.T) {
	for _, text := range []string{
		`{"a": "\ud83d"}`, `{"a": "\ude00\ud83d\ude00"}`, `{"a": "\ud83d\ud83d\ude00"}`, `{"a": "\ud83d\\ude00"}`, `{"a": "\uDBFFx"}`, `{"\udc00": 1}`,
	} {
		if _, halves := parse(t, text); halves != 1 || !surrogate.HasHalf(text) {
			t.Errorf("%s: %d halves", text, halves)
		}
	}
	for _, text := range []string{``, `"\ud83d\ude00"`, `"\\ud83d"`, `"\u0041"`, `"\ue000"`} {
		if surrogate.HasHalf(text) {
			t.Errorf("%s has a half", text)
		}
	}
}

func TestCommentsKeepTheirText(t *testing.T) {
	const text = "# \\ud83d\\ude00\na: \"\\ud83d\\ude00\" # \\ud83d\n"
	hidden := surrogate.Hide([]byte(text))
	var document yaml.Node
	if err := yaml.Unmarshal(hidden.Text, &document); err != nil {
		t.Fatal(err)
	}
	hidden.Restore(&document)
	written, err := yaml.Marshal(&document)
	if err != nil || strings.Contains(string(written), "xx") || !strings.HasPrefix(string(written), "# \\ud83d\\ude00\n") || !strings.HasSuffix(string(written), " # \\ud83d\n") {
		t.Errorf("written as %q, %v", written, err)
	}
}

// Any text means the same as JSON and as YAML.
func FuzzJSONTexts(f *testing.F) {
	for _, seed := range []string{`\ud83d\ude00`, `\\ud83d\ude00`, `\ud83d`, `x\udfff\ud800`, `\u0041\n`, `\\\\\ud83d\ude00\\`, `😀`, "a\u0085b", "\x7f", `\/`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, inner string) {
		text := `"` + inner + `"`
		var want string
		if json.Unmarshal([]byte(text), &want) != nil || strings.ContainsRune(want, '\ufffd') {
			return
		}
		read, halves := surrogate.JSON([]byte(text))
		if read.Content[0].Value != want || len(halves) > 0 {
			t.Errorf("as JSON %s is %q, want %q; %d halves", text, read.Content[0].Value, want, len(halves))
		}
		if strings.ContainsAny(inner, "\u0085\u2028\u2029\ufeff\x7f") {
			return // to YAML they are line breaks or no characters
		}
		hidden := surrogate.Hide([]byte(text))
		var document yaml.Node
		if yaml.Unmarshal(hidden.Text, &document) != nil {
			return // YAML has no such characters or escapes
		}
		if halves := hidden.Restore(&document); len(halves) > 0 || document.Content[0].Value != want {
			t.Errorf("%s is %q, want %q; %d halves", text, document.Content[0].Value, want, len(halves))
		}
	})
}
