// Package surrogate reads the escapes of characters that JSON writes in two halves:
// \ud83d\ude00 is one character. Parsers of YAML know no halves and refuse them, and
// encoding/json replaces a half alone without a word.
//
// [Hide] lets a parser of YAML see a text without them, and [Hidden.Restore] puts the
// characters into the parsed nodes, or the same text again where it was no escape. [JSON]
// reads a text that is all JSON without a parser of YAML.
package surrogate

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"

	"gopkg.in/yaml.v3"
)

// escapes are both halves, or one alone, behind a backslash that may be escaped itself.
var escapes = regexp.MustCompile(`\\+u([dD][89abAB][[:xdigit:]]{2}(?:\\u[dD][c-fC-F][[:xdigit:]]{2})?|[dD][c-fC-F][[:xdigit:]]{2})`)

// HasHalf tells whether JSON has an escape of half a character, such as \ud83d, without
// the other half.
func HasHalf(text string) bool {
	for _, found := range escapes.FindAllString(text, -1) {
		if escape := unescaped(found); escape != "" && !isPair(escape) {
			return true
		}
	}
	return false
}

// unescaped is a match less the backslashes in front that escape one another; empty where
// they escape the last one, too.
func unescaped(found string) string {
	backslashes := strings.IndexByte(found, 'u')
	if backslashes%2 == 0 {
		return ""
	}
	return found[backslashes-1:]
}

func isPair(escape string) bool { return strings.Count(escape, `\u`) == 2 }

// Hidden is a text whose escapes of halves have marks in their place.
type Hidden struct {
	Text []byte
	mark string // around each hidden escape; empty where nothing is hidden
}

// Hide is made for text that may be YAML.
func Hide(text []byte) Hidden {
	if !escapes.Match(text) {
		return Hidden{Text: text}
	}
	h := Hidden{mark: markFor(text)}
	h.Text = escapes.ReplaceAllFunc(text, func(found []byte) []byte {
		escape := unescaped(string(found))
		if escape == "" {
			return found
		}
		before := found[: len(found)-len(escape) : len(found)-len(escape)]
		return append(before, h.mark+strings.ReplaceAll(escape, `\u`, "u")+h.mark...)
	})
	return h
}

// markFor is a word that a text does not hold: no author can write a text that holds its
// own hash.
func markFor(text []byte) string {
	sum := sha256.Sum256(text)
	return "x" + hex.EncodeToString(sum[:16]) + "x"
}

// Restore goes through a node that was parsed of Text, and returns the nodes that have
// half a character without the other half.
func (h Hidden) Restore(root *yaml.Node) map[*yaml.Node]bool {
	if h.mark == "" {
		return nil
	}
	halves := map[*yaml.Node]bool{}
	marks := regexp.MustCompile(h.mark + `(?:u[[:xdigit:]]{4}){1,2}` + h.mark)
	for nodes := []*yaml.Node{root}; len(nodes) > 0; {
		n := nodes[len(nodes)-1]
		nodes = append(nodes[:len(nodes)-1], n.Content...)
		for _, text := range []*string{&n.Value, &n.HeadComment, &n.LineComment, &n.FootComment} {
			*text = marks.ReplaceAllStringFunc(*text, func(found string) string {
				escape := strings.ReplaceAll(found[len(h.mark):len(found)-len(h.mark)], "u", `\u`)
				switch {
				case n.Style&yaml.DoubleQuotedStyle == 0 || text != &n.Value: // no escape there
					return escape
				case isPair(escape):
					return character(escape)
				}
				halves[n] = true
				return escape
			})
		}
	}
	return halves
}

// character is the one of both halves.
func character(pair string) string {
	const digits = 6 // \ud83d
	high, _ := strconv.ParseUint(pair[2:digits], 16, 16)
	low, _ := strconv.ParseUint(pair[digits+2:], 16, 16)
	return string(utf16.DecodeRune(rune(high), rune(low)))
}
