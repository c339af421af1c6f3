package lint

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/manifest"
)

const (
	apiVersion = "secrets-store.csi.x-k8s.io/v1"
	classKind  = "SecretProviderClass"
	// anyNamespace is where a class is read that names no namespace.
	anyNamespace = "default"
)

// checkedClass is a class of keymount with its meaning.
type checkedClass struct {
	manifest.Class

	namespace string // empty for one that may be in any
	dialect   class.Dialect
	checked   class.Checked
	users     []user
}

// user is a service account of a pod that mounts a class as it is.
type user struct{ serviceAccount, namespace string }

// looksLikeClass tells an object that was to be a class.
func looksLikeClass(o manifest.Object) bool {
	return strings.EqualFold(o.Kind, classKind) || spelling.Clear(o.Kind, []string{classKind}) != "" || o.Kind == "" && manifest.Text(manifest.Field(o.Node, "spec", "provider")) != "" && manifest.Field(o.Node, "spec", "parameters") != nil
}

// readClass checks the form of a class, and its parameters if they are keymount's to read.
func (c *checker) readClass(of manifest.Class) {
	c.checkShape(of)
	dialect, ours := c.dialect(of.Provider)
	switch {
	case of.Provider == "": // told by its shape
		return
	case !ours && c.isMisspelledProvider(of):
		return
	case !ours:
		c.others++
		c.otherNames = append(c.otherNames, of.Name)
		return
	}
	read := checkedClass{Class: of, namespace: c.namespace(of.Object), dialect: dialect}
	read.checked = class.Check(dialect, cmp.Or(read.namespace, anyNamespace), of.Parameters, c.storesFor(dialect))
	c.checkNamesake(&read)
	c.classes = append(c.classes, read)
	if !c.checkPeer(&read) {
		c.addMistakes(&read)
	}
}

// checkNamesake finds a class of the same name in the same file: kubectl puts the second in
// the place of the first.
func (c *checker) checkNamesake(of *checkedClass) {
	for i := range c.classes {
		before := &c.classes[i]
		if of.Name != "" && before.Name == of.Name && before.namespace == of.namespace && before.File == of.File && !maps.Equal(before.Parameters, of.Parameters) {
			c.node(of.Object, manifest.Field(of.Node, "metadata", "name"), "class-twice", Error, "class %q is in this file twice (line %d) and differs; kubectl keeps the last one", of.Name, before.Node.Line)
			return
		}
	}
}

// isMisspelledProvider tells a provider with a slip in its name from another one.
func (c *checker) isMisspelledProvider(of manifest.Class) bool {
	known := []string{string(class.DialectKeymount), string(class.DialectVault), string(class.DialectOpenBao)}
	meant := spelling.Clear(of.Provider, known)
	if name := strings.TrimSuffix(of.Provider, ".sock"); slices.Contains(known, name) {
		meant = name // the driver adds it
	}
	if meant != "" {
		c.node(of.Object, manifest.Field(of.Node, "spec", "provider"), "provider", Error, "there is no provider %q; did you mean %q?", spelling.Visible(of.Provider), meant)
	}
	return meant != ""
}

// dialect is that of a provider's classes; false for a provider that keymount is not.
func (c *checker) dialect(provider string) (class.Dialect, bool) {
	switch d := class.DialectOf(provider); {
	case d == class.Dialect(provider) && d != class.DialectKeymount:
		return d, true
	case provider == string(class.DialectKeymount), c.config != nil && c.config.serves(provider):
		return d, true
	}
	return "", false
}

// addMistakes notes what the parser of mounts says.
func (c *checker) addMistakes(of *checkedClass) {
	for _, m := range of.checked.Mistakes {
		node := of.Nodes[m.Parameter]
		switch {
		case node != nil && !isText(node), node == nil && m.Parameter == "objects" && misspelled(manifest.Field(of.Node, "spec"), "parameters"):
			continue // told by its shape
		case m.Reason == class.Missing && isMisspelled(of.checked, m):
			continue // and there under another name
		}
		c.mistake(of, m, Error)
	}
	for _, m := range of.checked.Warnings {
		c.mistake(of, m, Warning)
	}
}

// isMisspelled tells whether a missing field or parameter is there, and has a slip in its
// name.
func isMisspelled(checked class.Checked, missing class.Mistake) bool {
	return slices.ContainsFunc(checked.Mistakes, func(m class.Mistake) bool {
		return m.Reason == class.UnknownField && m.Object == missing.Object && m.Instead == missing.Field && m.Instead != ""
	})
}

// misspelled tells whether a map has a field under a name with a slip in it.
func misspelled(node *yaml.Node, field string) bool { return slipOf(node, field) != nil }

// slipOf is that name in a map that has no field of the right one; nil without one.
func slipOf(node *yaml.Node, field string) *yaml.Node {
	if manifest.Key(node, field) != nil {
		return nil
	}
	for _, e := range manifest.Entries(node) {
		if spelling.Clear(e.Key.Value, []string{field}) != "" {
			return e.Key
		}
	}
	return nil
}

// mistake notes one of a class's parameters at its place in the file.
func (c *checker) mistake(of *checkedClass, m class.Mistake, severity Severity) {
	if bad := badLine(of.Parameters[m.Parameter], m); bad.Line > 0 {
		m.Line, m.Column = bad.Line, bad.Column
	}
	f := c.at(of.File, placeOf(of.Class, m.Place, m.Reason), string(m.Reason), severity, "%s", textOf(m))
	f.Add = m.Add
	if severity == Error || m.Reason == class.BadMode {
		f.Fix = instead(of.Class, m)
	}
}

// badLine is the line that makes a parameter's text none of YAML, which the parser only comes
// near to.
func badLine(text string, m class.Mistake) manifest.Position {
	if m.Reason != class.BadForm || m.Line == 0 || m.Object >= 0 {
		return manifest.Position{}
	}
	return manifest.BadLine([]byte(text))
}

// textOf is a mistake with the index of its object, and without lines to add.
func textOf(m class.Mistake) string {
	if m.Object >= 0 {
		return m.Whole()
	}
	return m.Text
}

// placeOf is the place in the file of a place in a class.
func placeOf(of manifest.Class, at class.Place, why class.Reason) manifest.Position {
	node := of.Nodes[at.Parameter]
	switch {
	case node == nil:
		return manifest.At(parametersOf(of))
	case why == class.UnknownParameter || why == class.NoEffect && at.Line == 0:
		return manifest.At(of.Keys[at.Parameter])
	}
	return of.File.Inside(node, at.Line, at.Column)
}

// parametersOf is the nearest node of a class to its parameters.
func parametersOf(of manifest.Class) *yaml.Node {
	return cmp.Or(manifest.Key(manifest.Field(of.Node, "spec"), "parameters"), manifest.Key(of.Node, "spec"), of.Node)
}

// checkShape finds what the API server or the driver refuse, or drop without a word.
func (c *checker) checkShape(of manifest.Class) {
	o := of.Object
	if version := strings.TrimPrefix(o.APIVersion, "secrets-store.csi.x-k8s.io/"); version != "v1" && version != "v1alpha1" {
		c.node(o, manifest.Field(o.Node, "apiVersion"), "api-version", Error, "%s has no version %q; write %s", classKind, version, apiVersion)
	}
	c.checkTop(o, "spec", "status")
	c.checkMetadata(o, manifest.Field(o.Node, "metadata"))
	c.checkName(o)
	spec := manifest.Field(o.Node, "spec")
	if spec == nil || spec.Kind != yaml.MappingNode {
		if misspelled(o.Node, "spec") {
			return
		}
		c.node(o, cmp.Or(manifest.Key(o.Node, "spec"), o.Node), "missing", Error, "spec: missing; write provider and parameters below it")
		return
	}
	c.checkFields(o, spec, "spec", "provider", "parameters", "secretObjects")
	c.checkTexts(o, spec, "spec", "provider")
	if of.Provider == "" && !misspelled(spec, "provider") {
		c.node(o, cmp.Or(manifest.Key(spec, "provider"), manifest.Key(o.Node, "spec")), "missing", Error, "spec.provider: missing; write provider: %s", class.DialectKeymount)
	}
	parameters := manifest.Field(spec, "parameters")
	switch {
	case parameters == nil || isNull(parameters): // told by the parser
	case parameters.Kind != yaml.MappingNode:
		c.node(o, parameters, "not-a-text", Error, "spec.parameters: not a map of names to texts")
	default:
		for _, name := range slices.Sorted(maps.Keys(of.Nodes)) {
			c.checkParameter(of, name)
		}
	}
}

// checkParameter finds a parameter that is no text. The API server refuses such a class.
func (c *checker) checkParameter(of manifest.Class, name string) {
	node := of.Nodes[name]
	switch {
	case isText(node):
	case node.Kind == yaml.SequenceNode && name == "objects":
		c.node(of.Object, of.Keys[name], "not-a-text", Error, "objects is a list, and the driver takes texts alone; write objects: | and indent the list below it")
	case node.Kind != yaml.ScalarNode || isNull(node):
		c.node(of.Object, of.Keys[name], "not-a-text", Error, "%s is no text, and the driver takes texts alone; write it as a text", name)
	default:
		f := c.node(of.Object, node, "not-a-text", Error, "%s: %s is %s to YAML, and the driver takes texts alone; write it in quotes: %q", name, node.Value, typeOf(node), node.Value)
		f.Fix = quote(of.File, node)
	}
}

// checkTexts finds fields of a map that are no texts, and have to be.
func (c *checker) checkTexts(o manifest.Object, node *yaml.Node, place string, names ...string) {
	for _, name := range names {
		c.checkText(o, manifest.Field(node, name), place+"."+name)
	}
}

// checkMapOfTexts is checkTexts for all fields of a map, such as labels.
func (c *checker) checkMapOfTexts(o manifest.Object, node *yaml.Node, place string) {
	if !isNull(node) && node.Kind != yaml.MappingNode {
		c.node(o, node, "not-a-text", Error, "%s: not a map of names to texts", place)
	}
	for _, e := range manifest.Entries(node) {
		c.checkText(o, e.Value, place+"."+e.Key.Value)
	}
}

func (c *checker) checkText(o manifest.Object, n *yaml.Node, place string) {
	switch {
	case n == nil || isText(n) || isNull(n): // the last is as if it were not there
	case n.Kind != yaml.ScalarNode:
		c.node(o, n, "not-a-text", Error, "%s: a %s, and the API server takes a text alone", place, manifest.TypeOf(n))
	default:
		f := c.node(o, n, "not-a-text", Error, "%s: %s is %s to YAML, and the API server takes a text alone; write it in quotes: %q", place, n.Value, typeOf(n), n.Value)
		f.Fix = quote(o.File, n)
	}
}

// checkMetadata finds names, labels and annotations that are no texts.
func (c *checker) checkMetadata(o manifest.Object, metadata *yaml.Node) {
	c.checkTexts(o, metadata, "metadata", "name", "namespace")
	for _, field := range []string{"labels", "annotations"} {
		c.checkMapOfTexts(o, manifest.Field(metadata, field), "metadata."+field)
	}
}

// checkTwice finds names that one map has twice: tools differ in which of the two they take,
// or refuse the file.
func (c *checker) checkTwice(o manifest.Object, node *yaml.Node) {
	for name, line := range manifest.Twice(node) {
		c.node(o, name, "key-twice", Error, "key %q is there twice, and kubectl takes the last one (line %d); remove one", name.Value, line)
	}
	for _, child := range node.Content {
		c.checkTwice(o, child)
	}
}

func isText(n *yaml.Node) bool { return manifest.TypeOf(n) == manifest.TypeText }

func isNull(n *yaml.Node) bool { return manifest.TypeOf(n) == manifest.TypeNull }

// typeOf is the type of a scalar, for messages.
func typeOf(n *yaml.Node) string {
	if manifest.TypeOf(n) == manifest.TypeBool {
		return string(manifest.TypeBool)
	}
	return "a " + string(manifest.TypeOf(n))
}

// checkFields finds fields that the API server drops.
func (c *checker) checkFields(o manifest.Object, node *yaml.Node, place string, known ...string) {
	for _, e := range manifest.Entries(node) {
		name := e.Key
		if slices.Contains(known, name.Value) {
			continue
		}
		f := c.node(o, name, "unknown-field", Error, "%s: unknown field %q%s", place, spelling.Visible(name.Value), spelling.Hint(name.Value, known))
		if meant := spelling.Clear(name.Value, known); meant != "" && manifest.Key(node, meant) == nil {
			f.Fix = replace(o.File, name, meant)
		}
	}
}

// checkSlips finds fields with a slip in their names in a map that may have others, too.
func (c *checker) checkSlips(o manifest.Object, node *yaml.Node, place string, known ...string) {
	for _, e := range manifest.Entries(node) {
		meant := spelling.Clear(e.Key.Value, known)
		if meant == "" || slices.Contains(known, e.Key.Value) || manifest.Key(node, meant) != nil {
			continue
		}
		f := c.node(o, e.Key, "unknown-field", Error, "%s: unknown field %q; did you mean %q?", place, e.Key.Value, meant)
		f.Fix = replace(o.File, e.Key, meant)
	}
}

// checkTop finds slips at the top of an object.
func (c *checker) checkTop(o manifest.Object, known ...string) {
	c.checkSlips(o, o.Node, o.Kind, append([]string{"apiVersion", "kind", "metadata"}, known...)...)
	c.checkSlips(o, manifest.Field(o.Node, "metadata"), "metadata", "name", "namespace", "labels", "annotations", "generateName")
}

// checkName holds an object's name against the rule for names.
func (c *checker) checkName(o manifest.Object) {
	name := manifest.Field(o.Node, "metadata", "name")
	switch {
	case misspelled(o.Node, "metadata") || misspelled(manifest.Field(o.Node, "metadata"), "name"):
	case o.Name == "" && manifest.Text(manifest.Field(o.Node, "metadata", "generateName")) == "":
		c.node(o, cmp.Or(manifest.Key(o.Node, "metadata"), o.Node), "name", Error, "metadata.name: missing; pods name the class by it")
	case o.Name != "" && !isName(o.Name):
		c.node(o, name, "name", Error, "metadata.name: %q is no name; it has lower-case letters, digits, dashes and dots, 253 at most", spelling.Visible(spelling.CutName(o.Name)))
	}
	if namespace := o.Namespace; namespace != "" && (!isName(namespace) || strings.Contains(namespace, ".") || len(namespace) > 63) {
		c.node(o, manifest.Field(o.Node, "metadata", "namespace"), "name", Error,
			"metadata.namespace: %q is no namespace; it has lower-case letters, digits and dashes, 63 at most", spelling.Visible(spelling.CutName(namespace)))
	}
}

func isName(text string) bool {
	return len(text) <= 253 && regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`).MatchString(text)
}
