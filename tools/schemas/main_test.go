package main

import (
	"encoding/json"
	"testing"
)

const document = `{"definitions": {
  "io.k8s.api.apps.v1.DaemonSet": {
    "description": "DaemonSet runs everywhere.",
    "type": "object",
    "required": ["spec"],
    "properties": {
      "spec": {"description": "What runs.", "$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"},
      "metadata": {"type": "object", "additionalProperties": {"type": "string"}}
    },
    "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "DaemonSet"}]
  },
  "io.k8s.api.core.v1.PodSpec": {
    "type": "object",
    "properties": {
      "port": {"$ref": "#/definitions/intstr"},
      "cpu": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"},
      "within": {"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"},
      "list": {"type": "array", "items": {"type": "object", "properties": {}}}
    }
  },
  "intstr": {"type": "string", "format": "int-or-string"},
  "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
  "io.k8s.api.core.v1.Other": {"type": "object"},
  "options": {"x-kubernetes-group-version-kind": [{"version": "v1", "kind": "A"}, {"version": "v1", "kind": "B"}]}
}}`

const daemonSet = `{
  "$ref": "#/definitions/io.k8s.api.apps.v1.DaemonSet",
  "$schema": "http://json-schema.org/draft-07/schema#",
  "definitions": {
    "intstr": {"type": ["string", "integer"]},
    "io.k8s.api.apps.v1.DaemonSet": {
      "additionalProperties": false,
      "properties": {
        "metadata": {"additionalProperties": {"type": "string"}, "type": "object"},
        "spec": {"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"}
      },
      "required": ["spec"],
      "type": "object"
    },
    "io.k8s.api.core.v1.PodSpec": {
      "additionalProperties": false,
      "properties": {
        "cpu": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"},
        "list": {"items": {"additionalProperties": false, "properties": {}, "type": "object"}, "type": "array"},
        "port": {"$ref": "#/definitions/intstr"},
        "within": {"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"}
      },
      "type": "object"
    },
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]}
  }
}`

func TestOpenAPI(t *testing.T) {
	all, err := fromOpenAPI([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Errorf("got %d kinds, want the DaemonSet alone", len(all))
	}
	if got, want := encoded(t, all["daemonset-apps-v1.json"]), encoded(t, json.RawMessage(daemonSet)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestMonitors(t *testing.T) {
	all := monitors()
	spec := at(t, all["podmonitor-monitoring-v1.json"], "properties", "spec")
	if spec["additionalProperties"] != false {
		t.Error("a PodMonitor may have any field")
	}
	endpoint := at(t, spec, "properties", "podMetricsEndpoints", "items", "properties")
	if got := encoded(t, endpoint["path"]); got != `{"type":["string"]}` {
		t.Errorf("got %s for the path of an endpoint", got)
	}
	at(t, all["servicemonitor-monitoring-v1.json"], "properties", "metadata", "properties", "labels")
}

func TestFileName(t *testing.T) {
	tests := map[string][3]string{
		"service-v1.json":   {"", "v1", "Service"},
		"role-rbac-v1.json": {"rbac.authorization.k8s.io", "v1", "Role"},
	}
	for want, is := range tests {
		if got := fileName(is[0], is[1], is[2]); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// at is the part of a schema at the end of a way in.
func at(t *testing.T, s schema, way ...string) schema {
	t.Helper()
	for i, step := range way {
		next, ok := s[step].(schema)
		if !ok {
			t.Fatalf("no %v", way[:i+1])
		}
		s = next
	}
	return s
}

// encoded is a value as JSON with sorted keys.
func encoded(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var sorted any
	if err := json.Unmarshal(data, &sorted); err != nil {
		t.Fatal(err)
	}
	data, err = json.Marshal(sorted)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
