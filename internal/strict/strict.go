// Package strict reads YAML into structs and finds every mistake at once: unknown and
// duplicate fields, and values of the wrong type. Each mistake has its line, and its cure
// where that is known.
//
// It reads the types of keymount.yaml: structs whose fields have yaml tags, pointers, slices,
// maps with texts as keys, texts, numbers, true and false, durations, and types that
// implement [Self]. Scalars, null, aliases and merges (<<) mean the same as in
// gopkg.in/yaml.v3, which parses the text. A field of type [yaml.Node] takes its value as it
// is.
package strict

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
)

const (
	// maxAliased bounds the steps through aliases, so that a few lines cannot stand for
	// millions.
	maxAliased = 400_000
	// maxMerges bounds the depth of merges of maps into each other.
	maxMerges = 100
)

// Self is a type with more than one form. DecodeStrict gets the node, neither null nor an
// alias, and uses decode to read it, or a part of it, into a pointer.
type Self interface {
	DecodeStrict(node *yaml.Node, decode func(node *yaml.Node, into any))
}

// More is a struct with more fields than its own, known only at run time.
type More interface {
	// MoreFields are their names.
	MoreFields() []string
	// MoreField is a pointer to read the field with that name into. It is called for each
	// such field in the text that is not null.
	MoreField(name string) any
}

// Decode reads a node into the value at into; fields missing in the node keep their values.
// prepare gets a pointer to each new entry of a list before it is read; nil is none. It
// returns the mistakes, each a [Mistake], in the order of their lines; with any mistake the
// value is of no use.
func Decode[T any](node *yaml.Node, into *T, prepare func(entry any)) []error {
	d := &decoder{
		known: map[Mistake]bool{}, misnomers: map[misnomer]bool{}, names: map[reflect.Type][]string{}, followed: map[*yaml.Node]bool{},
		prepare: prepare,
	}
	d.value(node, reflect.ValueOf(into).Elem())
	slices.SortStableFunc(d.mistakes, func(a, b Mistake) int { return cmp.Compare(a.Line, b.Line) })
	errs := make([]error, len(d.mistakes))
	for i, m := range d.mistakes {
		errs[i] = m
	}
	return errs
}

type decoder struct {
	mistakes  []Mistake
	known     map[Mistake]bool // without columns: one seen through several aliases counts once
	misnomers map[misnomer]bool
	names     map[reflect.Type][]string
	prepare   func(entry any)

	followed map[*yaml.Node]bool // the aliases around the present node
	aliased  int                 // steps through aliases
	merges   int                 // depth of merges around the present node
}

// misnomer is a key that names no field of a struct.
type misnomer struct {
	key *yaml.Node
	of  reflect.Type
}

// value reads n into out. It is false when out is unchanged: n is null, or a mistake.
func (d *decoder) value(n *yaml.Node, out reflect.Value) bool {
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) == 1:
		return d.value(n.Content[0], out)
	case n.Kind == yaml.AliasNode:
		return d.follow(n, func(target *yaml.Node) bool { return d.value(target, out) })
	case !d.spend(n):
		return false
	case out.Type() == reflect.TypeFor[yaml.Node]():
		out.Set(reflect.ValueOf(n).Elem())
		return true
	case isNull(n):
		return d.null(n, out)
	case out.Kind() == reflect.Pointer:
		if out.IsNil() {
			out.Set(reflect.New(out.Type().Elem()))
		}
		return d.value(n, out.Elem())
	}
	if self, ok := reflect.TypeAssert[Self](out.Addr()); ok {
		self.DecodeStrict(n, d.part)
		return true
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.mapping(n, out)
	case yaml.SequenceNode:
		return d.sequence(n, out)
	case yaml.ScalarNode, yaml.DocumentNode, yaml.AliasNode:
	}
	return d.scalar(n, out)
}

// part reads a node for a Self.
func (d *decoder) part(n *yaml.Node, into any) {
	if out := reflect.ValueOf(into); out.Kind() == reflect.Pointer && !out.IsNil() {
		d.value(n, out.Elem())
	}
}

// spend counts a step through an alias; it is false after too many.
func (d *decoder) spend(n *yaml.Node) bool {
	if len(d.followed) > 0 {
		d.aliased++
	}
	if d.aliased == maxAliased+1 {
		d.add(n, "document contains excessive aliasing")
	}
	return d.aliased <= maxAliased
}

// follow calls do with the target of an alias.
func (d *decoder) follow(alias *yaml.Node, do func(*yaml.Node) bool) bool {
	if d.followed[alias] {
		d.add(alias, "anchor '%s' value contains itself", alias.Value)
		return false
	}
	d.followed[alias] = true
	defer delete(d.followed, alias)
	return d.spend(alias) && do(alias.Alias)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// null empties a pointer, map or slice, and keeps any other value.
func (d *decoder) null(n *yaml.Node, out reflect.Value) bool {
	if bare := (&yaml.Node{Kind: yaml.ScalarNode, Value: n.Value}); !isNull(bare) {
		d.wrongTag(n)
		return false
	}
	empties := slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Map, reflect.Slice}, out.Kind())
	if empties {
		out.SetZero()
	}
	return empties
}

// scalar leaves the meaning of a text to yaml.v3, and only asks whether it has one.
func (d *decoder) scalar(n *yaml.Node, out reflect.Value) bool {
	if !slices.Contains([]reflect.Kind{reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64}, out.Kind()) {
		d.wrongType(n, out.Type())
		return false
	}
	err := n.Decode(out.Addr().Interface())
	if err == nil {
		return true
	}
	if _, ok := errors.AsType[*yaml.TypeError](err); ok {
		d.wrongType(n, out.Type())
	} else {
		d.wrongTag(n)
	}
	return false
}

// sequence leaves null out of a list, unless its elements are pointers, lists or maps.
func (d *decoder) sequence(n *yaml.Node, out reflect.Value) bool {
	if out.Kind() != reflect.Slice {
		d.wrongType(n, out.Type())
		return false
	}
	list := reflect.MakeSlice(out.Type(), 0, len(n.Content))
	for _, item := range n.Content {
		e := reflect.New(out.Type().Elem()).Elem()
		if d.prepare != nil {
			d.prepare(e.Addr().Interface())
		}
		if d.value(item, e) {
			list = reflect.Append(list, e)
		}
	}
	out.Set(list)
	return true
}

func (d *decoder) mapping(n *yaml.Node, out reflect.Value) bool {
	taken := map[string]bool{}
	switch {
	case out.Kind() == reflect.Struct:
		d.entries(n, taken, func(key *yaml.Node, name string, value *yaml.Node) { d.field(key, name, value, out) })
	case out.Kind() == reflect.Map && out.Type().Key().Kind() == reflect.String:
		if out.IsNil() {
			out.Set(reflect.MakeMap(out.Type()))
		}
		d.entries(n, taken, func(_ *yaml.Node, name string, value *yaml.Node) {
			e := reflect.New(out.Type().Elem()).Elem()
			d.value(value, e)
			out.SetMapIndex(reflect.ValueOf(name).Convert(out.Type().Key()), e)
		})
	default:
		d.wrongType(n, out.Type())
		return false
	}
	return true
}

func (d *decoder) field(key *yaml.Node, name string, value *yaml.Node, out reflect.Value) {
	names := d.namesOf(out.Type())
	if i := slices.Index(names, name); i >= 0 && name != "" {
		d.value(value, out.Field(i))
		return
	}
	more, _ := reflect.TypeAssert[More](out.Addr())
	if more != nil && slices.Contains(more.MoreFields(), name) {
		if !isNull(value) {
			d.part(value, more.MoreField(name))
		}
		return
	}
	if m := (misnomer{key, out.Type()}); !d.misnomers[m] { // otherwise each alias would look for a hint
		d.misnomers[m] = true
		if more != nil {
			names = slices.Concat(names, more.MoreFields())
		}
		d.unknownField(key, name, names)
	}
}

func (d *decoder) unknownField(key *yaml.Node, name string, names []string) {
	known := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" })
	d.add(key, "unknown field %q%s", name, spelling.Hint(name, known))
}

// namesOf are the YAML names of a struct's fields; empty for a field that is not read.
func (d *decoder) namesOf(t reflect.Type) []string {
	if names, ok := d.names[t]; ok {
		return names
	}
	names := make([]string, t.NumField())
	for i := range names {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if field.IsExported() && name != "-" {
			names[i] = cmp.Or(name, strings.ToLower(field.Name))
		}
	}
	d.names[t] = names
	return names
}
