package strict

import (
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Find is the node of a document where a place such as stores[0].access[1].paths[2] is
// written, or the nearest around it that is written there.
func Find(document *yaml.Node, place string) *yaml.Node {
	n := document
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	found := n
	for place != "" {
		at, value, rest, ok := step(n, place)
		if !ok {
			break
		}
		n, found, place = value, at, rest
	}
	return found
}

// maxSteps bounds how many merged maps and aliases lead to one field.
const maxSteps = 100

// step goes to the first part of a place: at is where it is written, and value what it is.
func step(n *yaml.Node, place string) (at, value *yaml.Node, rest string, ok bool) {
	n = followed(n)
	switch n.Kind {
	case yaml.MappingNode:
		return fieldOf(n, strings.TrimPrefix(place, "."), maxSteps)
	case yaml.SequenceNode:
		number, rest, found := strings.Cut(strings.TrimPrefix(place, "["), "]")
		i, err := strconv.Atoi(number)
		entries := slices.DeleteFunc(slices.Clone(n.Content), isNull) // which are left out of lists
		if !found || err != nil || i < 0 || i >= len(entries) {
			return nil, nil, "", false
		}
		return entries[i], entries[i], rest, true
	case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
	}
	return nil, nil, "", false
}

// followed is what an alias stands for.
func followed(n *yaml.Node) *yaml.Node {
	for range maxSteps {
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	return n
}

// fieldOf finds the longest key that place begins with, since a key may hold a dot; then
// those of merged maps.
func fieldOf(n *yaml.Node, place string, steps int) (at, value *yaml.Node, rest string, ok bool) {
	var merged []*yaml.Node
	longest := 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := followed(n.Content[i])
		if isMerge(n.Content[i]) {
			merged = append(merged, n.Content[i+1])
			continue
		}
		after, begins := strings.CutPrefix(place, key.Value)
		if begins && len(key.Value) >= longest && key.Value != "" && (after == "" || strings.ContainsRune(".[", rune(after[0]))) {
			at, value, rest, ok, longest = n.Content[i], n.Content[i+1], after, true, len(key.Value)
		}
	}
	for len(merged) > 0 && !ok && steps > 0 {
		from := followed(merged[0])
		merged, steps = merged[1:], steps-1
		switch from.Kind {
		case yaml.MappingNode:
			at, value, rest, ok = fieldOf(from, place, steps)
		case yaml.SequenceNode:
			merged = slices.Concat(from.Content, merged)
		case yaml.DocumentNode, yaml.ScalarNode, yaml.AliasNode:
		}
	}
	return at, value, rest, ok
}
