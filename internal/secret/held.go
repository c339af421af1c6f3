package secret

import (
	"encoding/json"
	"math/bits"
)

// The sizes of Go's allocations on 64-bit machines, in bytes.
const (
	closureSize = 32 // of a Tree or Bytes, about
	boxSize     = 16 // of a text, of a number
	elementSize = 16 // of a list
	listSize    = 24
	mapSize     = 48
	groupSize   = 8 + groupSlots*(16+16) // of a map: names and values
	groupSlots  = 8
	tableSize   = 48 // of a map of several groups
)

// Held is the memory allocated for the tree in bytes, approximately.
func (t Tree) Held() int {
	switch {
	case t.reveal == nil:
		return 0
	case t.held > 0:
		return closureSize + t.held
	}
	return closureSize + heldBy(t.reveal())
}

// Held is the memory allocated for the value in bytes, approximately.
func (b Bytes) Held() int {
	if b.reveal == nil {
		return 0
	}
	return closureSize + allocated(cap(b.reveal()))
}

func heldBy(v any) int {
	switch v := v.(type) {
	case string:
		return boxSize + allocated(len(v))
	case json.Number:
		return boxSize + allocated(len(v))
	case []any:
		held := listSize + allocated(elementSize*cap(v))
		for _, e := range v {
			held += heldBy(e)
		}
		return held
	case map[string]any:
		held := mapSize + heldByGroups(len(v))
		for name, e := range v {
			held += allocated(len(name)) + heldBy(e)
		}
		return held
	}
	return 0
}

// heldByGroups is the table of a map with so many names. With several groups, at most seven
// slots in eight are taken, and the number of groups is a power of two.
func heldByGroups(names int) int {
	if names <= groupSlots {
		return allocated(groupSize)
	}
	groups := (names + groupSlots - 2) / (groupSlots - 1)
	return tableSize + allocated(groupSize<<bits.Len(uint(groups-1)))
}

// allocated is about the allocation for n bytes: small texts share 16 bytes, larger ones are
// rounded up to the next eighth, and large ones to pages.
func allocated(n int) int {
	const small, page, large = 16, 8 << 10, 32 << 10
	step := small
	switch {
	case n < small:
		step = small / 2
	case n > large:
		step = page
	case n > 8*small:
		step = 1 << (bits.Len(uint(n-1)) - 4)
	}
	return (n + step - 1) / step * step
}
