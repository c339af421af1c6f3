package schema_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/schema"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/vault"
)

var update = flag.Bool("update", false, "write the schemas")

// object is a part of a JSON Schema.
type object map[string]any

const draft = "http://json-schema.org/draft-07/schema#" // the newest that Helm and all editors read

// TestSchemas makes the schemas and holds them against the files.
func TestSchemas(t *testing.T) {
	definitions := definitionsOf(t)
	made := map[string]object{
		schema.Config:  with(definitions["Config"], object{"title": "keymount.yaml, the operator's file", "definitions": definitions}),
		schema.Objects: with(objects(), object{"title": "The objects of a class for keymount"}),
		schema.Class:   classSchema(),
		schema.Values:  values(t, definitions),
	}
	for _, name := range schema.Names() {
		file := name + ".json"
		got := encode(t, with(made[name], object{"$schema": draft, "$id": schema.Address(name)}))
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil { //nolint:gosec // a schema is public
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got); to write it anew: go generate ./...\n%s", file, diff)
		}
	}
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(value); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// told is what editors say in place of a pattern; other programs pass over it.
const told = "patternErrorMessage"

// begun is what editors write where a value begins; other programs pass over it.
const begun = "defaultSnippets"

// with is an object with more keys.
func with(o, more object) object {
	all := object{}
	for _, one := range []object{o, more} {
		maps.Copy(all, one)
	}
	return all
}

// maker makes the definitions of keymount.yaml: each struct is one, named as its section of
// the manual.
type maker struct {
	t           *testing.T
	manual      map[string]map[string]string
	definitions map[string]object
	defaults    map[string]any
}

func definitionsOf(t *testing.T) map[string]object {
	t.Helper()
	m := maker{t: t, manual: readManual(t), definitions: map[string]object{}, defaults: defaults(t)}
	m.define(reflect.TypeFor[config.Config](), "")
	store := m.definitions["Store"]
	fields, _ := store["properties"].(object)
	var one []object
	for _, k := range all.All() {
		settings := reflect.TypeOf(k.New()).Elem()
		m.define(settings, k.Name())
		fields[k.Name()] = object{"$ref": "#/definitions/" + title(settings, k.Name()), "description": m.text("Store", k.Name())}
		one = append(one, object{"required": []string{k.Name()}})
	}
	store["oneOf"] = one
	return m.definitions
}

// title is the title of a struct in the manual: those of a kind are called after it.
func title(of reflect.Type, kind string) string {
	if kind != "" {
		kind = strings.ToUpper(kind[:1]) + kind[1:]
	}
	return kind + strings.TrimPrefix(of.Name(), "Settings")
}

// define adds the definition of a struct, and of all within.
func (m maker) define(of reflect.Type, kind string) {
	name := title(of, kind)
	properties, required := object{}, []string{}
	for field := range of.Fields() {
		yamlName := field.Tag.Get("yaml")
		if yamlName == "" || yamlName == "-" {
			continue
		}
		text := m.text(name, yamlName)
		made := m.of(field.Type, kind)
		limit(made, name+"."+yamlName, text)
		if value, ok := m.defaults[name+"."+yamlName]; ok {
			made["default"] = value
		}
		made["description"] = text
		properties[yamlName] = made
		if regexp.MustCompile(`(^|[.] )(Required|At least one)\.`).MatchString(text) {
			required = append(required, yamlName)
			if made["type"] == "array" {
				made["minItems"] = 1
			}
		}
	}
	made := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		made["required"] = required
	}
	m.definitions[name] = made
}

// of is the schema of a type.
func (m maker) of(what reflect.Type, kind string) object {
	switch {
	case what.Kind() == reflect.Pointer:
		return m.of(what.Elem(), kind)
	case what == reflect.TypeFor[time.Duration]():
		return object{
			"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`,
			told: "A duration is written as 25s, 1m30s or 2h.",
		}
	case what == reflect.TypeFor[config.Access]():
		rules := m.of(reflect.TypeFor[[]config.Rule](), kind)
		return object{"anyOf": []object{{"const": "store"}, rules}}
	}
	switch what.Kind() { //nolint:exhaustive // keymount.yaml has no others
	case reflect.Struct:
		if m.definitions[title(what, kind)] == nil {
			m.define(what, kind)
		}
		return object{"$ref": "#/definitions/" + title(what, kind)}
	case reflect.Slice:
		return object{"type": "array", "items": m.of(what.Elem(), kind)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": m.of(what.Elem(), kind)}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int:
		return object{"type": "integer"}
	case reflect.String:
		return object{"type": "string"}
	}
	m.t.Fatalf("no schema for %s", what)
	return nil
}

var bounds = regexp.MustCompile(`From (\d+) to (\d+)\.`)

// limit adds what a type does not say of a field: the bounds in its manual, and the values and
// forms that it takes.
func limit(made object, place, text string) {
	if found := bounds.FindStringSubmatch(text); found != nil && made["type"] == "integer" {
		made["minimum"], _ = strconv.Atoi(found[1])
		made["maximum"], _ = strconv.Atoi(found[2])
	}
	if values := enums()[place]; values != nil {
		made["enum"] = values
	}
	maps.Copy(made, forms()[place])
}

// enums are the fields of a few values.
func enums() map[string][]string {
	return map[string][]string{
		"Store.session":     {config.SessionServiceAccount, config.SessionPod},
		"Issuer.keys":       {config.KeysCluster, config.KeysDiscovery, config.KeysFile},
		"Audit.onFailure":   {config.OnFailureBlock, config.OnFailureContinue},
		"Audit.sync":        {config.SyncInterval, config.SyncAlways},
		"Audit.republishes": {config.RepublishesSum, config.RepublishesFull},
		"VaultAuth.method":  {vault.MethodKubernetes, vault.MethodJWT},
	}
}

// forms are the fields with a form, and with examples that say more than their type.
func forms() map[string]object {
	strings := func(more object) object { return object{"items": with(object{"type": "string"}, more)} }
	return map[string]object{
		"Config.sockets":       with(strings(object{"pattern": `(^|/)[a-zA-Z0-9_-]{1,30}\.sock$`, told: "A socket is named after the provider of the classes: keymount.sock."}), object{"minItems": 1}),
		"Config.issuers":       {"minItems": 1},
		"Config.stateFolder":   {"pattern": "^/", "examples": []string{"/run/keymount/state"}},
		"Config.metrics":       {"pattern": `^.*:[0-9]{1,5}$`, told: "Write :9090 for every address, or 127.0.0.1:9090 for this machine alone.", "examples": []string{":9090", "127.0.0.1:9090"}},
		"Store.name":           {"pattern": `^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`, told: "Lower-case letters, digits and dashes, 63 at most."},
		"Audit.keep":           {"minimum": 0},
		"Vault.addresses":      strings(object{"pattern": "^https?://", told: "An address is written as https://host:port.", "examples": []string{"https://vault:8200"}}),
		"Vault.mounts":         {"additionalProperties": object{"enum": []vault.Engine{vault.KV1, vault.KV2, vault.Other}}},
		"Rule.namespaces":      with(strings(object{"minLength": 1}), object{"examples": [][]string{{"shop"}, {"team-*"}}}),
		"Rule.serviceAccounts": with(strings(object{"minLength": 1}), object{"examples": [][]string{{"*"}}}),
		"Rule.roles":           {"examples": [][]string{{"{namespace}"}}},
		"Rule.paths":           with(strings(object{"minLength": 1}), object{"examples": [][]string{{"{namespace}/**"}, {"secret/{namespace}/**"}}}),
		"Rule.writes":          with(strings(object{"minLength": 1}), object{"examples": [][]string{{"pki/issue/{namespace}"}}}),
	}
}

// defaults are what keymount fills in, out of files that say nothing else, by field.
func defaults(t *testing.T) map[string]any {
	t.Helper()
	found := map[string]any{}
	for _, text := range []string{
		"stores: [{vault: {addresses: [https://vault:8200]}}]",
		"stores: [{bundle: {file: x, identityFile: y}}]\naudit: {file: z}",
	} {
		c, err := config.Parse([]byte(text), all.All())
		if err != nil {
			t.Fatal(err)
		}
		addDefaults(reflect.ValueOf(*c), "", found)
		addDefaults(reflect.ValueOf(c.Stores[0].Settings).Elem(), c.Stores[0].Kind.Name(), found)
	}
	for _, said := range []string{"Store.access", "Vault.addresses", "Bundle.file", "Bundle.identityFile", "Audit.file"} {
		delete(found, said)
	}
	return found
}

// addDefaults keeps those of the first file, where several have one.
func addDefaults(v reflect.Value, kind string, found map[string]any) {
	for field, value := range v.Fields() {
		name := field.Tag.Get("yaml")
		if name == "" || name == "-" || value.Kind() == reflect.Pointer && value.IsNil() {
			continue
		}
		place, value := title(v.Type(), kind)+"."+name, reflect.Indirect(value)
		switch {
		case value.Kind() == reflect.Struct && value.Type() != reflect.TypeFor[config.Access]():
			addDefaults(value, kind, found)
			continue
		case value.Kind() == reflect.Slice && value.Len() > 0 && value.Index(0).Kind() == reflect.Struct:
			addDefaults(value.Index(0), kind, found)
			continue
		case found[place] != nil || value.IsZero() && value.Kind() != reflect.Bool:
			continue
		}
		found[place] = value.Interface()
		if d, ok := reflect.TypeAssert[time.Duration](value); ok {
			found[place] = regexp.MustCompile(`([hm])0[ms](0s)?$`).ReplaceAllString(d.String(), "$1")
		}
	}
}

var (
	heading = regexp.MustCompile(`^## (\w+)$`)
	row     = regexp.MustCompile("^\\| `(\\w+)` \\| .*? \\| (.*) \\|$")
	anchor  = regexp.MustCompile(`\[(\w+)\]\(#\w+\)`)
)

// readManual reads the meaning of each field out of docs/configuration.md, by section.
func readManual(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	manual, section := map[string]map[string]string{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if found := heading.FindStringSubmatch(line); found != nil {
			section = found[1]
			manual[section] = map[string]string{}
		}
		if found := row.FindStringSubmatch(line); found != nil {
			manual[section][found[1]] = anchor.ReplaceAllString(strings.NewReplacer("<br>", "\n\n", `\|`, "|").Replace(found[2]), "$1")
		}
	}
	return manual
}

func (m maker) text(section, field string) string {
	text := m.manual[section][field]
	if text == "" {
		m.t.Errorf("docs/configuration.md has no %s.%s; go generate ./config writes it", section, field)
	}
	return text
}

// objects is the list of a class's objects.
func objects() object {
	own := map[string]object{
		"optional":     {"type": "boolean", "default": false},
		"mode":         {"pattern": `^(0o)?0?[0-7]{3}$`, "default": "0444", "examples": []string{"0400", "0440"}, told: `A mode is octal and in quotes, such as "0400".`},
		"path":         {"minLength": 1, "examples": []string{"secret/shop/db"}},
		"file":         {"pattern": `^([^/.]|\.[^.]|\.$)`, "examples": []string{"db/password", "tls/"}},
		"args":         {"type": "object"},
		"passwordFrom": with(fieldsOf(class.PasswordFields(), unquoted(), nil), object{"required": []string{"path", "key"}}),
	}
	entry := with(fieldsOf(class.Fields(), unquoted(), own), object{"required": []string{"path", "file"}})
	entry["allOf"] = []object{
		{"if": has("template"), "then": without("key", "format", "encoding")},
		{"if": has("passwordKey"), "then": without("passwordFrom")},
		{"if": object{"not": object{"properties": object{"format": object{"const": "pem"}}, "required": []string{"format"}}}, "then": without("keyFormat")},
	}
	return object{"type": "array", "minItems": 1, "maxItems": 1000, "items": entry}
}

func has(field string) object { return object{"required": []string{field}} }

// without refuses fields, and offers none of them.
func without(fields ...string) object {
	var some []object
	for _, field := range fields {
		some = append(some, has(field))
	}
	return object{"not": object{"anyOf": some}}
}

// unquoted is the type of a text that need not be in quotes.
func unquoted() []string { return []string{"string", "number", "boolean"} }

// fieldsOf is a map of fields, each of this type unless own says more.
func fieldsOf(fields []class.Field, of any, own map[string]object) object {
	properties := object{}
	for _, field := range fields {
		made := with(object{"type": of, "description": field.Meaning}, own[field.Name])
		if field.Values != nil {
			made["type"], made["enum"] = "string", field.Values
		}
		properties[field.Name] = made
	}
	return object{"type": "object", "additionalProperties": false, "properties": properties}
}

// classSchema is that of a SecretProviderClass. Classes of other providers have parameters of
// their own.
func classSchema() object {
	text := object{"type": "string"}
	texts := object{"type": "object", "additionalProperties": text}
	parameters := with(fieldsOf(class.Parameters(), "string", map[string]object{
		"objects": {
			"minLength": 1, "contentMediaType": "application/yaml", "contentSchema": object{"$ref": "#/definitions/objects"},
			begun: []object{{
				"label": "objects", "description": "One value of a secret, as a file.",
				"body": "^|\n  - path: ${1:secret/shop/db}\n    key: ${2:password}\n    file: ${3:db/password}", // ^ keeps it out of quotes
			}},
		},
	}), object{"required": []string{"objects"}, "description": "What keymount reads for the pod. Parameters are texts: objects is a list in YAML behind a |."})
	closed := func(properties object, required ...string) object {
		return object{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
	}
	data := closed(object{
		"objectName": object{"type": "string", "description": "A file of the mount."},
		"key":        object{"type": "string", "description": "Its key in the Secret."},
	}, "objectName", "key")
	secret := closed(object{
		"secretName": object{"type": "string", "description": "The name of the Secret, in the pod's namespace."},
		"type":       object{"type": "string", "description": "The type of the Secret.", "examples": []string{"Opaque", "kubernetes.io/tls", "kubernetes.io/dockerconfigjson"}},
		"labels":     texts, "annotations": texts,
		"data": object{"type": "array", "items": data},
	}, "secretName", "type", "data")
	spec := closed(object{
		"provider":      object{"type": "string", "description": "keymount, or another provider of the driver.", "examples": []string{"keymount"}},
		"parameters":    object{"type": "object"},
		"secretObjects": object{"type": "array", "items": secret, "description": "Kubernetes Secrets that the driver makes of files while a pod uses the class."},
	}, "provider", "parameters")
	spec["if"] = object{"properties": object{"provider": object{"const": "keymount"}}}
	spec["then"] = object{"properties": object{"parameters": object{"$ref": "#/definitions/parameters"}}}
	return with(closed(object{
		"apiVersion": object{"enum": []string{"secrets-store.csi.x-k8s.io/v1", "secrets-store.csi.x-k8s.io/v1alpha1"}},
		"kind":       object{"const": "SecretProviderClass"},
		"metadata":   object{"type": "object", "required": []string{"name"}, "properties": object{"name": text, "namespace": text, "labels": texts, "annotations": texts}},
		"spec":       spec,
		"status":     object{"type": "object"},
	}, "apiVersion", "kind", "metadata", "spec"), object{
		"title":       "A SecretProviderClass for keymount",
		"definitions": object{"parameters": parameters, "objects": objects()},
	})
}

// values is the chart's own schema, with all that is known of keymount.yaml and with the
// comments of the chart's values.
func values(t *testing.T, definitions map[string]object) object {
	t.Helper()
	var chart object
	text, err := os.ReadFile("../deploy/chart/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &chart); err != nil {
		t.Fatal(err)
	}
	own, _ := chart["definitions"].(map[string]any)
	for name, definition := range definitions {
		own[name] = definition
	}
	// A file of values says what differs from the chart's own.
	required(chart)
	var comments yaml.Node
	if text, err = os.ReadFile("../deploy/chart/values.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &comments); err != nil {
		t.Fatal(err)
	}
	describe(chart, comments.Content[0])
	return chart
}

// required takes away what has to be there but for keymount.yaml: the chart fills it in.
func required(chart object) {
	chart["required"] = []string{"config"}
	properties, _ := chart["properties"].(map[string]any)
	for name := range properties {
		if part, ok := properties[name].(map[string]any); ok {
			dropRequired(part)
			if part["type"] == "object" { // null takes away what the chart has there
				part["type"] = []string{"object", "null"}
			}
		}
	}
}

func dropRequired(part map[string]any) {
	if properties, ok := part["properties"].(map[string]any); ok {
		delete(part, "required")
		for _, property := range properties {
			if inner, ok := property.(map[string]any); ok {
				dropRequired(inner)
			}
		}
	}
}

// describe adds the comments above values, and their defaults.
func describe(part object, values *yaml.Node) {
	properties, _ := part["properties"].(map[string]any)
	for i := 0; i+1 < len(values.Content); i += 2 {
		key, value := values.Content[i], values.Content[i+1]
		property, ok := properties[key.Value].(map[string]any)
		if !ok {
			continue
		}
		if comment := commentOf(key.HeadComment); comment != "" && property["description"] == nil {
			property["description"] = comment
		}
		if value.Kind == yaml.ScalarNode && value.Value != "" && property["$ref"] == nil {
			var scalar any
			if value.Decode(&scalar) == nil {
				property["default"] = scalar
			}
		}
		if value.Kind == yaml.MappingNode && key.Value != "config" {
			describe(property, value)
		}
	}
}

// commentOf is a comment for helm-docs as a text.
func commentOf(comment string) string {
	_, text, ok := strings.Cut(comment, "# -- ")
	if !ok {
		return ""
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(strings.TrimPrefix(lines[i], "#"))
	}
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return line == "" }), " ")
}
