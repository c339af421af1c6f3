package trial

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/internal/strict"
	"github.com/keymount/keymount/internal/surrogate"
	"github.com/keymount/keymount/store/kind"
)

const (
	// maxSecrets bounds a file of secrets, in bytes.
	maxSecrets = 4 << 20
	// storesKey is the key, alone at the top, above secrets of several stores by name.
	storesKey = "stores"
)

// Secrets are made-up secrets of a file:
//
//	secret/shop/db: {username: shop, password: made-up}
//	pki/ca_chain: "-----BEGIN CERTIFICATE-----..." # a path with a text for an answer
//
// They stand in for every store; where stores differ, each has its own below stores and its
// name.
type Secrets struct {
	file string
	all  []madeUp
	of   map[string][]madeUp // by store; nil where all is of every store
	line map[string]int      // of the stores' names
}

// madeUp is one secret, with its line.
type madeUp struct {
	line  int
	path  string
	value secret.Tree
}

// ParseSecrets reads a file of secrets, with its name for messages. The error has every
// mistake, each a [config.Mistake], and no value.
func ParseSecrets(file string, data []byte) (*Secrets, error) {
	p := secretsParser{file: file}
	s := &Secrets{file: file, line: map[string]int{}}
	root := p.document(data)
	if root == nil {
		return nil, errors.Join(p.mistakes...)
	}
	if len(root.Content) == 2 && root.Content[0].Value == storesKey {
		s.of = map[string][]madeUp{}
		p.each(root.Content[1], "a map of the names of stores to their secrets", func(name string, key, value *yaml.Node) {
			s.line[name], s.of[name] = key.Line, p.secrets(value)
		})
	} else {
		s.all = p.secrets(root)
	}
	if len(p.mistakes) > 0 {
		return nil, errors.Join(p.mistakes...)
	}
	return s, nil
}

// SecretsOf are those of every store, by path.
func SecretsOf(file string, secrets map[string]secret.Tree) *Secrets {
	s := &Secrets{file: file}
	for _, path := range slices.Sorted(maps.Keys(secrets)) {
		s.all = append(s.all, madeUp{0, path, secrets[path]})
	}
	return s
}

// secretsParser turns nodes into secrets and collects their mistakes.
type secretsParser struct {
	file     string
	halves   map[*yaml.Node]bool
	mistakes []error
}

func (p *secretsParser) mistake(line int, format string, args ...any) {
	p.mistakes = append(p.mistakes, config.Mistake{File: p.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// document is the map of the one document; nil and a mistake without one.
func (p *secretsParser) document(data []byte) *yaml.Node {
	if len(data) > maxSecrets {
		p.mistake(0, "has more than %d MiB", maxSecrets>>20)
		return nil
	}
	document, halves := surrogate.JSON(data)
	if document == nil {
		hidden := surrogate.Hide(data)
		decoder := yaml.NewDecoder(bytes.NewReader(hidden.Text))
		document = &yaml.Node{}
		switch err := decoder.Decode(document); {
		case errors.Is(err, io.EOF):
			p.mistake(0, "is empty; it is a map of paths to maps of keys to values")
			return nil
		case err != nil:
			line, err := strict.SyntaxUnquoted(hidden.Text, err)
			p.mistake(line, "%s", err)
			return nil
		}
		switch err := decoder.Decode(&yaml.Node{}); {
		case err == nil:
			p.mistake(0, "holds more than one YAML document; keep one")
			return nil
		case !errors.Is(err, io.EOF):
			line, err := strict.SyntaxUnquoted(hidden.Text, err)
			p.mistake(line, "%s", err)
			return nil
		}
		halves = hidden.Restore(document)
	}
	p.halves = halves
	root := document.Content[0]
	if root.Kind != yaml.MappingNode || len(root.Content) == 0 {
		p.mistake(root.Line, "is no map of paths to maps of keys to values; 'keymount render --print-values' writes one to begin with")
		return nil
	}
	return root
}

func (p *secretsParser) secrets(node *yaml.Node) []madeUp {
	var all []madeUp
	p.each(node, "a map of paths to maps of keys to values", func(path string, key, value *yaml.Node) {
		before := len(p.mistakes)
		if value.Kind == yaml.SequenceNode || value.Kind == yaml.ScalarNode && value.ShortTag() != "!!str" {
			p.mistake(value.Line, "%q: is no map of keys to values", path)
			return
		}
		tree, err := secret.NewTree(p.value(value))
		if err != nil {
			p.mistake(value.Line, "%q: %s", path, err)
		}
		if len(p.mistakes) == before {
			all = append(all, madeUp{key.Line, path, tree})
		}
	})
	return all
}

// each calls f for the entries of a map.
func (p *secretsParser) each(node *yaml.Node, form string, f func(name string, key, value *yaml.Node)) {
	if !p.allowed(node) {
		return
	}
	if node.Kind != yaml.MappingNode {
		p.mistake(node.Line, "is not %s", form)
		return
	}
	lines := map[string]int{}
	for pair := range slices.Chunk(node.Content, 2) {
		key, value := pair[0], pair[1]
		switch first, twice := lines[key.Value]; {
		case !p.allowed(key):
		case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge":
			p.mistake(key.Line, "a key is a plain text here")
		case twice:
			p.mistake(key.Line, "%q is there twice, first on line %d", key.Value, first)
		default:
			lines[key.Value] = key.Line
			f(key.Value, key, value)
		}
	}
}

// allowed refuses parts of YAML whose meaning differs between readers.
func (p *secretsParser) allowed(n *yaml.Node) bool {
	switch {
	case n.Anchor != "" || n.Kind == yaml.AliasNode:
		p.mistake(n.Line, "anchors (&) and aliases (*) are not read; write the value out, or quote a text that begins with & or *")
	case n.Style&yaml.TaggedStyle != 0: // which may be a value without its quotes
		p.mistake(n.Line, "tags (!) are not read; remove it, or quote a text that begins with an exclamation mark")
	case p.halves[n]:
		p.mistake(n.Line, `half of a character, such as \ud83d without \ude00; write both halves, or the character itself`)
	default:
		return true
	}
	return false
}

// value is the content of a node as [secret.NewTree] takes it. Numbers stay as written.
func (p *secretsParser) value(n *yaml.Node) any {
	switch {
	case !p.allowed(n):
		return nil
	case n.Kind == yaml.SequenceNode:
		all := make([]any, len(n.Content))
		for i, e := range n.Content {
			all[i] = p.value(e)
		}
		return all
	case n.Kind == yaml.MappingNode:
		all := make(map[string]any, len(n.Content)/2)
		p.each(n, "", func(name string, _, value *yaml.Node) { all[name] = p.value(value) })
		return all
	}
	switch tag := n.ShortTag(); {
	case tag == "!!null":
		return nil
	case tag == "!!bool":
		return strings.EqualFold(n.Value, "true")
	case (tag == "!!int" || tag == "!!float") && isNumber(n.Value):
		return json.Number(n.Value)
	}
	return n.Value
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil && json.Valid([]byte(text))
}

// For are the secrets that stand in for each store of keymount.yaml. One that is not for a
// single store is left out where it cannot be, unless it can be nowhere. The error has every
// mistake.
func (s *Secrets) For(c *config.Config) (map[string]map[string]secret.Tree, error) {
	stores, mistakes := map[string]map[string]secret.Tree{}, []error(nil)
	var names []string
	for _, of := range c.Stores {
		names = append(names, of.Name)
		stores[of.Name] = map[string]secret.Tree{}
		for _, m := range s.of[of.Name] {
			mistakes = append(mistakes, s.put(m, stores, of))
		}
	}
	for _, m := range s.all {
		failures := make([]error, len(c.Stores))
		for i, of := range c.Stores {
			failures[i] = s.put(m, stores, of)
		}
		if !slices.Contains(failures, nil) {
			mistakes = append(mistakes, failures[0])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.of)) {
		if !slices.Contains(names, name) {
			mistakes = append(mistakes, s.mistake(s.line[name], "store %q is not among %s%s", name, quoted(names), spelling.Hint(name, names)))
		}
	}
	return stores, errors.Join(mistakes...)
}

// Placed gives an error about one of the secrets its file and line, if it is one.
func (s *Secrets) Placed(err error) error {
	unfit, is := errors.AsType[*kind.Unfit](err)
	if !is {
		return err
	}
	for _, m := range slices.Concat(s.all, slices.Concat(slices.Collect(maps.Values(s.of))...)) {
		if m.path == unfit.Path {
			return s.mistake(m.line, "%s", err)
		}
	}
	return err
}

// put puts a secret into a store.
func (s *Secrets) put(m madeUp, stores map[string]map[string]secret.Tree, of config.Store) error {
	if err := m.check(of); err != nil {
		return s.mistake(m.line, "path %s", err)
	}
	stores[of.Name][m.path] = m.value
	return nil
}

func (s *Secrets) mistake(line int, format string, args ...any) error {
	return config.Mistake{File: s.file, Line: line, Text: fmt.Sprintf(format, args...)}
}

// check holds a secret against the store that it is to be in.
func (m madeUp) check(of config.Store) error {
	path, err := of.Settings.Path(m.path)
	if err != nil {
		return err //nolint:wrapcheck // it names the path
	}
	if _, isText := m.value.Reveal().(string); isText && !of.Settings.IsText(path) {
		return fmt.Errorf("%q: is no map of keys to values, and store %q answers there with nothing else", m.path, of.Name)
	}
	return nil
}

// Missing are hints on secrets that the class asks for and the file lacks, where it has one
// of a similar path.
func (s *Secrets) Missing(o *Outcome) []string {
	var hints []string
	for _, r := range o.Reads {
		if !r.Missing {
			continue
		}
		var paths []string
		for _, m := range append(slices.Clone(s.all), s.of[r.Store]...) {
			paths = append(paths, m.path)
		}
		if hint := spelling.Hint(r.Path, paths); hint != "" {
			hints = append(hints, fmt.Sprintf("%s: has no %q%s", s.file, r.Path, hint))
		}
	}
	return hints
}
