package manifest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/manifest"
)

const class = `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: api, namespace: shop}
spec:
  provider: keymount
  parameters: {store: prod, objects: "[]", count: 3}
`

// TestObjects reads each form that kubectl reads.
func TestObjects(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string // kind namespace/name line
	}{
		"one":              {class, []string{"SecretProviderClass shop/api 1"}},
		"several":          {"---\n" + class + "---\n---\nkind: Pod\nmetadata: {name: a}\n", []string{"SecretProviderClass shop/api 2", "Pod /a 10"}},
		"a list":           {"kind: List\nitems:\n- kind: Pod\n  metadata: {name: a}\n- kind: Job\n  metadata: {name: b}\n", []string{"Pod /a 3", "Job /b 5"}},
		"a list of a kind": {"apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}}]\n", []string{"Pod /a 3"}},
		"JSON":             {"{\n\t\"kind\": \"Pod\",\n\t\"metadata\": {\"name\": \"a\\/b\"}\n}", []string{"Pod /a/b 1"}},
		"no object":        {"stores: []\n", []string{" / 1"}},
		"nothing":          {"# a comment\n", nil},
		"an alias":         {"kind: Pod\nmetadata: &m {name: a}\nspec: {m: *m}\n", []string{"Pod /a 1"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := manifest.Parse("x.yaml", []byte(test.text))
			var got []string
			for _, o := range f.Objects {
				got = append(got, fmt.Sprintf("%s %s/%s %d", o.Kind, o.Namespace, o.Name, o.Node.Line))
			}
			if diff := cmp.Diff(test.want, got); diff != "" || len(f.Mistakes) > 0 {
				t.Errorf("%v %s", f.Mistakes, diff)
			}
		})
	}
}

func TestSyntax(t *testing.T) {
	f := manifest.Parse("x.yaml", []byte("kind: Pod\n---\nkind: [\n"))
	if len(f.Objects) != 1 || len(f.Mistakes) != 1 || f.Mistakes[0].Line < 3 {
		t.Errorf("%d objects, %+v", len(f.Objects), f.Mistakes)
	}
}

func TestClass(t *testing.T) {
	c, ok := manifest.Parse("x.yaml", []byte(class)).Objects[0].Class()
	if !ok || c.Provider != "keymount" {
		t.Fatalf("%v, provider %q", ok, c.Provider)
	}
	if diff := cmp.Diff(map[string]string{"store": "prod", "objects": "[]"}, c.Parameters); diff != "" {
		t.Error(diff)
	}
	if got := manifest.At(c.Nodes["count"]); got.Line != 6 {
		t.Errorf("count is at %+v", got)
	}
}

// TestMerges reads what stands in merged maps: what is written last wins, as with kubectl.
func TestMerges(t *testing.T) {
	const text = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: api}
labels: &more {store: b, objects: "[]"}
spec:
  provider: aws
  <<: [{provider: keymount}, {provider: vault}]
  parameters: {<<: [*more, {role: r, objects: x}], store: prod}
`
	c, _ := manifest.Parse("x.yaml", []byte(text)).Objects[0].Class()
	if diff := cmp.Diff(map[string]string{"store": "prod", "objects": "[]", "role": "r"}, c.Parameters); diff != "" || c.Provider != "keymount" {
		t.Errorf("provider %q %s", c.Provider, diff)
	}
}

// TestMergesAreBounded has a few lines that stand for more fields than there is memory.
func TestMergesAreBounded(t *testing.T) {
	text := "a0: &a0 {b: c}\n"
	for n := range 30 {
		text += fmt.Sprintf("a%d: &a%d {<<: [%s]}\n", n+1, n+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", n), 9), ","))
	}
	f := manifest.Parse("x.yaml", []byte(text+"spec: {<<: *a30, own: x}\nmany: {<<: {"+strings.Repeat("a: b, ", 5000)+"}, own: x}\n"))
	for _, field := range []string{"spec", "many"} {
		if manifest.Text(manifest.Field(f.Objects[0].Node, field, "own")) != "x" {
			t.Errorf("%s: a field of its own is lost behind those that are merged", field)
		}
	}
	if got := manifest.Field(f.Objects[0].Node, "spec", "none"); got != nil {
		t.Error(got)
	}
}

func TestPod(t *testing.T) {
	const spec = "spec: {serviceAccountName: api, containers: [{name: a}]}"
	for kind, text := range map[string]string{
		"Pod":         "{metadata: {annotations: {a: b}}, " + spec + "}",
		"Deployment":  "{spec: {template: {metadata: {annotations: {a: b}}, " + spec + "}}}",
		"PodTemplate": "{template: {metadata: {annotations: {a: b}}, " + spec + "}}",
		"CronJob":     "{spec: {jobTemplate: {spec: {template: {metadata: {annotations: {a: b}}, " + spec + "}}}}}",
	} {
		p, ok := manifest.Parse("x.yaml", []byte("{kind: "+kind+", "+text[1:])).Objects[0].Pod()
		if !ok || p.ServiceAccount != "api" || p.Annotation("a") != "b" {
			t.Errorf("%s: %v, %q, %q", kind, ok, p.ServiceAccount, p.Annotation("a"))
		}
	}
	if _, ok := manifest.Parse("x.yaml", []byte(class)).Objects[0].Pod(); ok {
		t.Error("a class is a pod")
	}
}

// TestFolder reads the files of a folder, those below only when asked to.
func TestFolder(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"b.yml": "kind: B", "a.yaml": "kind: A", "c.txt": "kind: C", "d/e.json": `{"kind": "E"}`, ".git/f.yaml": "kind: F"} {
		file := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kinds := func(deep bool) (all string) {
		files, err := manifest.Read([]string{folder, manifest.Stdin}, deep, strings.NewReader("kind: S"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			for _, o := range f.Objects {
				all += o.Kind
			}
		}
		return all
	}
	if got := kinds(false) + " " + kinds(true); got != "ABS ABES" {
		t.Error(got)
	}
	if _, err := manifest.Read([]string{filepath.Join(folder, "none.yaml")}, false, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}
