package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxNesting bounds the stack of Decode, as encoding/json bounds its own. A value that is
// less deep and too deep for a Tree is refused by [NewTree], which says where.
const maxNesting = 10_000

// errJSON quotes nothing of the text.
var errJSON = errors.New("no JSON value")

// Decode reads a JSON text into a value for [NewTree]. It accepts the same texts as
// encoding/json, and makes the same of them with numbers as json.Number: of several members
// with one name the last one counts, and bytes without a character become U+FFFD. Unlike
// encoding/json it reads the text once and makes no copy of it. The value keeps no part of
// the text, either. names is one text of all names that members often have, which are then
// parts of it and take no memory of their own; it may be empty.
func Decode(text []byte, names string) (any, error) {
	d := decoding{text: text, names: names}
	d.space()
	v := d.value()
	d.space()
	if d.failed || d.at < len(text) {
		return nil, errJSON
	}
	return v, nil
}

// decoding is a text and how far it is read. After a fault there is nothing more to read.
type decoding struct {
	text   []byte
	names  string
	at     int
	depth  int
	failed bool
}

func (d *decoding) fail() { d.failed, d.at = true, len(d.text) }

// next is the next byte; at the end it is one that no part of JSON begins with.
func (d *decoding) next() byte {
	if d.at < len(d.text) {
		return d.text[d.at]
	}
	return 0
}

func (d *decoding) space() {
	for c := d.next(); c == ' ' || c == '\n' || c == '\r' || c == '\t'; c = d.next() {
		d.at++
	}
}

// take reads c and the space around it, if c comes next.
func (d *decoding) take(c byte) bool {
	d.space()
	if d.next() != c {
		return false
	}
	d.at++
	d.space()
	return true
}

func (d *decoding) value() (v any) {
	switch c := d.next(); c {
	case '{', '[':
		if d.depth++; d.depth > maxNesting {
			d.fail()
			return nil
		}
		d.take(c)
		if c == '{' {
			v = d.object()
		} else {
			v = d.list()
		}
		d.depth--
		return v
	case '"':
		return d.string()
	case 't':
		return d.word("true", true)
	case 'f':
		return d.word("false", false)
	case 'n':
		return d.word("null", nil)
	}
	return d.number()
}

// object reads a map behind its brace.
func (d *decoding) object() map[string]any {
	members := map[string]any{}
	for more := !d.take('}'); more && !d.failed; more = d.more('}') {
		name := d.name()
		if !d.take(':') {
			d.fail()
		}
		members[name] = d.value()
	}
	return members
}

// name reads the name of a member.
func (d *decoding) name() string {
	written := d.quoted()
	const longest = 20 // a longer one would be copied for the search
	if len(written) <= longest {
		if at := strings.Index(d.names, string(written)); at >= 0 {
			return d.names[at : at+len(written)]
		}
	}
	return d.unquoted(written)
}

// list reads a list behind its bracket.
func (d *decoding) list() []any {
	list := []any{}
	for more := !d.take(']'); more && !d.failed; more = d.more(']') {
		list = append(list, d.value())
	}
	return list
}

// more reads what is behind a value of a list or a map: its end, or a comma and more.
func (d *decoding) more(end byte) bool {
	if d.take(end) {
		return false
	}
	if !d.take(',') {
		d.fail()
	}
	return true
}

func (d *decoding) word(word string, value any) any {
	if !bytes.HasPrefix(d.text[d.at:], []byte(word)) {
		d.fail()
		return nil
	}
	d.at += len(word)
	return value
}

func (d *decoding) number() any {
	length := numberAt(d.text[d.at:])
	if length == 0 {
		d.fail()
		return nil
	}
	d.at += length
	return json.Number(d.text[d.at-length : d.at])
}

// numberAt is the length of the number that a text begins with; 0 without one.
func numberAt[T []byte | string](text T) int {
	i := 0
	if i < len(text) && text[i] == '-' {
		i++
	}
	digits := digitsAt(text[i:])
	if digits > 0 && text[i] == '0' {
		digits = 1
	}
	i += digits
	if digits > 0 && i < len(text) && text[i] == '.' {
		digits = digitsAt(text[i+1:])
		i += 1 + digits
	}
	if digits > 0 && i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		if i++; i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		digits = digitsAt(text[i:])
		i += digits
	}
	if digits == 0 {
		return 0
	}
	return i
}

func digitsAt[T []byte | string](text T) int {
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	return n
}

func (d *decoding) string() string { return d.unquoted(d.quoted()) }

// quoted reads a text in quotes, and returns it as it is written.
func (d *decoding) quoted() []byte {
	if d.next() != '"' {
		d.fail()
		return nil
	}
	begin := d.at + 1
	end := endOfText(d.text, begin)
	written := d.text[begin:end]
	d.at = end + 1
	if end == len(d.text) || hasControl(written) {
		d.fail()
		return nil
	}
	return written
}

// unquoted is the text that is written so. Most hold no escape and only characters, and are
// the text as it stands.
func (d *decoding) unquoted(written []byte) string {
	if bytes.IndexByte(written, '\\') < 0 && utf8.Valid(written) {
		return string(written)
	}
	return d.unescaped(written)
}

// hasControl finds the bytes that stand in a text only as escapes.
func hasControl(text []byte) bool {
	for _, c := range text {
		if c < ' ' {
			return true
		}
	}
	return false
}

func (d *decoding) unescaped(written []byte) string {
	var text strings.Builder
	text.Grow(len(written))
	for len(written) > 0 {
		plain, escaped, _ := bytes.Cut(written, []byte{'\\'})
		writeCharacters(&text, plain)
		if len(plain) == len(written) {
			break
		}
		length := writeEscaped(&text, escaped)
		if length == 0 {
			d.fail()
			return ""
		}
		written = escaped[length:]
	}
	if spare := text.Cap() - text.Len(); spare > text.Len()/8 { // which the value would hold
		return strings.Clone(text.String())
	}
	return text.String()
}

// writeCharacters writes a text without escapes.
func writeCharacters(to *strings.Builder, text []byte) {
	if utf8.Valid(text) {
		to.Write(text)
		return
	}
	for _, r := range string(text) { // U+FFFD for each byte that is none
		to.WriteRune(r)
	}
}

// writeEscaped writes the character of an escape behind its backslash, and returns how long
// that is; 0 for what is no escape. Half a character without the other half becomes U+FFFD.
func writeEscaped(to *strings.Builder, text []byte) (length int) {
	if i := strings.IndexByte(`"\/bfnrt`, text[0]); i >= 0 {
		to.WriteByte("\"\\/\b\f\n\r\t"[i])
		return 1
	}
	const one, both = len("uXXXX"), len(`uXXXX\uXXXX`)
	r, isHex := hexAt(text)
	if !isHex {
		return 0
	}
	if utf16.IsSurrogate(r) && len(text) >= both && text[one] == '\\' {
		other, _ := hexAt(text[one+1:])
		if whole := utf16.DecodeRune(r, other); whole != utf8.RuneError {
			to.WriteRune(whole)
			return both
		}
	}
	to.WriteRune(r) // U+FFFD for half a one
	return one
}

// hexAt reads uXXXX.
func hexAt(text []byte) (r rune, isHex bool) {
	const length = len("uXXXX")
	if len(text) < length || text[0] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[1:length]), 16, 16)
	return rune(n), err == nil
}
