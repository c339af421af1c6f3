// Package secret holds values that cannot be printed.
//
// A [Bytes] is one value, a [Tree] is a whole secret: text, numbers, lists and maps of them.
// Both print [redacted] through fmt, log/slog, encoding/json and gopkg.in/yaml.v3, whatever
// the verb and however deep in another struct they sit. The bytes come out through Reveal
// alone, so a search for that word finds every place with a secret in plain text.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Bytes is a secret value. The zero Bytes is empty. A Bytes may be copied and used from
// several goroutines; its content is never changed.
//
// The content hides in a function because fmt reads unexported fields without asking their
// methods, and follows pointers there when a verb is wrong. It prints only the address of a
// function.
type Bytes struct {
	hidden
	reveal func() []byte
}

// New makes b a secret. The caller gives b away and must not change it.
func New(b []byte) Bytes { return Bytes{reveal: func() []byte { return b }} }

// Reveal returns the content. The caller must not change it.
func (b Bytes) Reveal() []byte {
	if b.reveal == nil {
		return nil
	}
	return b.reveal()
}

// Len is the length in bytes.
func (b Bytes) Len() int { return len(b.Reveal()) }

// hidden prints [redacted] in every format.
type hidden struct{}

// String hides the value from fmt and from concatenation.
func (hidden) String() string { return redacted }

// GoString hides the value from %#v.
func (hidden) GoString() string { return redacted }

// Format hides the value from every verb, known to fmt or not.
func (hidden) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue hides the value from log/slog.
func (hidden) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the value from text encodings.
func (hidden) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON hides the value from encoding/json.
func (hidden) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalYAML hides the value from gopkg.in/yaml.v3.
func (hidden) MarshalYAML() (any, error) { return redacted, nil }
