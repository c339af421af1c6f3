package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// errNoField is that of a line which a collector took from elsewhere.
var errNoField = errors.New("has no field")

// unwrap takes a record out of the object that a collector has put it into.
func (f Form) unwrap(text []byte) ([]byte, error) {
	if f.Field == "" {
		return text, nil
	}
	if !utf8.Valid(text) { // or the characters that are none would become others
		return nil, errors.New("is not UTF-8")
	}
	value, err := field(text, f.Field)
	if err != nil {
		return nil, err
	}
	if len(value) == 0 || value[0] != '"' {
		return value, nil
	}
	var line string
	if err := json.Unmarshal(value, &line); err != nil {
		return nil, fmt.Errorf("field %s is no text: %w", f.Field, err)
	}
	return []byte(strings.TrimRight(line, "\r\n")), nil
}

// field is the value of a dotted name. A name may hold dots itself.
func field(text []byte, name string) ([]byte, error) {
	value, err := member(text, name)
	if err == nil || !errors.Is(err, errNoField) {
		return value, err
	}
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		inner, err := member(text, name[:i])
		if err != nil {
			continue
		}
		if value, err := field(inner, name[i+1:]); err == nil {
			return value, nil
		}
	}
	return nil, fmt.Errorf("%w %s; --field names the one with the record", errNoField, name)
}

// member is the value of one name of an object. One that is there twice is neither of both:
// readers do not agree on which of them counts.
func member(text []byte, name string) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("is no JSON object")
	}
	var value json.RawMessage
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("is no JSON: %w", err)
		}
		var one json.RawMessage
		if err := d.Decode(&one); err != nil {
			return nil, fmt.Errorf("is no JSON: %w", err)
		}
		if token != name {
			continue
		}
		if value != nil {
			return nil, fmt.Errorf("has the field %s twice", name)
		}
		value = one
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("is no JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one JSON value")
	}
	if value == nil {
		return nil, fmt.Errorf("%w %s", errNoField, name)
	}
	return value, nil
}

// isHalf tells whether a text is the front of an object that goes on.
func isHalf(text []byte) bool {
	var whole json.RawMessage
	err := json.NewDecoder(bytes.NewReader(text)).Decode(&whole)
	return len(text) > 0 && text[0] == '{' && errors.Is(err, io.ErrUnexpectedEOF)
}
