package store

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPath is more than any store allows, and keeps messages readable.
const maxPath = 1024

// Path is the place of a secret in a store: segments with a slash between them,
// in the one spelling that access rules are judged on. Only [ParsePath] makes one.
type Path struct{ text string }

// ParsePath accepts non-empty segments without ".", "..", "%", "?", "#", a
// backslash or characters that do not print, and no slash at either end. There
// is no cleaning up: what would need it could slip past a rule.
func ParsePath(text string) (Path, error) {
	if text == "" {
		return Path{}, errors.New("is empty")
	}
	if len(text) > maxPath {
		return Path{}, fmt.Errorf("%d bytes are more than a path may have (%d)", len(text), maxPath)
	}
	if !utf8.ValidString(text) {
		return Path{}, errors.New("is not UTF-8")
	}
	for _, r := range text {
		if NotInPaths(r) {
			return Path{}, fmt.Errorf("%q holds %q; a path has no %%, ?, #, backslash or invisible characters", text, r)
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
func NotInPaths(r rune) bool { return strings.ContainsRune(`%?#\`, r) || !unicode.IsPrint(r) }

// String is the path as it was written.
func (p Path) String() string { return p.text }

// Segments are the names between the slashes.
func (p Path) Segments() []string { return strings.Split(p.text, "/") }
