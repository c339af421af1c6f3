package form

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

const (
	// maxYAMLKey is the length up to which YAML finds a key without a mark. The limit is
	// 1024; \UXXXXXXXX is the longest way to write a byte.
	maxYAMLKey = 100
)

// writeYAML writes v in block style, without a newline at the end. It is our own
// writer because a library's knows one version of YAML: a text in one version is a
// boolean, a number or a date in another.
func writeYAML(v any) ([]byte, error) {
	if err := checkUTF8(v, "yaml"); err != nil {
		return nil, err
	}
	var y yamlText
	if err := y.node(v, 0); err != nil {
		return nil, err
	}
	return []byte(y.b.String()), nil
}

type yamlText struct{ b strings.Builder }

// node writes v from the current column, which is indent. The indentation grows with the
// depth, of each line, so a long list far below could fill the memory: the text ends
// where no file is as long.
func (y *yamlText) node(v any, indent int) error {
	if y.b.Len() > maxText {
		return errTooLong
	}
	switch v := v.(type) {
	case map[string]any:
		return y.mapping(v, indent)
	case []any:
		return y.list(v, indent)
	default:
		return y.scalar(v)
	}
}

func (y *yamlText) mapping(m map[string]any, indent int) error {
	if len(m) == 0 {
		y.b.WriteString("{}")
	}
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			y.line(indent)
		}
		if len(key) > maxYAMLKey {
			y.b.WriteString("? ")
			y.text(key)
			y.line(indent)
		} else {
			y.text(key)
		}
		y.b.WriteByte(':')
		if isBlock(m[key]) {
			y.line(indent + 2)
		} else {
			y.b.WriteByte(' ')
		}
		if err := y.node(m[key], indent+2); err != nil {
			return err
		}
	}
	return nil
}

func (y *yamlText) list(list []any, indent int) error {
	if len(list) == 0 {
		y.b.WriteString("[]")
	}
	for i, e := range list {
		if i > 0 {
			y.line(indent)
		}
		y.b.WriteString("- ")
		if err := y.node(e, indent+2); err != nil {
			return err
		}
	}
	return nil
}

func (y *yamlText) line(indent int) {
	y.b.WriteByte('\n')
	y.b.WriteString(strings.Repeat(" ", indent))
}

// isBlock tells whether v begins on a line of its own.
func isBlock(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) > 0
	case []any:
		return len(v) > 0
	}
	return false
}

func (y *yamlText) scalar(v any) error {
	switch v := v.(type) {
	case nil:
		y.b.WriteString("null")
	case string:
		y.text(v)
	case json.Number:
		y.b.WriteString(string(v))
	case bool, int, int64, float64:
		fmt.Fprint(&y.b, v)
	default:
		return errors.New("cannot be written as yaml")
	}
	return nil
}

// text writes s as it is if all readers take it for a text, else in double quotes.
func (y *yamlText) text(s string) {
	if isPlain(s) {
		y.b.WriteString(s)
		return
	}
	y.b.WriteByte('"')
	for _, r := range s {
		y.rune(r)
	}
	y.b.WriteByte('"')
}

func (y *yamlText) rune(r rune) {
	switch {
	case r == '"' || r == '\\':
		y.b.WriteByte('\\')
		y.b.WriteRune(r)
	case r == '\n':
		y.b.WriteString(`\n`)
	case unicode.IsPrint(r):
		y.b.WriteRune(r)
	case r > 0xffff:
		fmt.Fprintf(&y.b, `\U%08X`, r)
	default:
		fmt.Fprintf(&y.b, `\u%04X`, r)
	}
}

// isPlain tells a letter, then letters, digits and a little more, and no word that
// some version of YAML reads as a boolean, null or number.
func isPlain(s string) bool {
	words := []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nil", "none", "inf", "nan", "infinity"}
	if s == "" || slices.Contains(words, strings.ToLower(s)) {
		return false
	}
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789_-./", rune(c))) {
			return false
		}
	}
	return true
}
