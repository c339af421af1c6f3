package convert

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// fate is what becomes of a field. Without a text nothing is said of it: it is converted, or
// noted, where it is read, or it matters to the old tool alone.
type fate struct {
	lost          bool
	text, instead string
}

// fields are the fields of a kind by their paths, in which [] is any item of a list and * any
// name. A field has all that is below it.
type fields map[string]fate

// row is the fate of some fields.
type row struct {
	fate

	paths []string
}

// read has the fields that are read where they are converted.
func read(paths ...string) row { return row{paths: paths} }

// idle has fields that mean nothing here, for the reason that its line says.
func idle(_ string, paths ...string) row { return row{paths: paths} }

// gone has fields without a counterpart, and seen those that are to be looked at.
func gone(text, instead string, paths ...string) row { return row{fate{true, text, instead}, paths} }

func seen(text, instead string, paths ...string) row { return row{fate{false, text, instead}, paths} }

// fieldsOf makes a table, with what every object has.
func fieldsOf(rows ...row) fields {
	all := fields{}
	for _, r := range append(rows,
		read("apiVersion", "kind", "metadata.name", "metadata.namespace", "metadata.generateName", "metadata.labels", "metadata.annotations"),
		idle("a cluster adds it", "status", "metadata.creationTimestamp", "metadata.deletionTimestamp", "metadata.deletionGracePeriodSeconds",
			"metadata.generation", "metadata.managedFields", "metadata.resourceVersion", "metadata.selfLink", "metadata.uid"),
		idle("the operator adds it for its own cleaning up", "metadata.finalizers"),
		seen("what owns the object does not own what it becomes", "remove the class yourself when it goes", "metadata.ownerReferences"),
	) {
		for _, path := range r.paths {
			all[path] = r.fate
		}
	}
	return all
}

// noteFields tells of every field of an object what no other code tells: its fate, or that it
// is not known. So nothing is lost in silence, also of a later version of the old tool.
func (s source) noteFields(known fields) { s.noteBelow(known, s.object.Node, "", "", 0) }

func (s source) noteBelow(known fields, n *yaml.Node, path, shown string, depth int) {
	const deepest = 20
	if depth > deepest {
		return
	}
	for _, m := range members(n) {
		if m.value.Kind == yaml.ScalarNode && m.value.ShortTag() == "!!null" {
			continue // as if it were not there
		}
		at, field := known.child(path, m.name.Value), strings.TrimPrefix(shown+"."+m.name.Value, ".")
		what, isKnown := known[at]
		switch {
		case isKnown && what.text != "":
			s.note(what.lost, m.name, field, what.text, what.instead)
		case isKnown:
		case !known.hasBelow(at):
			s.lost(m.name, field, "the field is not known to convert, and nothing was made of it", "")
		default:
			s.noteBelow(known, m.value, at, field, depth+1)
			for i, item := range items(m.value) {
				s.noteItem(known, item, at+"[]", fmt.Sprintf("%s[%d]", field, i), depth+1)
			}
		}
	}
}

func (s source) noteItem(known fields, item *yaml.Node, path, shown string, depth int) {
	if item.Kind == yaml.MappingNode {
		s.noteBelow(known, item, path, shown, depth)
	}
}

// child is the path of a field below another one.
func (f fields) child(path, name string) string {
	exact, anyName := strings.TrimPrefix(path+"."+name, "."), strings.TrimPrefix(path+".*", ".")
	if _, ok := f[anyName]; ok || f.hasBelow(anyName) {
		return anyName
	}
	return exact
}

// hasBelow tells whether the table goes on below a path.
func (f fields) hasBelow(path string) bool {
	for has := range f {
		if strings.HasPrefix(has, path+".") || strings.HasPrefix(has, path+"[]") {
			return true
		}
	}
	return false
}

// audience is the one of a list that tokens are for.
func (s source) audience(list *yaml.Node, field string) string {
	audiences := items(list)
	if len(audiences) == 0 {
		return ""
	}
	if len(audiences) > 1 {
		s.look(audiences[1], field, fmt.Sprintf("a token of keymount's is for one audience: %q, the first", manifest.Text(audiences[0])), "see that the role in Vault accepts it")
	}
	return manifest.Text(audiences[0])
}

// kept are labels or annotations of an object without those that tools write for themselves;
// nil where none is left.
func kept(n *yaml.Node) *yaml.Node {
	if n = manifest.Resolved(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	if n = copied(n); n == nil {
		return nil
	}
	remove(n, func(name string) bool {
		return name == "argocd.argoproj.io/tracking-id" || slices.ContainsFunc([]string{"kubectl.kubernetes.io/", "meta.helm.sh/", "deployment.kubernetes.io/"}, func(prefix string) bool {
			return strings.HasPrefix(name, prefix)
		})
	})
	if len(n.Content) == 0 {
		return nil
	}
	return n
}
