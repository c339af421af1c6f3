package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

const (
	reference = "#/definitions/"
	// quantity is a text in the document, and may be a number: cpu: 1.
	quantity = "io.k8s.apimachinery.pkg.api.resource.Quantity"
)

// fromOpenAPI makes a schema of each kind in an OpenAPI document, with all definitions
// it refers to.
func fromOpenAPI(document []byte) (kinds, error) {
	var api struct{ Definitions map[string]schema }
	if err := json.Unmarshal(document, &api); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	all := kinds{}
	for name, definition := range api.Definitions {
		file, isKind := kindFile(definition)
		if !isKind {
			continue
		}
		needed := schema{}
		collect(api.Definitions, name, needed)
		all[file] = schema{
			"$schema":     "http://json-schema.org/draft-07/schema#",
			"$ref":        reference + name,
			"definitions": needed,
		}
	}
	return all, nil
}

// kindFile is the file of a definition with a kind of its own. A definition of several
// groups, such as DeleteOptions, is never in a manifest.
func kindFile(definition schema) (string, bool) {
	data, err := json.Marshal(definition["x-kubernetes-group-version-kind"])
	if err != nil {
		return "", false
	}
	var is []struct{ Group, Version, Kind string }
	if err := json.Unmarshal(data, &is); err != nil || len(is) != 1 {
		return "", false
	}
	return fileName(is[0].Group, is[0].Version, is[0].Kind), true
}

// collect adds the definition of that name and all it refers to, made strict.
func collect(definitions map[string]schema, name string, needed schema) {
	if _, done := needed[name]; done {
		return
	}
	if name == quantity {
		needed[name] = anyType("string", "number")
		return
	}
	needed[name] = schema{} // a definition may refer to itself
	needed[name] = strict(definitions[name], func(other string) { collect(definitions, other, needed) })
}

// strict is a schema without descriptions, which refuses fields that it does not name.
// It calls refersTo for each definition in it.
func strict(s schema, refersTo func(string)) schema {
	if target, ok := s["$ref"].(string); ok {
		refersTo(strings.TrimPrefix(target, reference))
		return schema{"$ref": target}
	}
	if s["format"] == "int-or-string" {
		return anyType("string", "integer")
	}
	result := schema{}
	for _, keyword := range []string{"type", "required", "enum"} {
		if value, there := s[keyword]; there {
			result[keyword] = value
		}
	}
	for _, keyword := range []string{"items", "additionalProperties"} {
		if value, ok := s[keyword].(schema); ok {
			result[keyword] = strict(value, refersTo)
		}
	}
	if properties, ok := s["properties"].(schema); ok {
		result["properties"] = strictAll(properties, refersTo)
		result["additionalProperties"] = false
	}
	return result
}

func strictAll(properties schema, refersTo func(string)) schema {
	result := schema{}
	for name, property := range properties {
		if s, ok := property.(schema); ok {
			result[name] = strict(s, refersTo)
		}
	}
	return result
}

// anyType is the schema of a value with one of some types.
func anyType(types ...string) schema { return schema{"type": types} }
