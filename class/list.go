package class

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/internal/strict"
	"github.com/keymount/keymount/internal/surrogate"
)

const maxObjects = 1000

// maxParts bounds the memory of a class while it is parsed: about 30 MB.
const maxParts = 100_000

// entries are the objects of a class: a YAML list of maps like example.
func entries(text, example string, m *mistakes) []*yaml.Node {
	if parts := partsOf(text); parts > maxParts {
		m.add(ofParameter(nameObjects), BadForm, "objects: %d signs of YAML are more than one class may have (%d); make several classes of it", parts, maxParts)
		return nil
	}
	document, err := decodeList(text)
	if err != nil {
		m.add(ofParameter(nameObjects), BadForm, "objects: %w", err)
		return nil
	}
	form := "list the secrets, each as " + example
	switch {
	case len(document.Content) == 0:
		m.add(ofParameter(nameObjects), BadForm, "objects: missing or empty; %s", form)
		return nil
	case document.Content[0].Kind != yaml.SequenceNode:
		m.add(ofParameter(nameObjects), BadForm, "objects: not a list; %s", form)
		return nil
	case len(document.Content[0].Content) == 0:
		m.add(ofParameter(nameObjects), BadForm, "objects: the list is empty; %s", form)
		return nil
	case len(document.Content[0].Content) > maxObjects:
		m.add(ofParameter(nameObjects), BadForm, "objects: %d are more than one class may have (%d)", len(document.Content[0].Content), maxObjects)
		return nil
	}
	return document.Content[0].Content
}

// partsOf is no less than the number of parts that a YAML text has, each of which takes
// some hundred bytes once it is parsed.
func partsOf(text string) (parts int) {
	for i := range len(text) {
		switch text[i] {
		case ',', ':', '-', '[', ']', '{', '}', '&', '*', '\n':
			parts++
		}
	}
	return parts
}

// decodeList reads one document of plain values, JSON or YAML. Anchors, aliases and tags
// are refused: their meaning differs between readers.
func decodeList(text string) (yaml.Node, error) {
	if document, halves := surrogate.JSON([]byte(text)); document != nil {
		return *document, checkHalves(halves)
	}
	var document, more yaml.Node
	hidden := surrogate.Hide([]byte(text))
	decoder := yaml.NewDecoder(bytes.NewReader(hidden.Text))
	err := decoder.Decode(&document)
	switch {
	case errors.Is(err, io.EOF):
		return document, nil
	case err != nil:
		return document, notYAML(err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return document, errors.New("more than one YAML document; keep one list")
	}
	if err := checkHalves(hidden.Restore(&document)); err != nil {
		return document, err
	}
	return document, checkPlain(&document)
}

// notYAML is a failure of the parser, with its line.
func notYAML(err error) error {
	said := fmt.Errorf("not YAML: %w", strict.Syntax(err, false))
	line, cause := strict.SyntaxLine(err)
	if line == 0 {
		return said
	}
	return lined{line: line, column: 1, said: said, err: fmt.Errorf("not YAML: %w", cause)}
}

// checkHalves names the first of the nodes that have half a character.
func checkHalves(halves map[*yaml.Node]bool) error {
	if len(halves) == 0 {
		return nil
	}
	first := slices.MinFunc(slices.Collect(maps.Keys(halves)), func(a, b *yaml.Node) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return atLine(first, `half of a character, such as \ud83d without \ude00; write both halves, or the character itself`)
}

func checkPlain(node *yaml.Node) error {
	switch {
	case node.Anchor != "" || node.Kind == yaml.AliasNode:
		return atLine(node, "anchors and aliases are not read; write the value out")
	case node.Style&yaml.TaggedStyle != 0 || node.Tag == "!":
		return atLine(node, "the tag %s is not read; remove it", Shorten(node.Tag))
	}
	for _, child := range node.Content {
		if err := checkPlain(child); err != nil {
			return err
		}
	}
	return nil
}

// entry is one object of a class as written, in any dialect. It notes mistakes under
// its index.
type entry struct {
	index  int
	node   *yaml.Node
	within string // the field that the entry is, with a colon; empty for an object itself
	fields map[string]*yaml.Node
	m      *mistakes
}

// whole notes a mistake of the entry.
func (p *entry) whole(why Reason, format string, args ...any) {
	p.m.add(p.at(""), why, p.within+format, args...)
}

// wrong notes a mistake of a field, with which its text begins.
func (p *entry) wrong(field string, why Reason, format string, args ...any) *Mistake {
	return p.m.add(p.at(field), why, p.within+field+": "+format, args...)
}

// lacks notes a field that is not there.
func (p *entry) lacks(field, format string, args ...any) { p.wrong(field, Missing, format, args...) }

// at is the place of a field's value, or of the entry for a field that is not there.
func (p *entry) at(field string) Place {
	node := p.fields[field]
	if node == nil {
		node = p.node
	}
	return inText(p.index, field, node)
}

// readFields calls unknown for a field that is not in known.
func (p *entry) readFields(known []string, unknown func(Place, Reason, string, ...any) *Mistake) {
	p.fields = make(map[string]*yaml.Node, len(known))
	if fields := len(p.node.Content) / 2; fields > 10*len(known) {
		p.whole(BadForm, "%d fields are more than an object has", fields)
		return
	}
	for i := 0; i+1 < len(p.node.Content); i += 2 {
		key := p.node.Content[i]
		at := inText(p.index, key.Value, key)
		switch {
		case !slices.Contains(known, key.Value):
			m := unknown(at, UnknownField, p.within+"unknown field %q%s", Shorten(key.Value), spelling.Hint(key.Value, known))
			if !p.m.isMount() {
				m.Instead = p.m.meant(key.Value, without(known, p.node))
			}
		case p.fields[key.Value] != nil:
			p.m.add(at, Conflict, p.within+"field %q is there twice", key.Value)
		default:
			p.fields[key.Value] = p.node.Content[i+1]
		}
	}
}

// without leaves out the names of the fields that an object has.
func without(names []string, object *yaml.Node) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return fieldOf(object, name) != object })
}

// plain is a text that can be part of a name, or none and a mistake.
func (p *entry) plain(field, text string) string {
	if err := spelling.Plain(text); err != nil {
		p.wrong(field, BadValue, "%w", err)
		return ""
	}
	return text
}

// noArgs is a write without any args.
const noArgs = "{}"

var errNotArgs = errors.New("not a map of names to values")

func canonicalArgs(node *yaml.Node) (string, error) {
	args := map[string]any{}
	if err := node.Decode(&args); err != nil || node.Kind != yaml.MappingNode {
		return "", errNotArgs
	}
	if err := checkNames(node); err != nil {
		return "", err
	}
	text, err := json.Marshal(args) // with sorted keys
	if err != nil {
		return "", errors.New("cannot be written as JSON")
	}
	return string(text), nil
}

// checkNames holds the names of args, at any depth, against the rule for names. Their
// values are the store's affair: a certificate request has line breaks.
func checkNames(node *yaml.Node) error {
	for i, child := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 0 {
			if err := spelling.Plain(child.Value); err != nil {
				return err
			}
		}
		if err := checkNames(child); err != nil {
			return err
		}
	}
	return nil
}
