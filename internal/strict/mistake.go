package strict

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Mistake is one fault in the text, with its place.
type Mistake struct {
	Line, Column int
	Text         string
}

func (m Mistake) Error() string { return fmt.Sprintf("line %d: %s", m.Line, m.Text) }

func (d *decoder) add(at *yaml.Node, format string, args ...any) {
	m := Mistake{Line: at.Line, Text: fmt.Sprintf(format, args...)}
	if !d.known[m] {
		d.known[m] = true
		m.Column = at.Column
		d.mistakes = append(d.mistakes, m)
	}
}

// wrongType notes a value of the wrong type.
func (d *decoder) wrongType(n *yaml.Node, wanted reflect.Type) {
	const most = 10 // bytes shown of a value
	value := n.Value
	if len(value) > most {
		value = value[:most-3] + "..."
	}
	if n.Kind == yaml.ScalarNode && value != "" {
		d.add(n, "%q is %s where %s belongs", value, nameOf(n), nameOfType(wanted))
		return
	}
	d.add(n, "%s stands where %s belongs", nameOf(n), nameOfType(wanted))
}

// wrongTag notes a tag in the text that contradicts its value.
func (d *decoder) wrongTag(n *yaml.Node) {
	d.add(n, "the tag %s does not fit its value; remove the tag", n.ShortTag())
}

// nameOf is the name of a node's type for an operator.
func nameOf(n *yaml.Node) string {
	switch tag := n.ShortTag(); tag {
	case "!!str":
		return "a text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!seq":
		return "a list"
	case "!!map":
		return "a map"
	case "!!timestamp":
		return "a date"
	default:
		return strings.TrimPrefix(tag, "!!")
	}
}

func nameOfType(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 25s or 1m"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return "a whole number"
	case t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return "a list of texts"
	case t.Kind() == reflect.Slice:
		return "a list"
	default:
		return "a map"
	}
}
