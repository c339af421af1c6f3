package schema_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/schema"
	"github.com/keymount/keymount/store/all"
)

func compile(tb testing.TB, name string) *jsonschema.Schema {
	tb.Helper()
	text, err := schema.Read(name)
	if err != nil {
		tb.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		tb.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(schema.Address(name), document); err != nil {
		tb.Fatal(err)
	}
	compiled, err := compiler.Compile(schema.Address(name))
	if err != nil {
		tb.Fatal(err)
	}
	return compiled
}

// documents are those of a YAML text as JSON has them.
func documents(text []byte) ([]any, error) {
	var all []any
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var value any
		err := decoder.Decode(&value)
		if err != nil {
			if err.Error() == "EOF" {
				return all, nil
			}
			return nil, err
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(text)); err != nil {
			return nil, err
		}
		all = append(all, value)
	}
}

// validate is nil for a text whose documents fit a schema.
func validate(against *jsonschema.Schema, text []byte) error {
	values, err := documents(text)
	if err != nil {
		return err
	}
	for _, value := range values {
		if err := against.Validate(value); err != nil {
			return err
		}
	}
	return nil
}

func find(t *testing.T, patterns ...string) []string {
	t.Helper()
	var files []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(found), err)
		}
		files = append(files, found...)
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What the project shows fits its schemas.
func TestExamples(t *testing.T) {
	for name, files := range map[string][]string{
		schema.Config: {"../config/testdata/example.yaml"},
		schema.Values: find(t, "../examples/values.yaml", "../deploy/chart/ci/*.yaml"),
		schema.Class:  find(t, "../examples/*/2-class.yaml"),
	} {
		against := compile(t, name)
		for _, file := range files {
			if err := validate(against, read(t, file)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// The objects of the examples and of each form in the manual fit theirs.
func TestObjects(t *testing.T) {
	against := compile(t, schema.Objects)
	for _, file := range find(t, "../examples/*/2-class.yaml") {
		var c struct {
			Spec struct {
				Provider   string
				Parameters map[string]string
			}
		}
		if err := yaml.Unmarshal(read(t, file), &c); err != nil {
			t.Fatal(err)
		}
		if c.Spec.Provider != "keymount" {
			continue
		}
		if err := validate(against, []byte(c.Spec.Parameters["objects"])); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// ofContent are the mistakes that a schema of names and forms does not see, and why.
func ofContent() map[string]string {
	const yamls, rules, twice, together = "YAML itself refuses or repairs it", "rules for a kind of store, or the meaning of a pattern", "compares entries", "depends on another field"
	return map[string]string{
		"access_never_fits": rules, "access_roles": rules, "access_store": rules, "vault_rule_values": rules, "vault_bundle_writes": rules,
		"vault_auth_mounts": rules, "vault_namespaces": rules,
		"issuers_twice": twice, "sockets_twice": twice, "store_default_twice": twice, "store_name_twice": twice,
		"issuers_discovery_without_https": together, "issuers_file_incomplete": together, "issuers_misplaced_fields": together,
		"sockets_too_long": "bytes, with the folder of keymount.yaml", "status_long": "bytes, with the folder of keymount.yaml", "status_beside_sockets": together, "metrics_port": "the port 0",
		"empty": yamls, "only_comment": yamls, "two_documents": yamls,
	}
}

// Each mistake of keymount.yaml that config knows is one to the schema, but for those that
// are more than names and forms.
func TestMistakes(t *testing.T) {
	against, reasons := compile(t, schema.Config), ofContent()
	for _, file := range find(t, "../config/testdata/mistakes/*.yaml") {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		refused := validate(against, read(t, file)) != nil
		if refused == (reasons[name] != "") {
			t.Errorf("%s: refused: %v, reason against: %q", name, refused, reasons[name])
		}
		delete(reasons, name)
	}
	for name := range reasons {
		t.Errorf("there is no mistake %s any more", name)
	}
}

// A class takes one change that makes it wrong.
func TestClassMistakes(t *testing.T) {
	const good = `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: api, namespace: shop}
spec:
  provider: keymount
  parameters: {store: prod, role: api, objects: "[{path: a, file: b}]"}
  secretObjects:
    - {secretName: s, type: Opaque, data: [{objectName: b, key: k}]}
`
	against := compile(t, schema.Class)
	if err := validate(against, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ from, to string }{
		{"store: prod", "stroe: prod"},
		{"role: api", "role: 1"},
		{", objects:", ", object:"},
		{"secretName", "name"},
		{"objectName", "object"},
		{"kind: SecretProviderClass", "kind: SecretProviderClasses"},
		{"  parameters", "  params"},
		{"name: api, ", ""},
	} {
		text := strings.Replace(good, test.from, test.to, 1)
		if text == good || validate(against, []byte(text)) == nil {
			t.Errorf("takes %q in place of %q", test.to, test.from)
		}
	}
	other := strings.Replace(strings.Replace(good, "provider: keymount", "provider: vault", 1), "store: prod", "vaultAddress: https://vault", 1)
	if err := validate(against, []byte(other)); err != nil {
		t.Errorf("a class of another provider: %v", err)
	}
}

// objectCases are objects and whether they are right.
func objectCases() map[string]bool {
	return map[string]bool{
		`{path: a, key: k, file: b}`: true,
		`{path: a, file: b/}`:        true,
		`{path: a, file: ./}`:        true,
		`{path: a, file: .env, format: dotenv, mode: "0400", optional: true}`:              true,
		`{path: a, file: b, key: 1, version: 3, encoding: base64}`:                         true,
		`{path: a, file: b, template: "{{ .x }}"}`:                                         true,
		`{path: a, file: b/, format: pem, keyFormat: pkcs8}`:                               true,
		`{path: a, file: b, format: jks, passwordFrom: {path: c, key: d}}`:                 true,
		`{path: a, file: b/, args: {}, lease: shared, store: eu, role: x}`:                 true,
		`{path: a, key: k, fiel: b}`:                                                       false,
		`{key: k, file: b}`:                                                                false,
		`{path: a, key: k}`:                                                                false,
		`{path: a, key: k, file: /b}`:                                                      false,
		`{path: a, key: k, file: ../b}`:                                                    false,
		`{path: a, key: k, file: b, mode: "0999"}`:                                         false,
		`{path: a, key: k, file: b, optional: maybe}`:                                      false,
		`{path: a, key: k, file: b, encoding: base32}`:                                     false,
		`{path: a, file: b, format: toml}`:                                                 false,
		`{path: a, file: b/, args: [x]}`:                                                   false,
		`{path: a, file: b/, lease: node}`:                                                 false,
		`{path: a, file: b, template: x, format: json}`:                                    false,
		`{path: a, file: b, format: pfx, keyFormat: pkcs8}`:                                false,
		`{path: a, file: b/, format: pem, keyFormat: pkcs12}`:                              false,
		`{path: a, file: b, format: jks, passwordKey: x, passwordFrom: {path: c, key: d}}`: false,
		`{path: a, file: b, format: jks, passwordFrom: {path: c}}`:                         false,
		`{path: a, file: b, format: jks, passwordFrom: {path: c, key: d, file: e}}`:        false,
	}
}

// The schema of objects and the parser agree about names and forms.
func TestObjectCases(t *testing.T) {
	against := compile(t, schema.Objects)
	for text, good := range objectCases() {
		list := "[" + text + "]"
		if err := validate(against, []byte(list)); (err == nil) != good {
			t.Errorf("the schema: %s: %v", text, err)
		}
		if err := parse(map[string]string{"objects": list}); (err == nil) != good {
			t.Errorf("the parser: %s: %v", text, err)
		}
	}
}

// parse has the parser of mounts read a class.
func parse(parameters map[string]string) error {
	c, err := config.Parse([]byte("stores: [{vault: {addresses: [https://vault:8200]}}, {name: eu, vault: {addresses: [https://eu:8200]}}]"), all.All())
	if err != nil {
		return err
	}
	stores := map[string]class.Store{}
	for _, s := range c.Stores {
		stores[s.Name] = class.Store{Traits: s.Kind.Traits(), Settings: s.Settings}
	}
	attributes := map[string]string{"role": "api"}
	maps.Copy(attributes, parameters)
	for name, value := range map[string]string{"pod.name": "p", "pod.namespace": "shop", "pod.uid": "u", "serviceAccount.name": "api"} {
		attributes["csi.storage.k8s.io/"+name] = value
	}
	attributes["secretProviderClass"] = "c"
	text, err := json.Marshal(attributes)
	if err != nil {
		return err
	}
	_, err = class.Parse(class.Call{Dialect: class.DialectKeymount, Attributes: string(text), Permission: "420"}, stores)
	return err
}

// FuzzObjects looks for objects that the parser takes and the schema does not: an editor
// would mark what works.
func FuzzObjects(f *testing.F) {
	for text := range objectCases() {
		f.Add("[" + text + "]")
	}
	against := compile(f, schema.Objects)
	f.Fuzz(func(t *testing.T, text string) {
		if parse(map[string]string{"objects": text}) != nil {
			t.Skip()
		}
		if _, err := documents([]byte(text)); err != nil {
			t.Skip() // what JSON cannot have
		}
		if err := validate(against, []byte(text)); err != nil {
			t.Errorf("the parser takes %q: %v", text, err)
		}
	})
}

// Every field that the parser reads is in the schema, with a meaning, and no other.
func TestFields(t *testing.T) {
	text, err := schema.Read(schema.Class)
	if err != nil {
		t.Fatal(err)
	}
	type fields struct {
		Properties map[string]struct{ Description string }
	}
	var c struct {
		Definitions struct {
			Parameters fields
			Objects    struct{ Items fields }
		}
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		known []class.Field
		made  fields
	}{{class.Parameters(), c.Definitions.Parameters}, {class.Fields(), c.Definitions.Objects.Items}} {
		var names []string
		for _, field := range test.known {
			names = append(names, field.Name)
			if field.Meaning == "" || test.made.Properties[field.Name].Description != field.Meaning {
				t.Errorf("%s: %q is explained as %q", field.Name, field.Meaning, test.made.Properties[field.Name].Description)
			}
		}
		slices.Sort(names)
		if diff := cmp.Diff(names, slices.Sorted(maps.Keys(test.made.Properties))); diff != "" {
			t.Errorf("fields (-parser +schema):\n%s", diff)
		}
	}
}

// The chart's own schema, which Helm reads, has the names and types of keymount.yaml. It asks
// no more: what is wrong with a value keymount says better.
func TestChartAgrees(t *testing.T) {
	type definitions map[string]struct{ Properties map[string]map[string]any }
	var chart, own struct{ Definitions definitions }
	for file, into := range map[string]any{"../deploy/chart/values.schema.json": &chart, "config.json": &own} {
		if err := json.Unmarshal(read(t, file), into); err != nil {
			t.Fatal(err)
		}
	}
	for name, definition := range own.Definitions {
		for field, property := range definition.Properties {
			want, got := typeOf(property), typeOf(chart.Definitions[name].Properties[field])
			if got != want {
				t.Errorf("deploy/chart/values.schema.json: %s.%s is %s, and %s in keymount.yaml", name, field, got, want)
			}
		}
	}
}

// typeOf is the type of a value, however its schema spells it.
func typeOf(property map[string]any) string {
	reference, _ := property["$ref"].(string)
	switch {
	case strings.HasSuffix(reference, "/strings"):
		return "array"
	case strings.HasSuffix(reference, "/texts"):
		return "object"
	case reference != "":
		return reference
	case property["type"] == nil && property["enum"] != nil:
		return "string"
	case property["anyOf"] != nil:
		return "one of several"
	}
	text, _ := property["type"].(string)
	return text
}
