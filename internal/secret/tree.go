package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ErrNoKey says that a Tree has nothing under a key.
var ErrNoKey = errors.New("no such key")

// Tree is a secret with structure, as a store gave it: a text, a number, a boolean, null, a
// list, or a map of those. Copy and share it like a [Bytes].
type Tree struct {
	hidden
	reveal func() any
	held   int // memory behind reveal, in bytes; 0 where it was not measured yet
}

func treeOf(v any) Tree { return Tree{reveal: func() any { return v }} }

// MaxDepth is how deep lists and maps may be nested in a Tree. Every walk over one is as
// deep, so the bound stands where a secret enters. No handwritten secret is near it.
const MaxDepth = 100

// NewMadeTree is a tree made by build at each Reveal, for trees seldom looked at. build
// returns a value that [NewTree] accepts; held is the memory behind build in bytes.
func NewMadeTree(held int, build func() any) Tree { return Tree{reveal: build, held: held} }

// NewTree takes v over. It accepts nil, bool, string, json.Number, []any and
// map[string]any, nested up to [MaxDepth]; anything else is an error. Numbers come as
// json.Number so that they leave as the store wrote them: 1.10 stays 1.10.
func NewTree(v any) (Tree, error) {
	if place, found := Find(v, misfit); found != "" {
		return Tree{}, fmt.Errorf("%s: %s", nameOrRoot(place), found)
	}
	t := treeOf(v)
	t.held = heldBy(v)
	return t, nil
}

// misfit is the reason why a part cannot be in a Tree; empty for one that can.
func misfit(v any) string {
	switch v := v.(type) {
	case nil, bool, string, []any, map[string]any:
		return ""
	case json.Number:
		if !isNumber(string(v)) {
			return "not a JSON number"
		}
		return ""
	default:
		return fmt.Sprintf("a secret cannot hold a value of Go type %T", v)
	}
}

// Find walks v, and returns the first fault that it finds in a part, and the place of that
// part: "users.0.name", or nothing for v itself. The place is made only for a fault, so
// that the walk costs no more than there are parts. A part below [MaxDepth] is a fault of
// its own. Without a fault both are empty.
func Find(v any, fault func(part any) string) (place, found string) {
	names, found := find(v, 0, fault)
	slices.Reverse(names)
	return strings.Join(names, "."), found
}

// find returns the place of a fault from its end to its beginning.
func find(v any, depth int, fault func(any) string) (place []string, found string) {
	if found := fault(v); found != "" {
		return nil, found
	}
	if depth > MaxDepth {
		return nil, fmt.Sprintf("nested more than %d deep", MaxDepth)
	}
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			if place, found := find(e, depth+1, fault); found != "" {
				return append(place, strconv.Itoa(i)), found
			}
		}
	case map[string]any:
		for k, e := range v {
			if place, found := find(e, depth+1, fault); found != "" {
				return append(place, k), found
			}
		}
	}
	return nil, ""
}

func isNumber(text string) bool { return text != "" && numberAt(text) == len(text) }

// Get returns the part of the tree under key. Dots go deeper and numbers index
// lists: "users.0.name". A key that itself contains dots, such as tls.crt, wins
// over going deeper. The error wraps [ErrNoKey], or [ErrManyWays].
func (t Tree) Get(key string) (Tree, error) {
	l := lookup{left: maxProbes}
	v, ok := l.find(t.Reveal(), key)
	switch {
	case ok:
		return treeOf(v), nil
	case l.left <= 0:
		return Tree{}, fmt.Errorf("%w %q", ErrManyWays, key)
	}
	return Tree{}, fmt.Errorf("%w %q", ErrNoKey, key)
}

// ErrManyWays says that a key could be read in more ways than are tried: the secret has
// names with dots that were made for that.
var ErrManyWays = errors.New("too many names of the secret begin like the key")

// maxProbes is how many names one key is looked for under. Each dot of the key may be
// part of a name or a step, so a secret of a few names needs some dozens.
const maxProbes = 10_000

// lookup is the search for one key.
type lookup struct{ left int }

// find tries the longest name first: "a.b.c", then "a.b" and "c" in it.
func (l *lookup) find(v any, key string) (any, bool) {
	if list, ok := v.([]any); ok {
		first, rest, deeper := strings.Cut(key, ".")
		i, err := strconv.Atoi(first)
		if err != nil || i < 0 || i >= len(list) || strconv.Itoa(i) != first {
			return nil, false
		}
		if !deeper {
			return list[i], true
		}
		return l.find(list[i], rest)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, false
	}
	if e, ok := m[key]; ok {
		return e, true
	}
	for end := strings.LastIndexByte(key, '.'); end > 0; end = strings.LastIndexByte(key[:end], '.') {
		if l.left--; l.left <= 0 {
			return nil, false
		}
		if e, ok := m[key[:end]]; ok {
			if found, ok := l.find(e, key[end+1:]); ok {
				return found, true
			}
		}
	}
	return nil, false
}

// Keys lists the names of a map in order; nil for anything else.
func (t Tree) Keys() []string {
	m, ok := t.Reveal().(map[string]any)
	if !ok {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}

// Child returns the value under exactly this name of a map; dots do not go
// deeper. It is the companion of [Tree.Keys].
func (t Tree) Child(name string) (Tree, bool) {
	m, _ := t.Reveal().(map[string]any)
	v, ok := m[name]
	if !ok {
		return Tree{}, false
	}
	return treeOf(v), true
}

// Text is the content of a file for this value: a text as it is, anything else as compact
// JSON with sorted keys.
func (t Tree) Text() (Bytes, error) {
	if s, ok := t.Reveal().(string); ok {
		return New([]byte(s)), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t.Reveal()); err != nil {
		// The error of encoding/json may quote the value: leave it out.
		return Bytes{}, errors.New("the value cannot be written as JSON")
	}
	return New(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// Reveal returns the value given to [NewTree]. The caller must not change it.
func (t Tree) Reveal() any {
	if t.reveal == nil {
		return nil
	}
	return t.reveal()
}

// nameOrRoot is a place for a message, which has to stay readable.
func nameOrRoot(place string) string {
	const most = 80
	switch {
	case place == "":
		return "the secret"
	case len(place) > most:
		return strconv.Quote(place[:most]) + "..."
	}
	return strconv.Quote(place)
}
