// Package schema has the JSON Schemas of what people write for keymount, with which an editor
// completes and checks it: keymount.yaml, a class, the objects in a class, and the chart's
// values.
//
// They are made of the structs of package config and the kinds of store, of their manual
// docs/configuration.md, and of the fields that package class reads; a test here makes them.
// A schema knows names, types and the form of values. What more is asked of them is for
// `keymount lint` and `keymount config check` to say.
package schema

import (
	"embed"
	"fmt"
)

//go:generate go test -run ^TestSchemas$ . -update

//go:embed *.json
var files embed.FS

// The names of the schemas.
const (
	Class   = "class"
	Config  = "config"
	Objects = "objects"
	Values  = "values"
)

// Names are the names of all schemas.
func Names() []string { return []string{Class, Config, Objects, Values} }

// Read is the text of a schema.
func Read(name string) ([]byte, error) {
	text, err := files.ReadFile(name + ".json")
	if err != nil {
		return nil, fmt.Errorf("there is no schema %q", name)
	}
	return text, nil
}

// Address is where an editor finds a schema.
func Address(name string) string {
	return "https://github.com/keymount/keymount/raw/main/schema/" + name + ".json"
}

// Header is the line by which a YAML file names its schema to an editor.
func Header(name string) string { return "# yaml-language-server: $schema=" + Address(name) }
