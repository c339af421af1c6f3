package convert_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/convert"
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
	for _, input := range inputs {
		text, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := convert.Convert([]*manifest.File{manifest.Parse("input.yaml", text)}, convert.Options{})
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
