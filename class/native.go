package class

import (
	"cmp"
	"maps"
	"slices"

	"github.com/keymount/keymount/internal/spelling"
)

const (
	defaultStore = "default"
	nameStore    = "store"
	// maxTemplateNodes bounds the memory of a class's templates.
	maxTemplateNodes = 20_000
)

// parseNative reads a class in keymount's own syntax, strictly.
func (s source) parseNative(stores map[string]Store, m *mistakes) meaning {
	s.checkNames(m)
	defaults := classDefaults{s.plain(nameStore, m), s.plain("role", m), stores}
	return meaning{objects: parseObjects(s.parameters[nameObjects], defaults, m)}
}

// plain is a parameter that can be part of a name, or none and a mistake.
func (s source) plain(name string, m *mistakes) string {
	text := s.parameters[name]
	if err := cmp.Or(spelling.Plain(text), spelling.Unspaced(text)); err != nil {
		m.add(ofParameter(name), BadValue, "%s: %w", name, err)
		return ""
	}
	return text
}

// checkNames refuses unknown parameters: they are slips of the pen.
func (s source) checkNames(m *mistakes) {
	known := parameterNames()
	for _, name := range slices.Sorted(maps.Keys(s.parameters)) {
		if !slices.Contains(known, name) {
			m.add(ofParameter(name), UnknownParameter, "unknown parameter %q%s", Shorten(name), spelling.Hint(name, known)).Instead = m.meant(name, known)
		}
	}
}

// parameterNames are the parameters of a class.
func parameterNames() []string { return []string{nameStore, "role", nameObjects} }

// classDefaults are the parameters an object inherits from its class.
type classDefaults struct {
	store, role string
	known       map[string]Store
}

// parseObjects reads the class's objects, a YAML list.
func parseObjects(text string, class classDefaults, m *mistakes) []Object {
	if class.store == "" {
		class.store = defaultStore
	}
	var objects []Object
	templates := 0
	nodes := entries(text, objectExample, m)
	for i, node := range nodes {
		p := objectParser{entry{index: i, node: node, m: m}}
		o := p.parse(class)
		m.path(i, node, "path")
		objects = append(objects, o)
		if o.Template != nil {
			templates += o.Template.Nodes()
		}
		if templates > maxTemplateNodes {
			p.wrong("template", BadValue, "all templates of the class have more than %d nodes; make two classes of it", maxTemplateNodes)
			break
		}
	}
	checkClashes(objects, nodes, "file", m)
	return objects
}

// objectExample shows an object in messages.
const objectExample = "{path: ..., key: ..., file: ...}"
