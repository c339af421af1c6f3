package bundle

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/surrogate"
)

// ParseValue reads one JSON value: a text in quotes, a number, true, false, null,
// a list or a map. Numbers stay as written; a map with a key twice is refused. The
// errors hold nothing of the value.
func ParseValue(data []byte) (secret.Tree, error) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return secret.Tree{}, errors.New("is not JSON; put quotes around a text, or leave out --json")
	}
	if surrogate.HasHalf(string(data)) {
		return secret.Tree{}, errors.New(halfRefused)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	value, err := nextValue(decoder)
	if err != nil {
		return secret.Tree{}, err
	}
	return secret.NewTree(value)
}

// nextValue reads token by token: encoding/json keeps silent about repeated keys. The
// JSON is known to be valid, and not too deep.
func nextValue(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, errors.New("is not JSON")
	}
	switch token {
	case json.Delim('['):
		list := []any{}
		for decoder.More() {
			value, err := nextValue(decoder)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := decoder.Token()
		return list, err
	case json.Delim('{'):
		return nextMap(decoder)
	default:
		return token, nil
	}
}

func nextMap(decoder *json.Decoder) (any, error) {
	values := make(map[string]any)
	for decoder.More() {
		token, err := decoder.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return nil, errors.New("is not JSON")
		}
		if _, twice := values[key]; twice { // the error has no key, a part of the value
			return nil, errors.New("has a key twice in one map")
		}
		if values[key], err = nextValue(decoder); err != nil {
			return nil, err
		}
	}
	_, err := decoder.Token()
	return values, err
}

// valueNode writes a value as [Parse] reads it back.
func valueNode(value any) *yaml.Node {
	switch v := value.(type) {
	case string:
		return textNode(v)
	case json.Number:
		return numberNode(string(v))
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(v)}
	case []any:
		node := &yaml.Node{Kind: yaml.SequenceNode}
		for _, e := range v {
			node.Content = append(node.Content, valueNode(e))
		}
		return node
	case map[string]any:
		node := &yaml.Node{Kind: yaml.MappingNode}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			node.Content = append(node.Content, textNode(key), valueNode(v[key]))
		}
		return node
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	}
}

func textNode(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	switch {
	case !utf8.ValidString(text):
		node.Tag, node.Value = "!!binary", base64.StdEncoding.EncodeToString([]byte(text))
	case isPlainBlock(text):
		node.Style = yaml.LiteralStyle
	case strings.Contains(text, "\n"), text == "<<": // which would be a merge key
		node.Style = yaml.DoubleQuotedStyle
	}
	return node
}

// numberNode keeps the number as written. YAML takes some numbers of JSON for
// texts, 1e400 for one, unless their tag says otherwise.
func numberNode(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	if tag := node.ShortTag(); tag != "!!int" && tag != "!!float" {
		node.Tag = "!!float"
	}
	return node
}
