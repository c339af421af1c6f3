package strict

import (
	"reflect"

	"gopkg.in/yaml.v3"
)

// entries calls take with the entries of a map, and then with those of the maps merged into
// it. A merged map skips names already taken; a name twice in one map is a mistake.
func (d *decoder) entries(n *yaml.Node, taken map[string]bool, take func(key *yaml.Node, name string, value *yaml.Node)) {
	if !d.spend(n) {
		return
	}
	lines := make(map[string]int, len(n.Content)/2)
	var merged *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name, ok := d.name(key)
		if !ok {
			continue
		}
		if first, twice := lines[name]; twice {
			d.add(key, "%q is on line %d already; keep one", name, first)
			continue
		}
		lines[name] = key.Line
		switch {
		case isMerge(key):
			merged = value
		case !taken[name]:
			taken[name] = true
			take(key, name, value)
		}
	}
	if merged != nil {
		d.merge(merged, func(from *yaml.Node) { d.entries(from, taken, take) })
	}
}

// name reads a key, which is a text or read as one.
func (d *decoder) name(key *yaml.Node) (name string, ok bool) {
	if isNull(key) || key.Kind == yaml.AliasNode && isNull(key.Alias) {
		d.wrongType(key, reflect.TypeFor[string]())
		return "", false
	}
	ok = d.value(key, reflect.ValueOf(&name).Elem())
	return name, ok
}

// isMerge tells whether a key merges its value into the map around it.
func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && key.ShortTag() == "!!merge"
}

// merge calls from with the maps in the value of <<: one map, or several, the first of which
// has precedence.
func (d *decoder) merge(n *yaml.Node, from func(*yaml.Node)) {
	maps := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		maps = n.Content
	}
	if d.merges++; d.merges > maxMerges {
		d.add(n, "maps are merged more than %d deep", maxMerges)
		maps = nil
	}
	for _, m := range maps {
		d.mergeOne(m, from)
	}
	d.merges--
}

func (d *decoder) mergeOne(n *yaml.Node, from func(*yaml.Node)) {
	switch {
	case n.Kind == yaml.MappingNode:
		from(n)
	case n.Kind == yaml.AliasNode && n.Alias.Kind == yaml.MappingNode:
		d.follow(n, func(target *yaml.Node) bool {
			from(target)
			return true
		})
	default:
		d.add(n, "map merge requires map or sequence of maps as the value")
	}
}
