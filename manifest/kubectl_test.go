package manifest_test

import (
	"encoding/json"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	kubectl "sigs.k8s.io/yaml"

	"github.com/keymount/keymount/manifest"
)

// plain are scalars that parsers of YAML do not agree about.
func plain() []string {
	return strings.Fields(`y Y yes Yes YES yEs n N no No NO on On ON off Off OFF true True TRUE tRue false False FALSE
		~ null Null NULL 2024-01-01 2024-01-01T10:00:00Z 0o17 017 08 0x1F 0b11 1_000 1e3 1e400 .5 +.5 1. 1:30 = << 18446744073709551616
		"yes" 'no' "5" !!str<5 !!bool<yes !!bool<"yes" !!int<"5" !!float<5 !foo<5 !!timestamp<2024-01-01 !!binary<aGk= -0b1 - + . 5m 0xffffffffffffffffffff`)
}

// TestTypesAreKubectls reads each scalar with kubectl's parser.
func TestTypesAreKubectls(t *testing.T) {
	for _, text := range plain() {
		holdAgainstKubectl(t, "a: "+strings.ReplaceAll(text, "<", " ")+"\n")
	}
	holdAgainstKubectl(t, "a: <<\n")
	holdAgainstKubectl(t, "a:\n")
}

// TestEntriesAreKubectls has names that are there twice, and merged maps before and behind
// them.
func TestEntriesAreKubectls(t *testing.T) {
	for _, text := range entrySeeds() {
		holdAgainstKubectl(t, text)
	}
}

func entrySeeds() []string {
	return []string{
		"a: b\na: c\n", "a: b\n<<: {a: c}\n", "<<: {a: c}\na: b\n", "<<: [{a: b}, {a: c, d: e}]\n", "<<: {a: b, <<: {a: c}}\n<<: {d: e}\n",
		"'<<': b\n", "a: &a {b: c}\nd: {<<: *a, b: e}\nf: {b: g, <<: [*a, {h: i}]}\n", "a: {b: c}\na: {d: e}\n", "a: &a [b, yes, *b]\n", "a: &b x\nc: *b\n",
	}
}

// FuzzEntries holds all maps of a document against kubectl's parser.
func FuzzEntries(f *testing.F) {
	for _, text := range append(entrySeeds(), plain()...) {
		f.Add("a: " + text)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !strings.Contains(text, "!") { // yaml.v3 forgets the tag that is nothing but that
			holdAgainstKubectl(t, text)
		}
	})
}

func holdAgainstKubectl(t *testing.T, text string) {
	t.Helper()
	var want any
	object, err := kubectl.YAMLToJSON([]byte(text))
	read := manifest.Parse("x.yaml", []byte(text))
	if err != nil || len(text) > 1000 || len(read.Mistakes) > 0 || len(read.Objects) != 1 || manifest.TypeOf(read.Objects[0].Node) != manifest.TypeMap {
		return // one refuses it, and the API server refuses what is no map
	}
	if err := json.Unmarshal(object, &want); err != nil {
		t.Fatal(err)
	}
	compare(t, text, read.Objects[0].Node, want)
}

func compare(t *testing.T, text string, node *yaml.Node, want any) {
	t.Helper()
	types := map[manifest.Type]func() bool{
		manifest.TypeNull:   func() bool { return want == nil },
		manifest.TypeText:   func() bool { _, ok := want.(string); return ok },
		manifest.TypeBool:   func() bool { is, ok := want.(bool); return ok && is == manifest.IsTrue(node) },
		manifest.TypeNumber: func() bool { _, ok := want.(float64); return ok },
		manifest.TypeList:   func() bool { _, ok := want.([]any); return ok },
		manifest.TypeMap:    func() bool { _, ok := want.(map[string]any); return ok },
	}
	got := manifest.TypeOf(node)
	if !types[got]() {
		t.Errorf("%q: %s, and kubectl has %#v", text, got, want)
	}
	fields, _ := want.(map[string]any)
	for _, e := range manifest.Entries(node) {
		if value, ok := fields[e.Key.Value]; ok { // kubectl makes texts of other keys
			compare(t, text, e.Value, value)
		}
	}
	for name := range fields {
		if manifest.Key(node, name) == nil && len(manifest.Entries(node)) < len(fields) {
			t.Errorf("%q: no field %q", text, name)
		}
	}
}
