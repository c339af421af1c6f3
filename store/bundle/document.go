package bundle

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/strict"
	"github.com/keymount/keymount/internal/surrogate"
	"github.com/keymount/keymount/store"
)

// MaxPlaintext is the size in bytes of the largest document.
const MaxPlaintext = 4 << 20

// mostMistakes bounds one error: a document of the wrong kind has thousands.
const mostMistakes = 20

// Document is the content of a bundle: a secret for each path. The zero Document
// holds none. It may be shared and used from several goroutines.
type Document struct{ secrets map[string]secret.Tree }

// Get returns the secret at path.
func (d Document) Get(path store.Path) (secret.Tree, bool) {
	tree, ok := d.secrets[path.String()]
	return tree, ok
}

// Paths lists the paths that hold a secret, sorted.
func (d Document) Paths() []string { return slices.Sorted(maps.Keys(d.secrets)) }

// Parse reads a document: one YAML map of paths to maps of keys to values.
//
//	shop/db:
//	  username: shop
//	  password: "0123"
//
// Numbers stay as written (1.10 stays 1.10), timestamps and keys are texts, a
// !!binary is decoded. A document that is JSON is read as JSON. Anchors, aliases, merge keys and repeated keys are refused. The
// error has every mistake with its line (the first twenty) and no value.
func Parse(data []byte) (Document, error) {
	if len(data) > MaxPlaintext {
		return Document{}, errTooLarge
	}
	root, halves, err := decode(data)
	if err != nil {
		return Document{}, err
	}
	p := parser{halves: halves}
	secrets := p.document(root.Content[0])
	if err := p.err(); err != nil {
		return Document{}, err
	}
	return Document{secrets}, nil
}

var (
	errEmpty    = errors.New("is empty; it is a map of paths to maps of keys to values")
	errTooLarge = fmt.Errorf("holds more than %d MiB; split it into several bundles, each a store of its own", MaxPlaintext>>20)
)

// decode returns the one document in data, JSON or YAML, a node with one node inside, and the
// nodes in it that hold half of a character, as JSON can have it.
func decode(data []byte) (*yaml.Node, map[*yaml.Node]bool, error) {
	if document, halves := surrogate.JSON(data); document != nil {
		return document, halves, nil
	}
	hidden := surrogate.Hide(data)
	decoder := yaml.NewDecoder(bytes.NewReader(hidden.Text))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, nil, errEmpty
	case err != nil:
		return nil, nil, syntaxMistake(data, err)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, nil, fmt.Errorf("line %d: a second YAML document; a bundle is one, remove the --- between them", second.Line)
	case !errors.Is(err, io.EOF):
		return nil, nil, syntaxMistake(data, err)
	}
	return &first, hidden.Restore(&first), nil
}

// syntaxMistake keeps only the place of err: the text of yaml.v3 may quote a value.
func syntaxMistake(data []byte, err error) error {
	line, err := strict.SyntaxUnquoted(data, err)
	switch {
	case line == 0:
		return err
	case errors.Is(err, strict.ErrAlias):
		return fmt.Errorf("line %d: %w", line, err)
	}
	return fmt.Errorf("near line %d: %w", line, err)
}

const (
	anchorRefused = "anchors (&) are refused; write the value out, or quote a text that starts with &"
	halfRefused   = `holds half of a character, such as \ud83d without \ude00; write both halves, or the character itself`
	tagRefused    = "unknown tag; quote a text that starts with an exclamation mark"
)

// parser turns nodes into values and collects their mistakes.
type parser struct {
	halves   map[*yaml.Node]bool
	at       []string // the path, then the keys down to the current value
	mistakes []error
}

func (p *parser) err() error {
	if more := len(p.mistakes) - mostMistakes; more > 0 {
		return errors.Join(append(p.mistakes[:mostMistakes:mostMistakes], fmt.Errorf("and %d more mistakes", more))...)
	}
	return errors.Join(p.mistakes...)
}

func (p *parser) mistake(n *yaml.Node, format string, args ...any) {
	place := ""
	if len(p.at) > 0 {
		place = fmt.Sprintf("%q: ", p.at[0])
	}
	if len(p.at) > 1 {
		place += fmt.Sprintf("%q: ", strings.Join(p.at[1:], "."))
	}
	p.mistakes = append(p.mistakes, fmt.Errorf("line %d: %s%s", n.Line, place, fmt.Sprintf(format, args...)))
}

// in calls f with name as the current place.
func (p *parser) in(name string, f func()) {
	p.at = append(p.at, name)
	f()
	p.at = p.at[:len(p.at)-1]
}

func (p *parser) document(root *yaml.Node) map[string]secret.Tree {
	secrets := make(map[string]secret.Tree)
	switch {
	case !p.allowed(root):
	case root.Kind == yaml.MappingNode && len(root.Content) > 0:
		p.entries(root, func(path string, key, value *yaml.Node) { p.secret(secrets, path, key, value) })
	case root.Kind == yaml.MappingNode, root.ShortTag() == "!!null":
		p.mistakes = append(p.mistakes, errEmpty)
	default:
		p.mistake(root, "a bundle is a map of paths to maps of keys to values")
	}
	return secrets
}

// secret adds the secret under one path.
func (p *parser) secret(secrets map[string]secret.Tree, path string, key, value *yaml.Node) {
	if _, err := store.ParsePath(path); err != nil {
		p.mistake(key, "path %v", err)
	}
	p.in(path, func() {
		if !p.allowed(value) {
			return
		}
		if value.Kind != yaml.MappingNode {
			p.mistake(key, "is not a map of keys to values")
			return
		}
		tree, err := secret.NewTree(p.value(value))
		if err != nil {
			p.mistake(key, "%v", err)
		}
		secrets[path] = tree
	})
}

// entries calls f for every entry of a map with a good key, and notes the other keys as
// mistakes.
func (p *parser) entries(node *yaml.Node, f func(name string, key, value *yaml.Node)) {
	lines := make(map[string]int)
	for pair := range slices.Chunk(node.Content, 2) {
		key, value := pair[0], pair[1]
		switch first, twice := lines[key.Value]; {
		case !p.allowed(key):
		case key.Kind != yaml.ScalarNode:
			p.mistake(key, "a key is a text, not a list or a map; quote a text that starts with a bracket")
		case key.ShortTag() == "!!merge":
			p.mistake(key, "merge keys (<<) are refused; write the keys out")
		case twice:
			p.mistake(key, "%q is there twice, first on line %d", key.Value, first)
		default:
			lines[key.Value] = key.Line
			f(key.Value, key, value)
		}
	}
}

// allowed refuses YAML that a plain document does not need and that could make a value
// differ from its text in the file.
func (p *parser) allowed(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		p.mistake(n, "%s", strict.ErrAlias)
	case n.Anchor != "":
		p.mistake(n, anchorRefused)
	case p.halves[n]:
		p.mistake(n, halfRefused)
	case !knownTag(n):
		p.mistake(n, tagRefused)
	default:
		return true
	}
	return false
}

func knownTag(n *yaml.Node) bool {
	known := []string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!binary", "!!timestamp", "!!merge"}
	if n.Kind == yaml.MappingNode {
		known = []string{"!!map"}
	}
	if n.Kind == yaml.SequenceNode {
		known = []string{"!!seq"}
	}
	return slices.Contains(known, n.ShortTag())
}

// value returns the content of the node as [secret.NewTree] takes it.
func (p *parser) value(n *yaml.Node) any {
	switch {
	case !p.allowed(n):
		return nil
	case n.Kind == yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, e := range n.Content {
			p.in(strconv.Itoa(i), func() { list[i] = p.value(e) })
		}
		return list
	case n.Kind == yaml.MappingNode:
		values := make(map[string]any, len(n.Content)/2)
		p.entries(n, func(name string, _, value *yaml.Node) {
			p.in(name, func() { values[name] = p.value(value) })
		})
		return values
	default:
		return p.scalar(n)
	}
}

func (p *parser) scalar(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		if n.Value != "" && n.Value != "~" && !strings.EqualFold(n.Value, "null") {
			p.mistake(n, "is tagged !!null and is not null")
		}
		return nil
	case "!!bool":
		if !strings.EqualFold(n.Value, "true") && !strings.EqualFold(n.Value, "false") {
			p.mistake(n, "is tagged !!bool and is neither true nor false")
		}
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		if isJSONNumber(n.Value) {
			return json.Number(n.Value)
		}
	case "!!binary":
		text, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil {
			p.mistake(n, "is tagged !!binary and is not base64")
		}
		return string(text)
	}
	return n.Value
}

// isJSONNumber tells numbers from other valid JSON by their first and last byte.
func isJSONNumber(text string) bool {
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	return text != "" && (text[0] == '-' || digit(text[0])) && digit(text[len(text)-1]) && json.Valid([]byte(text))
}
