package manifest

import "gopkg.in/yaml.v3"

// Type is what a value is to kubectl.
type Type string

// The types. kubectl reads YAML 1.1, where yes is true.
const (
	TypeNull   Type = "null"
	TypeText   Type = "text"
	TypeBool   Type = "true or false"
	TypeNumber Type = "number"
	TypeList   Type = "list"
	TypeMap    Type = "map"
)

// TypeOf is the type of a node; [TypeNull] for nil. kubectl makes a text of a date.
func TypeOf(node *yaml.Node) Type {
	switch node = Resolved(node); {
	case node == nil:
		return TypeNull
	case node.Kind == yaml.SequenceNode:
		return TypeList
	case node.Kind == yaml.MappingNode:
		return TypeMap
	case isPlain(node) && boolOf(node.Value) != "":
		return TypeBool
	}
	switch node.ShortTag() {
	case "!!null":
		return TypeNull
	case "!!bool":
		return TypeBool
	case "!!int", "!!float":
		return TypeNumber
	}
	return TypeText
}

// IsTrue tells a value that is true to kubectl from any other, also from a text "true".
func IsTrue(node *yaml.Node) bool {
	return TypeOf(node) == TypeBool && boolOf(Resolved(node).Value) == "true"
}

// isPlain tells a scalar that its text alone gives a type.
func isPlain(node *yaml.Node) bool {
	const named = yaml.TaggedStyle | yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return node.Style&named == 0
}

// boolOf is true or false for its spellings in YAML 1.1, and empty for other texts.
func boolOf(text string) string {
	switch text {
	case "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y":
		return "true"
	case "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N":
		return "false"
	}
	return ""
}
