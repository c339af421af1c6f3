// Package editor_test runs the language server that editors have for YAML on keymount's
// schemas: what it offers, explains and marks is what a person sees.
package editor_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cursor marks the place in a document that a case is about.
const cursor = "‸"

// open opens a document whose first line names a schema of the repository, and returns the
// place of the cursor.
func open(t *testing.T, s *server, schema, text string) (uri string, line, character int) {
	t.Helper()
	file, err := filepath.Abs("../../schema/" + schema + ".json")
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Sprintf("# yaml-language-server: $schema=file://%s\n%s", file, text)
	before, _, _ := strings.Cut(text, cursor)
	line = strings.Count(before, "\n")
	character = len(before) - strings.LastIndex(before, "\n") - 1
	uri = "file://" + filepath.Join(t.TempDir(), schema+".yaml")
	s.open(uri, strings.Replace(text, cursor, "", 1))
	return uri, line, character
}

const class = `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: api, namespace: shop}
spec:
  provider: keymount
`

func TestCompletion(t *testing.T) {
	s := start(t)
	for name, test := range map[string]struct {
		schema, text  string
		offered, none []string
	}{
		"the top of keymount.yaml":  {"config", "‸\n", []string{"stores", "limits", "audit"}, []string{"vault"}},
		"a store":                   {"config", "stores:\n  - name: prod\n    ‸\n", []string{"vault", "bundle", "access", "refresh"}, nil},
		"a vault":                   {"config", "stores:\n  - vault:\n      ‸\n", []string{"addresses", "auth", "caFile"}, []string{"identityFile"}},
		"a method to log in":        {"config", "stores:\n  - vault:\n      addresses: [https://vault:8200]\n      auth: {method: ‸}\n", []string{"kubernetes", "jwt"}, nil},
		"an access":                 {"config", "stores:\n  - access: ‸\n", []string{"store"}, nil},
		"a rule":                    {"config", "stores:\n  - access:\n      - ‸\n", []string{"namespaces", "paths"}, nil},
		"what an outage of it does": {"config", "audit:\n  onFailure: ‸\n", []string{"block", "continue"}, nil},
		"a class":                   {"class", "apiVersion: secrets-store.csi.x-k8s.io/v1\n‸\n", []string{"kind", "metadata", "spec"}, nil},
		"parameters":                {"class", class + "  parameters:\n    ‸\n", []string{"objects", "store", "role"}, []string{"path"}},
		"secretObjects":             {"class", class + "  secretObjects:\n    - ‸\n", []string{"secretName", "type", "data"}, nil},
		"an object":                 {"objects", "- path: secret/shop/db\n  ‸\n", []string{"key", "file", "template", "mode"}, []string{"objects"}},
		"a format":                  {"objects", "- path: secret/shop/db\n  format: ‸\n", []string{"json", "dotenv", "pem", "jks"}, nil},
		"the chart's values":        {"values", "config: {}\n‸\n", []string{"image", "networkPolicy", "audit"}, nil},
		"keymount.yaml in values":   {"values", "config:\n  stores:\n    - vault:\n        ‸\n", []string{"addresses", "auth"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			uri, line, character := open(t, s, test.schema, test.text)
			got := slices.Sorted(maps.Keys(s.complete(uri, line, character)))
			t.Logf("%s offers %s", strings.TrimSpace(test.text), strings.Join(got, ", "))
			for _, want := range test.offered {
				if !slices.Contains(got, want) {
					t.Errorf("offers no %s, but %q", want, got)
				}
			}
			for _, unwanted := range test.none {
				if slices.Contains(got, unwanted) {
					t.Errorf("offers %s", unwanted)
				}
			}
		})
	}
}

// The parameter objects is a list within a text, where a server of YAML can help no more: so it
// writes the first object.
func TestObjectsAreBegun(t *testing.T) {
	s := start(t)
	uri, line, character := open(t, s, "class", class+"  parameters:\n    ‸\n")
	const want = "objects: |\n  - path: ${1:secret/shop/db}\n    key: ${2:password}\n    file: ${3:db/password}"
	if got := s.complete(uri, line, character)["objects"]; got != want {
		t.Errorf("writes %q, want %q", got, want)
	}
}

func TestHover(t *testing.T) {
	s := start(t)
	for name, test := range map[string]struct{ schema, text, shown string }{
		"a field of keymount.yaml": {"config", "stores:\n  - name: prod\n    ref‸resh: 1m\n", "The time after which a secret is read again for the pods of one login"},
		"a kind":                   {"config", "stores:\n  - va‸ult: {addresses: [https://vault:8200]}\n", "A Vault or an OpenBao"},
		"a parameter":              {"class", class + "  parameters:\n    st‸ore: prod\n    objects: \"\"\n", "The store of keymount"},
		"a field of an object":     {"objects", "- path: a\n  fi‸le: b\n", "The file to write, relative to the mount"},
		"a value of the chart":     {"values", "config: {}\nterminationGrace‸PeriodSeconds: 30\n", "stop"},
	} {
		t.Run(name, func(t *testing.T) {
			uri, line, character := open(t, s, test.schema, test.text)
			got := s.hover(uri, line, character)
			t.Logf("%s", got)
			if !strings.Contains(strings.ReplaceAll(got, `\`, ""), test.shown) {
				t.Errorf("shows %q, want %q in it", got, test.shown)
			}
		})
	}
}

func TestDiagnostics(t *testing.T) {
	s := start(t)
	for name, test := range map[string]struct {
		schema, text string
		want         []string // line: message
	}{
		"a good class":                  {"class", class + "  parameters: {store: prod, objects: \"[]\"}\n", nil},
		"a misspelt field":              {"config", "stores:\n  - vault: {adresses: [https://vault:8200]}\n", []string{`2: Missing property "addresses".`, "2: Property adresses is not allowed."}},
		"a misspelt parameter":          {"class", class + "  parameters: {stroe: prod, objects: \"[]\"}\n", []string{"6: Property stroe is not allowed."}},
		"a misspelt field of an object": {"objects", "- path: a\n  fiel: b\n", []string{`1: Missing property "file".`, "2: Property fiel is not allowed."}},
		"an unknown format":             {"objects", "- path: a\n  file: b\n  format: toml\n", []string{`3: Value is not accepted. Valid values: "json", "yaml", "dotenv", "properties", "pem", "pfx", "jks".`}},
		"a duration":                    {"config", "stores:\n  - bundle: {file: a, identityFile: b}\nlimits: {mountDeadline: 25 seconds}\n", []string{"3: A duration is written as 25s, 1m30s or 2h."}},
	} {
		t.Run(name, func(t *testing.T) {
			uri, _, _ := open(t, s, test.schema, test.text)
			if diff := cmp.Diff(test.want, lines(s.diagnose(uri))); diff != "" {
				t.Errorf("marks (-want +got):\n%s", diff)
			}
		})
	}
}

// lines are diagnostics with their lines, which count from the one behind the header.
func lines(all []diagnostic) []string {
	var texts []string
	for _, d := range all {
		texts = append(texts, fmt.Sprintf("%d: %s", d.Range.Start.Line, d.Message))
	}
	slices.Sort(texts)
	return texts
}

// What the project shows has no marks in an editor: the examples with the schema that they
// name.
func TestExamples(t *testing.T) {
	s := start(t)
	files, err := filepath.Glob("../../examples/*/2-class.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range append(files, "../../examples/values.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# yaml-language-server: $schema=../") {
			t.Errorf("%s names no schema", file)
		}
		absolute, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		s.open("file://"+absolute, string(text))
		if marks := lines(s.diagnose("file://" + absolute)); marks != nil {
			t.Errorf("%s: %q", file, marks)
		}
	}
}
