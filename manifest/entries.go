package manifest

import "gopkg.in/yaml.v3"

// Entry is a field of a map.
type Entry struct {
	Key   *yaml.Node
	Value *yaml.Node // an alias is resolved
}

// Bounds of the maps merged into one: a few lines could stand for millions of fields.
const (
	maxMerges = 100
	maxMerged = 200 // fields of theirs
)

// Entries are the fields of a map as kubectl reads it, in its order: of a name that is there
// twice the last one, and those of merged maps (<<) where they are merged, over what stands in
// front of them. Any other node has none.
func Entries(node *yaml.Node) []Entry {
	all := written(node)
	last := make(map[string]int, len(all))
	for i, e := range all {
		last[e.Key.Value] = i
	}
	kept := make([]Entry, 0, len(last))
	for i, e := range all {
		if last[e.Key.Value] == i {
			kept = append(kept, e)
		}
	}
	return kept
}

// Key is the node of a field's name; nil where a map has no such field, or a node is no map.
func Key(node *yaml.Node, name string) *yaml.Node { return find(node, name).Key }

// Field is a field of a map, or one further in; nil where there is none.
func Field(node *yaml.Node, names ...string) *yaml.Node {
	for _, name := range names {
		if node = find(node, name).Value; node == nil {
			return nil
		}
	}
	return node
}

func find(node *yaml.Node, name string) (found Entry) {
	for _, e := range written(node) {
		if e.Key.Value == name {
			found = e
		}
	}
	return found
}

// Twice are the names in a map itself that it has once more further down, with the line of
// the last one, which counts.
func Twice(node *yaml.Node) map[*yaml.Node]int {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	twice, last := map[*yaml.Node]int{}, map[string]*yaml.Node{}
	for i := len(node.Content) - 2; i >= 0; i -= 2 {
		key := node.Content[i]
		if later := last[key.Value]; later != nil {
			twice[key] = later.Line
		} else if !isMerge(key) {
			last[key.Value] = key
		}
	}
	return twice
}

// written are all fields of a map, with those of merged maps.
func written(node *yaml.Node) []Entry {
	if node = Resolved(node); node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	m := merging{all: make([]Entry, 0, len(node.Content)/2), merges: maxMerges, fields: maxMerged}
	m.add(node, false)
	return m.all
}

// merging gathers the fields of maps, as long as some are left.
type merging struct {
	all            []Entry
	merges, fields int // merged ones that are left
}

func (m *merging) add(node *yaml.Node, isMerged bool) {
	for i := 0; i+1 < len(node.Content); i += 2 {
		if isMerged && m.fields == 0 {
			return
		}
		key, value := node.Content[i], Resolved(node.Content[i+1])
		if isMerge(key) {
			m.merge(value)
			continue
		}
		if isMerged {
			m.fields--
		}
		m.all = append(m.all, Entry{key, value})
	}
}

// merge adds a map, or those of a list, of which the first wins.
func (m *merging) merge(node *yaml.Node) {
	from := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		from = node.Content
	}
	for i := len(from) - 1; i >= 0 && m.merges > 0; i-- {
		if one := Resolved(from[i]); one.Kind == yaml.MappingNode {
			m.merges--
			m.add(one, true)
		}
	}
}

func isMerge(key *yaml.Node) bool { return key.Value == "<<" && key.ShortTag() == "!!merge" }
