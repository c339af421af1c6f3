package spelling_test

import (
	"strings"
	"testing"

	"github.com/keymount/keymount/internal/spelling"
)

func TestHint(t *testing.T) {
	known := []string{"path", "key", "file", "mode", "optional"}
	tests := map[string]struct {
		word string
		want string
	}{
		"letter missing":         {"fiel", `; did you mean "file"?`},
		"letters swapped":        {"pahts", `; did you mean "path"?`},
		"letter too many":        {"keys", `; did you mean "key"?`},
		"case alone":             {"OPTIONAL", `; did you mean "optional"?`},
		"nearest of two":         {"modes", `; did you mean "mode"?`},
		"several slips, longer":  {"optoinall", `; did you mean "optional"?`},
		"nothing like it":        {"telemetry", ""},
		"nothing in common":      {"x", ""},
		"empty":                  {"", ""},
		"far longer than a name": {strings.Repeat("path", 40), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := spelling.Hint(test.word, known); got != test.want {
				t.Errorf("Hint(%q) = %q, want %q", test.word, got, test.want)
			}
		})
	}
	if got := spelling.Hint("file", nil); got != "" {
		t.Errorf("without known names: %q, want none", got)
	}
}

// TestClear replaces a word by another only where a person would, too.
func TestClear(t *testing.T) {
	known := []string{"path", "key", "file", "mode", "store", "role", "format", "template"}
	for word, want := range map[string]string{
		"fiel": "file", "kye": "key", "filee": "file", "Mode": "mode", "formats": "format", "templat": "template",
		"kex": "key", "rope": "role", "windows": "", "xy": "", "stole": "store", "fole": "", "": "",
	} {
		if got := spelling.Clear(word, known); got != want {
			t.Errorf("%q becomes %q, want %q", word, got, want)
		}
	}
}
