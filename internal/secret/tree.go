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

// ErrNoKey says that a Tree has nothing under the key asked for.
var ErrNoKey = errors.New("no such key")

// Tree is a secret with structure, as a store gave it: a text, a number, a
// boolean, null, a list, or a map of those. Copy and share it like a [Bytes].
type Tree struct {
	hidden
	reveal func() any
	held   int // what reveal holds in memory; 0 for what it returns
}

func treeOf(v any) Tree { return Tree{reveal: func() any { return v }} }

// NewMadeTree is a tree that is made whenever somebody looks at it, of something that
// holds so many bytes: for what few look at. what returns what [NewTree] accepts.
func NewMadeTree(held int, what func() any) Tree { return Tree{reveal: what, held: held} }

// NewTree takes v over. It accepts nil, bool, string, json.Number, []any and
// map[string]any, nested in any way; anything else is an error. Numbers come as
// json.Number so that they leave as the store wrote them: 1.10 stays 1.10.
func NewTree(v any) (Tree, error) {
	if err := checkTree(v, ""); err != nil {
		return Tree{}, err
	}
	return treeOf(v), nil
}

func checkTree(v any, at string) error {
	switch v := v.(type) {
	case nil, bool, string:
		return nil
	case json.Number:
		if !isNumber(string(v)) {
			return fmt.Errorf("%s: not a JSON number", nameOrRoot(at))
		}
		return nil
	case []any:
		for i, e := range v {
			if err := checkTree(e, join(at, strconv.Itoa(i))); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for k, e := range v {
			if err := checkTree(e, join(at, k)); err != nil {
				return err
			}
		}
		return nil
	default:
		return fmt.Errorf("%s: a secret cannot hold a value of Go type %T", nameOrRoot(at), v)
	}
}

// isNumber: of all JSON values only numbers start with a digit or a minus.
func isNumber(text string) bool {
	return text != "" && strings.ContainsRune("-0123456789", rune(text[0])) && json.Valid([]byte(text))
}

// Get returns the part of the tree under key. Dots go deeper and numbers index
// lists: "users.0.name". A key that itself contains dots, such as tls.crt, wins
// over going deeper. The error wraps [ErrNoKey].
func (t Tree) Get(key string) (Tree, error) {
	v, ok := lookup(t.Reveal(), key)
	if !ok {
		return Tree{}, fmt.Errorf("%w %q", ErrNoKey, key)
	}
	return treeOf(v), nil
}

// lookup tries the longest name first: "a.b.c", then "a.b" and "c" in it.
func lookup(v any, key string) (any, bool) {
	if list, ok := v.([]any); ok {
		first, rest, deeper := strings.Cut(key, ".")
		i, err := strconv.Atoi(first)
		if err != nil || i < 0 || i >= len(list) || strconv.Itoa(i) != first {
			return nil, false
		}
		if !deeper {
			return list[i], true
		}
		return lookup(list[i], rest)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, false
	}
	if e, ok := m[key]; ok {
		return e, true
	}
	for end := strings.LastIndexByte(key, '.'); end > 0; end = strings.LastIndexByte(key[:end], '.') {
		if e, ok := m[key[:end]]; ok {
			if found, ok := lookup(e, key[end+1:]); ok {
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

// Text is what a file of this value holds: a text as it is, anything else as
// compact JSON with sorted keys.
func (t Tree) Text() (Bytes, error) {
	if s, ok := t.Reveal().(string); ok {
		return New([]byte(s)), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t.Reveal()); err != nil {
		// encoding/json may quote what it could not encode: leave it out.
		return Bytes{}, errors.New("the value cannot be written as JSON")
	}
	return New(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// Reveal returns the value as [NewTree] took it. The caller must not change it.
func (t Tree) Reveal() any {
	if t.reveal == nil {
		return nil
	}
	return t.reveal()
}

// Size is about how many bytes the tree has as text, and more where it has many parts.
func (t Tree) Size() int { return sizeOf(t.Reveal()) }

func sizeOf(v any) int {
	const word = 16 // what holds a value, and what its allocation costs
	switch v := v.(type) {
	case string:
		return word + len(v)
	case json.Number:
		return word + len(v)
	case []any:
		size := word
		for _, e := range v {
			size += sizeOf(e)
		}
		return size
	case map[string]any:
		size := 4 * word
		for name, e := range v {
			size += 2*word + len(name) + sizeOf(e)
		}
		return size
	}
	return word
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

func nameOrRoot(at string) string {
	if at == "" {
		return "the secret"
	}
	return strconv.Quote(at)
}
