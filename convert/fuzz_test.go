package convert_test

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/convert"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
)

// FuzzConvert: whatever the input is, what comes out can be written, has no mistakes as a
// class or keymount.yaml, and says of each thing that it found what became of it.
func FuzzConvert(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*-*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	more, err := filepath.Glob("testdata/fields/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	inputs = append(inputs, more...)
	for _, input := range inputs {
		text, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		input := manifest.Parse("input.yaml", text)
		r := convert.Convert([]*manifest.File{input}, convert.Options{})
		tells(t, r, input)
		written, err := convert.YAML(r.Documents()...)
		if err != nil {
			t.Fatal(err)
		}
		if r.Rules == nil {
			if len(r.Classes)+len(r.Pods) > 0 {
				t.Fatalf("classes without a store:\n%s", written)
			}
			return
		}
		rules, err := convert.YAML(r.Rules)
		if err != nil {
			t.Fatal(err)
		}
		stores, err := config.Parse(rules, all.All())
		if err != nil {
			t.Fatalf("%v\n%s", err, rules)
		}
		known := map[string]class.Store{}
		for i := range stores.Stores {
			s := &stores.Stores[i]
			known[s.Name] = class.Store{Traits: s.Kind.Traits(), Settings: s.Settings}
		}
		for _, node := range r.Classes {
			document, err := convert.YAML(node)
			if err != nil {
				t.Fatal(err)
			}
			parses(t, document, known)
		}
	})
}

// tells holds the result against the objects of the input: each that is of another tool is in
// the classes, the pods or the report.
func tells(t *testing.T, r *convert.Result, input *manifest.File) {
	t.Helper()
	for _, o := range input.Objects {
		if !isConverted(o) {
			continue
		}
		name := cmp.Or(o.Name, strings.TrimSuffix(manifest.Text(manifest.Field(o.Node, "metadata", "generateName")), "-"), "unnamed")
		isThere := slices.ContainsFunc(slices.Concat(r.Classes, r.Pods), func(n *yaml.Node) bool {
			written := cmp.Or(text(n, "metadata", "name"), text(n, "metadata", "generateName"), "unnamed")
			return written == name || strings.HasPrefix(written, name+"-")
		}) || slices.ContainsFunc(r.Notes, func(n convert.Note) bool { return n.Object == titled(o) })
		if !isThere {
			t.Fatalf("nothing became of %s, and nothing is said of it", titled(o))
		}
	}
}

// isConverted tells the objects that convert says something of.
func isConverted(o manifest.Object) bool {
	if _, isClass := o.Class(); isClass {
		return true
	}
	if pod, isPod := o.Pod(); isPod {
		return pod.Annotation("vault.hashicorp.com/agent-inject") == "true" || pod.Annotation("openbao.openbao.org/agent-inject") == "true"
	}
	group, _, _ := strings.Cut(o.APIVersion, "/")
	isOfOperators := group == "external-secrets.io" || strings.HasSuffix(group, ".external-secrets.io") || group == "secrets.hashicorp.com"
	return isOfOperators && !slices.Contains([]string{"SecretStore", "ClusterSecretStore", "VaultAuth", "VaultAuthGlobal", "VaultConnection", "SecretTransformation"}, o.Kind)
}

// titled names an object as notes do.
func titled(o manifest.Object) string {
	name := cmp.Or(o.Name, "(without a name)")
	if o.Namespace != "" {
		name = o.Namespace + "/" + name
	}
	return spelling.Visible(spelling.CutName(o.Kind + " " + name))
}

func parses(t *testing.T, document []byte, known map[string]class.Store) {
	t.Helper()
	read := manifest.Parse("class.yaml", document)
	if len(read.Objects) != 1 {
		t.Fatalf("%v\n%s", read.Mistakes, document)
	}
	c, ok := read.Objects[0].Class()
	if !ok {
		t.Fatalf("no class:\n%s", document)
	}
	volume := providertest.Volume{Class: "class", Parameters: c.Parameters, Pod: auth.Pod{Namespace: "shop", Name: "pod", UID: "uid", ServiceAccount: "api"}}
	attributes, err := volume.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := class.Parse(class.Call{Attributes: attributes, Dialect: class.DialectKeymount}, known); err != nil {
		t.Errorf("%v\n%s", err, document)
	}
}
