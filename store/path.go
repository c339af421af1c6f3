package store

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/keymount/keymount/internal/spelling"
)

// MaxPath is how many bytes a path has at most: more than any store allows, and messages
// stay readable.
const MaxPath = 1024

// Path is the place of a secret in a store: segments separated by slashes, in the one
// spelling for access rules. Only [ParsePath] makes one.
type Path struct{ text string }

// ParsePath accepts non-empty segments without ".", "..", "%", "?", "#", a backslash or
// unprintable characters, and no slash at either end. It never cleans a path up: a path in
// need of that could slip past a rule.
func ParsePath(text string) (Path, error) {
	if text == "" {
		return Path{}, errors.New("is empty")
	}
	if len(text) > MaxPath {
		return Path{}, fmt.Errorf("%d bytes are more than a path may have (%d)", len(text), MaxPath)
	}
	if !utf8.ValidString(text) {
		return Path{}, errors.New("is not UTF-8")
	}
	for _, r := range text {
		if NotInPaths(r) {
			return Path{}, fmt.Errorf("%q holds %s; a path has no %%, ?, #, backslash or invisible characters", text, spelling.Rune(r))
		}
	}
	for segment := range strings.SplitSeq(text, "/") {
		switch segment {
		case "":
			return Path{}, fmt.Errorf("%q has an empty segment; write it without a slash at either end and without doubled slashes", text)
		case ".", "..":
			return Path{}, fmt.Errorf("%q has the segment %q; write the path out", text, segment)
		}
	}
	return Path{text}, nil
}

// NotInPaths tells whether a character never occurs in a path.
func NotInPaths(r rune) bool { return strings.ContainsRune(`%?#\`, r) || !spelling.IsPlain(r) }

// String is the path as written.
func (p Path) String() string { return p.text }

// Segments are the names between the slashes.
func (p Path) Segments() []string { return strings.Split(p.text, "/") }
