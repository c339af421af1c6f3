package secret

import (
	"maps"
	"reflect"
	"slices"
)

// Without is the tree less these keys of its map; any other tree is as it was.
func (t Tree) Without(keys []string) Tree {
	m, isMap := t.Reveal().(map[string]any)
	if !isMap || !slices.ContainsFunc(keys, func(key string) bool { _, has := m[key]; return has }) {
		return t
	}
	m = maps.Clone(m)
	for _, key := range keys {
		delete(m, key)
	}
	return treeOf(m)
}

// IsNull tells a value that is there and says nothing.
func (t Tree) IsNull() bool { return t.Reveal() == nil }

// Equal tells whether both trees hold the same.
func (t Tree) Equal(other Tree) bool { return reflect.DeepEqual(t.Reveal(), other.Reveal()) }
