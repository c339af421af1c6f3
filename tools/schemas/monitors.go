package main

import (
	"encoding/json"
	"reflect"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

// monitors are the Prometheus operator's kinds in the chart. Its CRDs are in no small
// module; the types know the names and kinds of all fields, though not which are required.
func monitors() kinds {
	all := kinds{}
	for _, kind := range []any{monitoring.PodMonitor{}, monitoring.ServiceMonitor{}} {
		t := reflect.TypeOf(kind)
		all[fileName("monitoring.coreos.com", "v1", t.Name())] = ofType(t)
	}
	return all
}

// ofType is the schema of a type's JSON. A type with a decoder of its own may hold
// anything.
func ofType(t reflect.Type) schema {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return schema{}
	}
	switch t.Kind() { //nolint:exhaustive // API types have no others
	case reflect.Pointer:
		return ofType(t.Elem())
	case reflect.Struct:
		properties := schema{}
		addFields(t, properties)
		return schema{"type": "object", "properties": properties, "additionalProperties": false}
	case reflect.Slice:
		return schema{"type": "array", "items": ofType(t.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": ofType(t.Elem())}
	case reflect.String:
		return anyType("string")
	case reflect.Bool:
		return anyType("boolean")
	case reflect.Float32, reflect.Float64:
		return anyType("number")
	default:
		return anyType("integer")
	}
}

// addFields adds a struct's fields, and those of inlined structs.
func addFields(t reflect.Type, properties schema) {
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name != "":
			properties[name] = ofType(field.Type)
		case field.Anonymous && field.Type.Kind() == reflect.Struct:
			addFields(field.Type, properties)
		}
	}
}
