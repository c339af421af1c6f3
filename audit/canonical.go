package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	// maxLine keeps a record in one piece: collectors split lines at 16 KiB.
	maxLine = 15 << 10
	// maxDepth is more than a record has, and less than a parser's stack fears.
	maxDepth = 16
	// maxNumber is beyond the integers that every JSON parser keeps as they are.
	maxNumber = 1 << 53
)

// Canonical returns the one spelling of a record, whatever a collector made of its JSON:
// that of RFC 8785 for texts, whole numbers below 2^53, true, false, lists and objects with
// ASCII names. Anything else is no record. A text that is canonical is returned as it is.
func Canonical(text []byte) ([]byte, error) {
	if isCanonical(text) {
		return text, nil
	}
	return canonicalSlow(text)
}

// canonicalSlow is for what a collector has made of a record.
func canonicalSlow(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	out, err := appendNext(make([]byte, 0, len(text)), d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one JSON value")
	}
	if !utf8.Valid(text) {
		return nil, errors.New("is not UTF-8")
	}
	return out, nil
}

// appendNext appends the next value of d.
func appendNext(out []byte, d *json.Decoder, depth int) ([]byte, error) {
	token, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("is no JSON: %w", err)
	}
	if depth > maxDepth {
		return nil, errors.New("is nested deeper than a record")
	}
	switch token := token.(type) {
	case json.Delim:
		if token == '{' {
			return appendObject(out, d, depth)
		}
		return appendList(out, d, depth)
	case string:
		return appendText(out, token), nil
	case bool:
		return strconv.AppendBool(out, token), nil
	case json.Number:
		return appendNumber(out, token)
	default:
		return nil, errors.New("holds null, which no record does")
	}
}

// appendNumber takes a collector's 12.0 and 1.2e1 for the 12 that they are.
func appendNumber(out []byte, number json.Number) ([]byte, error) {
	if n, err := number.Int64(); err == nil && -maxNumber < n && n < maxNumber {
		return strconv.AppendInt(out, n, 10), nil
	}
	f, err := number.Float64()
	if err != nil || f <= -maxNumber || f >= maxNumber || f != float64(int64(f)) {
		return nil, fmt.Errorf("holds the number %.40s, which no record does", number)
	}
	return strconv.AppendInt(out, int64(f), 10), nil
}

func appendList(out []byte, d *json.Decoder, depth int) ([]byte, error) {
	out = append(out, '[')
	for n := 0; d.More(); n++ {
		if n > 0 {
			out = append(out, ',')
		}
		var err error
		if out, err = appendNext(out, d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return append(out, ']'), err
}

func appendObject(out []byte, d *json.Decoder, depth int) ([]byte, error) {
	members := map[string][]byte{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("is no JSON: %w", err)
		}
		name, _ := token.(string) // or the Decoder had failed
		if !isName([]byte(name)) {
			return nil, fmt.Errorf("has the name %.40q, which no record has", name)
		}
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("has %.40q twice", name)
		}
		if members[name], err = appendNext(nil, d, depth+1); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("is no JSON: %w", err)
	}
	out = append(out, '{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(appendText(out, name), ':'), members[name]...)
	}
	return append(out, '}'), nil
}

// isName tells whether names sort alike by bytes and, as RFC 8785 has it, by UTF-16.
func isName(name []byte) bool {
	for _, c := range name {
		if c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789abcdef"

// appendText quotes a text, with the escapes of RFC 8785 and no others.
func appendText(out []byte, text string) []byte {
	out = append(out, '"')
	for _, r := range text { // what is no UTF-8 becomes U+FFFD
		if short := shortEscape(r); short != 0 {
			out = append(out, '\\', short)
		} else if r < ' ' {
			out = append(out, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&0xf])
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return append(out, '"')
}

// shortEscape is the character behind the backslash; 0 where there is none.
func shortEscape(r rune) byte {
	switch r {
	case '"', '\\':
		return byte(r)
	case '\b':
		return 'b'
	case '\t':
		return 't'
	case '\n':
		return 'n'
	case '\f':
		return 'f'
	case '\r':
		return 'r'
	default:
		return 0
	}
}

// isCanonical tells whether a text is canonical, in one look at each byte and without any
// memory: almost every record is, and millions are verified. False may also mean that it is
// no record.
func isCanonical(text []byte) bool {
	s := scanner{rest: text}
	return s.value(0) && len(s.rest) == 0 && utf8.Valid(text)
}

// scanner takes canonical JSON off the front of rest.
type scanner struct{ rest []byte }

func (s *scanner) take(b byte) bool {
	if len(s.rest) == 0 || s.rest[0] != b {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scanner) word(word string) bool {
	if !bytes.HasPrefix(s.rest, []byte(word)) {
		return false
	}
	s.rest = s.rest[len(word):]
	return true
}

func (s *scanner) value(depth int) bool {
	if len(s.rest) == 0 || depth > maxDepth {
		return false
	}
	switch s.rest[0] {
	case '{':
		return s.object(depth, nil)
	case '[':
		return s.list(depth)
	case '"':
		_, ok := s.text()
		return ok
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	default:
		return s.number()
	}
}

func (s *scanner) list(depth int) bool {
	s.take('[')
	if s.take(']') {
		return true
	}
	for s.value(depth + 1) {
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
	return false
}

// object takes an object, and hands each of its members out; nil takes them alone.
func (s *scanner) object(depth int, each func(name, value []byte)) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	var before []byte
	for first := true; ; first = false {
		name, ok := s.text()
		if !ok || !isName(name) || !first && bytes.Compare(before, name) >= 0 || !s.take(':') {
			return false
		}
		from := s.rest
		if !s.value(depth + 1) {
			return false
		}
		if each != nil {
			each(name, from[:len(from)-len(s.rest)])
		}
		before = name
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// text is what stands between the quotes.
func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	for i := 0; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			text := s.rest[:i]
			s.rest = s.rest[i+1:]
			return text, true
		case c == '\\':
			n := escape(s.rest[i:])
			if n == 0 {
				return nil, false
			}
			i += n - 1
		case c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// escape is the length of a canonical escape at the front of text; 0 for any other.
func escape(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	if bytes.IndexByte([]byte(`"\btnfr`), text[1]) >= 0 {
		return 2
	}
	const long = len(`\u0000`)
	if len(text) < long || string(text[1:4]) != "u00" || text[4] > '1' || text[4] < '0' {
		return 0
	}
	low := bytes.IndexByte([]byte(hexDigits), text[5])
	if low < 0 || shortEscape(rune(text[4]-'0')<<4|rune(low)) != 0 { //nolint:gosec // G115: below 16
		return 0
	}
	return long
}

func (s *scanner) number() bool {
	digits := 0
	negative := s.take('-')
	for digits < len(s.rest) && '0' <= s.rest[digits] && s.rest[digits] <= '9' {
		digits++
	}
	const surely = 15 // digits below 2^53
	if digits == 0 || digits > surely || s.rest[0] == '0' && (digits > 1 || negative) {
		return false
	}
	s.rest = s.rest[digits:]
	return true
}
