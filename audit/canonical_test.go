package audit_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/keymount/keymount/audit"
)

// The canonical form of a text has the same meaning and is canonical itself, and the fast way to
// see that agrees with the slow one.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`{"b": [1, -0, 1.0, 1e2, true], "a": "\u0041\u2028\ud83d\ude00\u001F\/"}`, `"\ud800"`, `{"a":1,"a":2}`, `{"é":1}`, `[null]`, `9007199254740991`,
		`-9007199254740992`, `1e400`, `12 13`, "\"\xff\"", `{"a":{}}`, `[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]`, `{"a":"\b\t\n\f\r\"\\\u0000"}`, `0.1`, `{"b":1,"a":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := audit.Canonical(bytes.Clone(text))
		slow, slowErr := audit.CanonicalSlow(text)
		if (err == nil) != (slowErr == nil) || !bytes.Equal(once, slow) {
			t.Fatalf("%q is %q and, the slow way, %q: %v, %v", text, once, slow, err, slowErr)
		}
		if err != nil {
			return
		}
		if twice, err := audit.Canonical(once); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q becomes %q and then %q: %v", text, once, twice, err)
		}
		var meant, is any
		if err := json.Unmarshal(text, &meant); err != nil {
			t.Fatalf("%q is no JSON, and %q is made of it: %v", text, once, err)
		}
		if err := json.Unmarshal(once, &is); err != nil || !reflect.DeepEqual(meant, is) {
			t.Fatalf("%q is %q, which means something else: %v", text, once, err)
		}
	})
}
