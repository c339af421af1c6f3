package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
)

// The changes of a key; see [Change].
const (
	Added     = "added"
	Removed   = "removed"
	Changed   = "changed"
	Unchanged = "unchanged"
)

// Change is the change of one key of the secret at a path. It holds no value.
type Change struct {
	Path string `json:"path"`
	Key  string `json:"key"` // empty for an added or removed secret without keys
	What string `json:"change"`
}

// Diff lists the changes from one document to another, in the order of paths and keys.
func Diff(before, after Document) []Change {
	var changes []Change
	for _, path := range union(before.Paths(), after.Paths()) {
		old, had := before.secrets[path]
		now, has := after.secrets[path]
		keys := union(old.Keys(), now.Keys())
		for _, key := range keys {
			if what := compare(old, now, key); what != Unchanged {
				changes = append(changes, Change{path, key, what})
			}
		}
		switch {
		case len(keys) == 0 && !had:
			changes = append(changes, Change{path, "", Added})
		case len(keys) == 0 && !has:
			changes = append(changes, Change{path, "", Removed})
		}
	}
	return changes
}

func compare(before, after secret.Tree, key string) string {
	old, had := before.Child(key)
	now, has := after.Child(key)
	switch {
	case !had:
		return Added
	case !has:
		return Removed
	case equal(old, now):
		return Unchanged
	default:
		return Changed
	}
}

func equal(a, b secret.Tree) bool { return reflect.DeepEqual(a.Reveal(), b.Reveal()) }

// union merges two sorted lists.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// Set returns the text of a document with one key of the secret at path set to
// value; it makes a missing secret or key. The key is a name as it stands in the
// document: dots do not go deeper. Comments stay and so does the order, while
// blank lines and the form of a value may not. All other values are compared with
// those of before: if one differs, there is an error and no text.
func Set(text []byte, path store.Path, key string, value secret.Tree) ([]byte, error) {
	r, err := revise(text)
	if err != nil {
		return nil, err
	}
	values, err := r.values(path.String())
	if err != nil {
		return nil, err
	}
	if _, ok := values[key]; !ok {
		if err := r.deeper(path, key); err != nil {
			return nil, err
		}
	}
	values[key] = value.Reveal()
	if err := r.expect(path, values); err != nil {
		return nil, err
	}
	secret := child(r.root(), path.String(), func() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} })
	put(secret, key, valueNode(value.Reveal()))
	return r.text()
}

// RemoveKey returns the text of a document without one key of the secret at path,
// and without the secret when that was its last key. See [Set].
func RemoveKey(text []byte, path store.Path, key string) ([]byte, error) {
	r, err := revise(text)
	if err != nil {
		return nil, err
	}
	if err := r.has(path); err != nil {
		return nil, err
	}
	values, err := r.values(path.String())
	if err != nil {
		return nil, err
	}
	if _, ok := values[key]; !ok {
		if err := r.deeper(path, key); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%q has no key %q%s", path, key, spelling.Hint(key, slices.Sorted(maps.Keys(values))))
	}
	if len(values) == 1 {
		return r.without(path)
	}
	delete(values, key)
	if err := r.expect(path, values); err != nil {
		return nil, err
	}
	remove(child(r.root(), path.String(), nil), key)
	return r.text()
}

// RemoveSecret returns the text of a document without the secret at path. See [Set].
func RemoveSecret(text []byte, path store.Path) ([]byte, error) {
	r, err := revise(text)
	if err != nil {
		return nil, err
	}
	if err := r.has(path); err != nil {
		return nil, err
	}
	return r.without(path)
}

// revision is a document on its way to its next version.
type revision struct {
	document *yaml.Node
	indent   int
	before   Document
	want     map[string]secret.Tree // the content that the new text must have
}

func revise(text []byte) (*revision, error) {
	before, err := Parse(text)
	if err != nil {
		return nil, err
	}
	document, _, err := decode(text)
	if err != nil {
		return nil, err
	}
	return &revision{document, indentation(document.Content[0]), before, maps.Clone(before.secrets)}, nil
}

// indentation is the document's own before the first key of a secret.
func indentation(root *yaml.Node) int {
	for pair := range slices.Chunk(root.Content, 2) {
		if inside := pair[1].Content; root.Style&yaml.FlowStyle == 0 && pair[1].Style&yaml.FlowStyle == 0 && len(inside) > 0 {
			return min(max(inside[0].Column-root.Column, 2), 8)
		}
	}
	return 2
}

func (r *revision) root() *yaml.Node { return r.document.Content[0] }

// values are the keys of the secret at path, to be changed by the caller.
func (r *revision) values(path string) (map[string]any, error) {
	tree, ok := r.before.secrets[path]
	if !ok {
		return make(map[string]any), nil
	}
	values, ok := tree.Reveal().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%q is not a map of keys to values", path)
	}
	return maps.Clone(values), nil
}

func (r *revision) has(path store.Path) error {
	if _, ok := r.before.Get(path); !ok {
		return fmt.Errorf("has nothing at %q%s", path, spelling.Hint(path.String(), r.before.Paths()))
	}
	return nil
}

// deeper refuses a key that leads into a value: objects of a class may write it so.
func (r *revision) deeper(path store.Path, key string) error {
	tree, _ := r.before.Get(path)
	if _, err := tree.Get(key); err != nil {
		return nil //nolint:nilerr // no value there is the good case
	}
	return fmt.Errorf("%q: %q lies inside another key; set that one whole, as JSON, or edit the document", path, key)
}

func (r *revision) expect(path store.Path, values map[string]any) error {
	tree, err := secret.NewTree(values)
	if err != nil {
		return err
	}
	r.want[path.String()] = tree
	return nil
}

func (r *revision) without(path store.Path) ([]byte, error) {
	if len(r.want) == 1 {
		return nil, fmt.Errorf("%q is the last secret, and without any it would be no bundle; remove the file instead", path)
	}
	delete(r.want, path.String())
	remove(r.root(), path.String())
	return r.text()
}

var errRewrite = errors.New("cannot be written again without changing more than this; use 'keymount bundle edit'")

// text writes the document and reads it back.
func (r *revision) text() ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(r.indent)
	if err := errors.Join(encoder.Encode(r.document), encoder.Close()); err != nil {
		return nil, errRewrite // the text of yaml.v3 may quote a value
	}
	if out.Len() > MaxPlaintext {
		return nil, errTooLarge
	}
	after, err := Parse(out.Bytes())
	if err != nil || len(Diff(after, Document{r.want})) > 0 {
		return nil, errRewrite
	}
	return out.Bytes(), nil
}

// child finds the value of a key; create makes a missing one.
func child(mapping *yaml.Node, key string, create func() *yaml.Node) *yaml.Node {
	if at := index(mapping, key); at >= 0 {
		return mapping.Content[at+1]
	}
	value := create()
	put(mapping, key, value)
	return value
}

// put sets a key. The comments of an old value are about the key and stay.
func put(mapping *yaml.Node, key string, value *yaml.Node) {
	at := index(mapping, key)
	if at < 0 {
		if len(mapping.Content) == 0 {
			mapping.Style = 0 // {} has room for one line alone
		}
		mapping.Content = append(mapping.Content, textNode(key), value)
		return
	}
	old := mapping.Content[at+1]
	value.HeadComment, value.LineComment, value.FootComment = old.HeadComment, old.LineComment, old.FootComment
	mapping.Content[at+1] = value
}

// remove deletes a key and the comment above it. A comment below it may be about
// another key and stays.
func remove(mapping *yaml.Node, key string) {
	at := index(mapping, key)
	below := mapping.Content[at].FootComment
	mapping.Content = slices.Delete(mapping.Content, at, at+2)
	switch {
	case below == "":
	case at > 0:
		previous := mapping.Content[at-2]
		previous.FootComment = paragraphs(previous.FootComment, below)
	default:
		next := mapping.Content[0]
		next.HeadComment = paragraphs(below, next.HeadComment)
	}
}

func paragraphs(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(t string) bool { return t == "" }), "\n\n")
}

// index is the place of a key in the content of a mapping, or -1.
func index(mapping *yaml.Node, key string) int {
	for at := 0; at < len(mapping.Content); at += 2 {
		if mapping.Content[at].Value == key {
			return at
		}
	}
	return -1
}

// isPlainBlock tells whether a text of several lines reads well, and safely, as a
// literal block, like a certificate.
func isPlainBlock(text string) bool {
	odd := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	return strings.Contains(text, "\n") && !strings.ContainsFunc(text, odd) && !strings.HasSuffix(text, "\n\n") &&
		!strings.Contains(text, " \n") && !strings.HasPrefix(text, " ") && !strings.HasPrefix(text, "\n")
}
