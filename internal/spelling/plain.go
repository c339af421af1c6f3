package spelling

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mostQuoted is how much of a text a message of [Plain] or [Unspaced] shows: the longest name
// of a Kubernetes object.
const mostQuoted = 253

// Plain is the rule for every text that becomes a name, a path, a header or part of a
// message: UTF-8 of characters that can be seen. Others make two names look alike, split a
// line in two, or turn the rest of it around.
func Plain(text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%q is not UTF-8", Cut(text, mostQuoted))
	}
	for _, r := range text {
		if !IsPlain(r) {
			return fmt.Errorf("%q holds %s; no name has control, invisible or bidirectional characters", Cut(text, mostQuoted), Rune(r))
		}
	}
	return nil
}

// Unspaced is the rule for names that a person writes: none between slashes begins or ends
// with a space, since it would look like another, or like none.
func Unspaced(text string) error {
	for name := range strings.SplitSeq(text, "/") {
		if strings.Trim(name, " ") != name {
			return fmt.Errorf("%q has a space at an end of a name; remove it", Visible(Cut(text, mostQuoted)))
		}
	}
	return nil
}

// IsPlain tells the characters that can be seen, and the space. U+FFFD is none: decoders
// put it where bytes were lost.
func IsPlain(r rune) bool {
	const brailleBlank = '\u2800'
	return unicode.IsPrint(r) && r != unicode.ReplacementChar && r != brailleBlank &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// Rune quotes a character for a message, in ASCII where it cannot be seen.
func Rune(r rune) string {
	if IsPlain(r) {
		return strconv.QuoteRune(r)
	}
	return strconv.QuoteRuneToASCII(r)
}

// Visible writes out what is not plain: a line break becomes \n.
func Visible(text string) string {
	if Plain(text) == nil {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch lost := r == utf8.RuneError; {
		case lost && !strings.HasPrefix(text[i:], string(r)):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case IsPlain(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// CutName is a name cut to the length that a Kubernetes object's may have: a message stays
// readable, however long a key of a secret or what an author wrote as a name is.
func CutName(name string) string {
	const longest = 253
	return Cut(name, longest)
}

// Cut is a text of at most so many bytes, and dots in place of the rest: a message stays
// readable.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}
