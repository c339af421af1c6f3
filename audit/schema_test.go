package audit_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/record"
)

var update = flag.Bool("update", false, "write docs/audit.schema.json")

const schemaFile = "../docs/audit.schema.json"

// TestSchema holds docs/audit.schema.json and the structs of record.go together, comments
// included.
func TestSchema(t *testing.T) {
	got := makeSchema(t)
	if *update {
		if err := os.WriteFile(schemaFile, got, 0o644); err != nil { //nolint:gosec // documentation is public
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got); to write it anew: go test ./audit -update\n%s", schemaFile, diff)
	}
}

// object is a part of a JSON Schema.
type object map[string]any

// makeSchema is the JSON Schema of a record.
func makeSchema(t *testing.T) []byte {
	t.Helper()
	s := schema{t: t, source: readSource(t), defs: object{}}
	root := s.object(reflect.TypeFor[audit.Record]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "A record of keymount's audit trail"
	root["$defs"] = s.defs
	root["allOf"] = s.fieldsOfKinds()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// schema makes a schema of types, and of the comments in their source.
type schema struct {
	t      *testing.T
	source recordSource
	defs   object // of the structs within
}

// object is the schema of a struct.
func (s schema) object(of reflect.Type) object {
	properties, required := object{}, []string{}
	for field := range of.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		properties[name] = s.field(of.Name(), field)
		if options != "omitempty" {
			required = append(required, name)
		}
	}
	made := object{"type": "object", "additionalProperties": false, "required": required, "properties": properties}
	if text := s.source.comment(of.Name(), ""); text != "" {
		made["description"] = text
	}
	return made
}

// field is the schema of a field: its type, comment, and the values that it may have.
func (s schema) field(owner string, field reflect.StructField) object {
	made := s.of(field.Type)
	place := owner + "." + field.Name
	maps.Copy(made, limits()[place])
	if values := s.values(place, field.Type); values != nil {
		made["enum"] = values
	}
	if text := s.source.comment(owner, field.Name); text != "" {
		made["description"] = text
	}
	return made
}

// of is the schema of a type.
func (s schema) of(what reflect.Type) object {
	switch what.Kind() { //nolint:exhaustive // a record has no others
	case reflect.Pointer:
		return s.of(what.Elem())
	case reflect.Struct:
		if _, made := s.defs[what.Name()]; !made {
			s.defs[what.Name()] = nil // it is being made
			s.defs[what.Name()] = s.object(what)
		}
		return object{"$ref": "#/$defs/" + what.Name()}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(what.Elem())}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer", "minimum": 0}
	case reflect.String:
		return object{"type": "string"}
	}
	s.t.Fatalf("no schema for %s", what)
	return nil
}

// values are all that a field of a few values may have; nil for any other.
func (s schema) values(place string, of reflect.Type) []string {
	if of.PkgPath() != "" && of.Kind() == reflect.String {
		return s.source.constants[of.Name()]
	}
	return map[string][]string{
		"Secret.Source": {string(record.FromStore), string(record.FromMemory), string(record.Stale)},
		"Lease.Change":  {"issued", "renewed", "revoked"},
		"Stale.State":   {"begin", "end"},
	}[place]
}

// limits are what a type does not say of a field.
func limits() map[string]object {
	const (
		moment = `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`
		hash   = `^[A-Za-z0-9_-]{43}$`
	)
	return map[string]object{
		"Record.At": {"pattern": moment}, "Count.First": {"pattern": moment}, "Count.Last": {"pattern": moment},
		"Lost.First": {"pattern": moment}, "Lost.Last": {"pattern": moment},
		"Record.Prev": {"pattern": `^([A-Za-z0-9_-]{43})?$`}, "Predecessor.Hash": {"pattern": hash},
		"Record.V": {"const": audit.Version}, "Record.Boot": {"pattern": `^\d{8}T\d{6}Z-[a-z0-9]{8}$`},
		"Config.SHA256": {"pattern": `^[0-9a-f]{64}$`}, "Record.Part": {"minimum": 1}, "Record.Parts": {"minimum": 2},
		"Count.Count": {"minimum": 1}, "Lost.Count": {"minimum": 1}, "Checkpoint.Number": {"minimum": 1},
	}
}

// fieldsOfKinds are the fields that the records of each kind have.
func (s schema) fieldsOfKinds() []object {
	owner := []string{"pod", "serviceAccount"}
	fields := map[audit.Kind][]string{
		audit.KindBegin: {"begin"}, audit.KindCheckpoint: {"checkpoint"}, audit.KindEnd: {"checkpoint"},
		audit.KindMount: append([]string{"code", "outcome"}, owner...), audit.KindCount: {"counts"},
		audit.KindWithdrawn: {"withdrawn"}, audit.KindLogin: append([]string{"login", "outcome", "tokens"}, owner...),
		audit.KindLease: append([]string{"lease", "outcome", "tokens"}, owner...),
		audit.KindStale: append([]string{"class", "stale"}, owner...), audit.KindConfig: {"config"}, audit.KindLost: {"lost"},
	}
	var all []object
	for _, kind := range s.source.constants["Kind"] {
		if fields[audit.Kind(kind)] == nil {
			s.t.Errorf("which fields does a record of kind %s have? Add it to fieldsOfKinds", kind)
		}
		all = append(all, object{
			"if":   object{"properties": object{"kind": object{"const": kind}}},
			"then": object{"required": fields[audit.Kind(kind)]},
		})
	}
	return all
}

// recordSource is what reflection does not know of record.go.
type recordSource struct {
	comments  map[string]string   // of types and fields, by Type and Type.Field
	constants map[string][]string // the values of a type
	names     map[string]string   // fields, from Go to JSON
}

func readSource(t *testing.T) recordSource {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "record.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	s := recordSource{comments: map[string]string{}, constants: map[string][]string{}, names: map[string]string{}}
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range group.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				s.comments[spec.Name.Name] = group.Doc.Text()
				s.readFields(spec)
			case *ast.ValueSpec:
				s.readConstants(spec)
			}
		}
	}
	return s
}

func (s recordSource) readFields(spec *ast.TypeSpec) {
	structure, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, field := range structure.Fields.List {
		name := field.Names[0].Name
		tag, _ := strconv.Unquote(field.Tag.Value)
		s.names[name], _, _ = strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		s.comments[spec.Name.Name+"."+name] = field.Doc.Text() + field.Comment.Text()
	}
}

func (s recordSource) readConstants(spec *ast.ValueSpec) {
	of, ok := spec.Type.(*ast.Ident)
	if !ok {
		return
	}
	for _, value := range spec.Values {
		if literal, ok := value.(*ast.BasicLit); ok {
			text, _ := strconv.Unquote(literal.Value)
			s.constants[of.Name] = append(s.constants[of.Name], text)
		}
	}
}

var (
	link     = regexp.MustCompile(`\[([A-Z]\w*)\]`)
	goWord   = regexp.MustCompile(`\b[A-Z]\w*\b`)
	lineWrap = regexp.MustCompile(`\s*\n\s*`)
)

// comment is that of a type or field in the words of JSON, without the name that a Go comment
// begins with.
func (s recordSource) comment(owner, field string) string {
	place, subject := owner, owner
	if field != "" {
		place, subject = owner+"."+field, field
	}
	text := strings.TrimSpace(lineWrap.ReplaceAllString(s.comments[place], " "))
	for _, verb := range []string{" is ", " are ", " "} {
		if rest, ok := strings.CutPrefix(text, subject+verb); ok {
			text = rest
			break
		}
	}
	if text == "" {
		return ""
	}
	text = link.ReplaceAllString(text, "$1")
	text = goWord.ReplaceAllStringFunc(text, func(word string) string {
		if name, ok := s.names[word]; ok {
			return name
		}
		return word
	})
	return strings.ToUpper(text[:1]) + text[1:]
}

// compiled is docs/audit.schema.json.
var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	return jsonschema.NewCompiler().Compile(schemaFile)
})

// hold holds a line against the schema, and marks which of its properties it has.
func hold(t *testing.T, line []byte, seen map[string]bool) {
	t.Helper()
	against, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := against.Validate(value); err != nil {
		t.Errorf("%v\n%s", err, line)
	}
	mark(reflect.TypeFor[audit.Record](), value, seen)
}

// mark marks the fields of a struct that a value has, and those of the structs within.
func mark(of reflect.Type, value any, seen map[string]bool) {
	switch of.Kind() { //nolint:exhaustive // the others have no fields
	case reflect.Pointer:
		mark(of.Elem(), value, seen)
	case reflect.Slice:
		items, _ := value.([]any)
		for _, item := range items {
			mark(of.Elem(), item, seen)
		}
	case reflect.Struct:
		members, _ := value.(map[string]any)
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if member, ok := members[name]; ok {
				seen[of.Name()+"."+name] = true
				mark(field.Type, member, seen)
			}
		}
	}
}

// unseen are the fields of a struct, and of those within, that were never marked.
func unseen(of reflect.Type, seen map[string]bool) []string {
	var missing []string
	switch of.Kind() { //nolint:exhaustive // the others have no fields
	case reflect.Pointer, reflect.Slice:
		return unseen(of.Elem(), seen)
	case reflect.Struct:
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !seen[of.Name()+"."+name] {
				missing = append(missing, of.Name()+"."+name)
			}
			missing = append(missing, unseen(field.Type, seen)...)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// The manual shows a record of each kind, as they are.
func TestRecordsOfTheManual(t *testing.T) {
	text, err := os.ReadFile("../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSuffix(line, []byte("\n")); bytes.HasPrefix(line, []byte(`{"at":`)) {
			hold(t, line, map[string]bool{})
			kinds[string(read(t, line).Kind)] = true
			if canonical, err := audit.Canonical(line); err != nil || !bytes.Equal(canonical, line) {
				t.Errorf("is not as it was written: %s", line)
			}
		}
	}
	for _, want := range readSource(t).constants["Kind"] {
		if !kinds[want] {
			t.Errorf("docs/audit.md shows no record of kind %s", want)
		}
	}
}

// A schema that takes everything would hold nothing.
func TestSchemaRefuses(t *testing.T) {
	against, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	const good = `{"at":"2026-01-02T15:04:05.000000Z","boot":"20260102T150405Z-abcdefgh","kind":"lost",` +
		`"lost":{"count":1,"first":"2026-01-02T15:04:05.000000Z","last":"2026-01-02T15:04:05.000000Z"},"node":"worker-1","prev":"","seq":0,"v":1}`
	for _, test := range []struct{ from, to string }{
		{`"v":1`, `"v":2`},
		{`"v":1`, `"v":1,"value":"s3cret"`},
		{`"seq":0`, `"seq":0.5`},
		{`"seq":0,`, ``},
		{`"kind":"lost"`, `"kind":"found"`},
		{`"kind":"lost"`, `"kind":"withdrawn"`},
		{`"count":1`, `"count":0`},
		{`05.000000Z","boot"`, `05Z","boot"`},
		{`"prev":""`, `"prev":"x"`},
	} {
		text := strings.Replace(good, test.from, test.to, 1)
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil || text == good {
			t.Fatal(test, err)
		}
		if against.Validate(value) == nil {
			t.Errorf("takes %s in place of %s", test.to, test.from)
		}
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if err := against.Validate(value); err != nil {
		t.Error(fmt.Errorf("the one without a change: %w", err))
	}
}
