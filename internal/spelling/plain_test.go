package spelling_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keymount/keymount/internal/spelling"
)

// oddTexts are not plain, each for a reason of its own.
func oddTexts() map[string]string {
	return map[string]string{
		"line feed": "a\nb", "carriage return": "a\rb", "tab": "a\tb", "NUL": "a\x00b", "escape": "a\x1b[31mb", "delete": "a\x7fb",
		"next line": "a\u0085b", "line separator": "a\u2028b", "paragraph separator": "a\u2029b",
		"no-break space": "a\u00a0b", "ideographic space": "a\u3000b", "thin space": "a\u2009b",
		"zero width space": "a\u200bb", "zero width joiner": "a\u200db", "word joiner": "a\u2060b", "byte order mark": "\ufeffa",
		"soft hyphen": "a\u00adb", "right to left override": "a\u202eb", "right to left mark": "a\u200fb", "isolate": "a\u2066b",
		"Arabic letter mark": "a\u061cb", "grapheme joiner": "a\u034fb", "Hangul filler": "a\u3164b", "half-width filler": "a\uffa0b",
		"Hangul jungseong filler": "a\u1160b", "Mongolian vowel separator": "a\u180eb", "variation selector": "a\ufe0fb",
		"selector of plane 14": "a\U000e0100b", "tag": "a\U000e0041b", "braille blank": "a\u2800b", "private use": "a\ue000b",
		"lost bytes": "a\ufffdb", "no UTF-8": "a\xffb", "half a character": "a\xc3", "unassigned": "a\u0378b", "Khmer inherent vowel": "a\u17b4b",
	}
}

func TestPlain(t *testing.T) {
	for name, text := range oddTexts() {
		err := spelling.Plain(text)
		if err == nil {
			t.Errorf("%s: %+q is plain", name, text)
			continue
		}
		for _, r := range err.Error() {
			if !spelling.IsPlain(r) && !strings.Contains(err.Error(), fmt.Sprintf("holds %+q", r)) {
				t.Errorf("%s: the message holds %+q alone: %s", name, r, err)
			}
		}
	}
	for _, text := range []string{"", "a", "a b", "Schlüssel", "鍵", "مفتاح", "ключ-1", "é", "e\u0301", "🔑", `a"b'c`, "a.b/c_d@e"} {
		if err := spelling.Plain(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if got := spelling.Visible(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	const want = `"a\nb" holds '\n'; no name has control, invisible or bidirectional characters`
	if got := fmt.Sprint(spelling.Plain("a\nb")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := spelling.Plain(strings.Repeat("a", 1<<20) + "\n"); len(err.Error()) > 1<<10 {
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
}

func TestUnspaced(t *testing.T) {
	for _, text := range []string{"", "a", "a b", "a b/c d", "/a/", "a//b", "a\t"} {
		if err := spelling.Unspaced(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{" ", "a ", " a", "a/ ", "a /b", "a/ b/c"} {
		if err, want := spelling.Unspaced(text), fmt.Sprintf("%q has a space at an end of a name; remove it", text); fmt.Sprint(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := spelling.Unspaced(strings.Repeat("a", 1<<20) + " "); len(err.Error()) > 1<<10 {
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
}

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{"a\nb": `a\nb`, "a\xffb": `a\xffb`, "a\u202eb": `a\u202eb`, "ü\u3164": `ü\u3164`, "a\ufffd": `a\ufffd`} {
		if got := spelling.Visible(text); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for name, text := range oddTexts() {
		if err := spelling.Plain(spelling.Visible(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzVisible(f *testing.F) {
	for _, text := range oddTexts() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if err := spelling.Plain(spelling.Visible(text)); err != nil {
			t.Error(err)
		}
		if (spelling.Plain(text) == nil) != (spelling.Visible(text) == text) {
			t.Errorf("%+q is plain for one and not for the other", text)
		}
	})
}
