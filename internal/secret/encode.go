package secret

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// AppendJSON appends to text the JSON of a value for [NewTree], of which [Decode] makes the
// same value again. Anything else becomes null. The members of a map have no order.
func AppendJSON(text []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return appendQuoted(text, v)
	case json.Number:
		return append(text, v...)
	case bool:
		return strconv.AppendBool(text, v)
	case []any:
		text = append(text, '[')
		for i, e := range v {
			if i > 0 {
				text = append(text, ',')
			}
			text = AppendJSON(text, e)
		}
		return append(text, ']')
	case map[string]any:
		text = append(text, '{')
		first := true
		for name, e := range v {
			if !first {
				text = append(text, ',')
			}
			first = false
			text = AppendJSON(append(appendQuoted(text, name), ':'), e)
		}
		return append(text, '}')
	}
	return append(text, "null"...)
}

// appendQuoted escapes what a text in quotes cannot hold.
func appendQuoted(to []byte, text string) []byte {
	to = append(to, '"')
	for _, c := range []byte(text) {
		switch {
		case c == '"', c == '\\':
			to = append(to, '\\', c)
		case c < ' ':
			to = fmt.Appendf(to, `\u%04x`, c)
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}
