package form

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/keymount/keymount/internal/surrogate"
)

// fromJSON reads a text that is JSON. Numbers stay as they are written; of a key that is
// there twice the last one counts, as in Sprig's.
func (e *execution) fromJSON(v any) (any, error) {
	const perPart = 64 // an interface, and the allocation behind it
	if v == nil {
		return nil, nil
	}
	text, err := e.text(v)
	if err != nil {
		return nil, err
	}
	parts := 1
	for _, mark := range []string{",", ":", "[", "{"} {
		parts += strings.Count(text, mark)
	}
	if err := e.charge(len(text) + perPart*parts); err != nil {
		return nil, err
	}
	if !utf8.ValidString(text) || surrogate.HasHalf(text) {
		return nil, faultf("fromJson takes a text that is JSON, and this is not Unicode")
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	value, err := nextValue(decoder, maxNesting)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotJSON()
	}
	return value, nil
}

func errNotJSON() error { return faultf("fromJson takes a text that is JSON, and this is none") }

// nextValue reads token by token, so that too deep a nesting ends there. The error
// of encoding/json may quote the text: it is left out.
func nextValue(decoder *json.Decoder, deeper int) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, errNotJSON()
	}
	if _, opens := token.(json.Delim); !opens {
		return token, nil
	}
	if deeper == 0 {
		return nil, faultf("fromJson: nested more than %d deep", maxNesting)
	}
	if token == json.Delim('[') {
		return nextList(decoder, deeper)
	}
	return nextMap(decoder, deeper)
}

func nextList(decoder *json.Decoder, deeper int) (any, error) {
	list := []any{}
	for decoder.More() {
		value, err := nextValue(decoder, deeper-1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, closed(decoder)
}

func nextMap(decoder *json.Decoder, deeper int) (any, error) {
	values := map[string]any{}
	for decoder.More() {
		key, err := decoder.Token()
		name, isText := key.(string)
		if err != nil || !isText {
			return nil, errNotJSON()
		}
		if values[name], err = nextValue(decoder, deeper-1); err != nil {
			return nil, err
		}
	}
	return values, closed(decoder)
}

// closed reads the bracket at the end.
func closed(decoder *json.Decoder) error {
	if _, err := decoder.Token(); err != nil {
		return errNotJSON()
	}
	return nil
}
