package lint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
)

// errorsOf are the findings that are errors.
func errorsOf(findings []lint.Finding) (errs []lint.Finding) {
	for _, f := range findings {
		if f.Severity == lint.Error {
			errs = append(errs, f)
		}
	}
	return errs
}

func read(tb testing.TB, names ...string) []*manifest.File {
	tb.Helper()
	files, err := manifest.Read(names, true, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// TestExamples accepts all examples and deploy/, alone and against the examples' values.
func TestExamples(t *testing.T) {
	for _, folder := range []string{"../examples", "../deploy"} {
		for _, config := range []*manifest.File{nil, read(t, "../examples/values.yaml")[0]} {
			r := lint.Check(read(t, folder), options("", config))
			if errs := errorsOf(r.Findings); len(errs) > 0 {
				t.Errorf("%s:\n%s", folder, written(errs))
			}
			if folder == "../examples" && (r.Classes < 9 || !r.Judged) {
				t.Errorf("%d classes, judged %v", r.Classes, r.Judged)
			}
		}
	}
	r := lint.Check(read(t, "../examples"), options("", nil))
	for _, f := range r.Findings {
		if f.Rule != "config" { // the examples' Vault has no TLS
			t.Errorf("a warning about an example:\n%s", written([]lint.Finding{f}))
		}
	}
}

// TestPeersVectors reads the classes of the dialects' vectors. One that a mount accepts has
// no error, and one that a mount refuses for its class has the very text of that.
func TestPeersVectors(t *testing.T) {
	files, err := filepath.Glob("../class/testdata/peers/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { checkVector(t, name) })
	}
}

func checkVector(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Socket     string            `yaml:"socket"`
		Parameters map[string]string `yaml:"parameters"`
		Error      string            `yaml:"error"`
	}
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	object, err := yaml.Marshal(map[string]any{
		"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass", "metadata": map[string]string{"name": "app"},
		"spec": map[string]any{"provider": strings.TrimSuffix(v.Socket, ".sock"), "parameters": v.Parameters},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := lint.Check([]*manifest.File{manifest.Parse("class.yaml", object)}, options("", nil))
	got := written(errorsOf(r.Findings))
	const ofTheStore = "not found: "
	if v.Error == "" || strings.HasPrefix(v.Error, ofTheStore) {
		if got != "" {
			t.Errorf("an error of lint alone:\n%s", got)
		}
	} else if !strings.Contains(got, v.Error) {
		t.Errorf("got\n%swant %s", got, v.Error)
	}
}

// generated is a file with a class, the workload that mounts it, and a finding in every
// tenth.
func generated(n int) []byte {
	field := "file"
	if n%10 == 0 {
		field = "fiel"
	}
	text := fmt.Sprintf(`apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: app-%d, namespace: team-%d}
spec:
  provider: keymount
  parameters:
    role: team
    objects: |
`, n, n%50)
	for i := range 10 {
		text += fmt.Sprintf("      - path: secret/team-%d/app-%d\n        key: key-%d\n        %s: file-%d\n        mode: \"0440\"\n", n%50, i, i, field, i)
	}
	return []byte(text + fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app-%[1]d, namespace: team-%[2]d}
spec:
  template:
    spec:
      serviceAccountName: app
      securityContext: {runAsUser: 1000}
      containers:
        - name: main
          image: app
          volumeMounts: [{name: secrets, mountPath: /secrets}]
      volumes:
        - name: secrets
          csi: {driver: secrets-store.csi.k8s.io, readOnly: true, volumeAttributes: {secretProviderClass: app-%[1]d}}
`, n, n%50))
}

const manyFiles = 1000

// BenchmarkThousandFiles parses and checks files of ten objects and a workload each, against
// rules.
func BenchmarkThousandFiles(b *testing.B) {
	texts := make([][]byte, manyFiles)
	for n := range texts {
		texts[n] = generated(n)
	}
	config := read(b, "testdata/rules/keymount.conf")[0]
	for b.Loop() {
		files := make([]*manifest.File, len(texts))
		for n, text := range texts {
			files[n] = manifest.Parse(fmt.Sprintf("file-%d.yaml", n), text)
		}
		if r := lint.Check(files, options("", config)); r.Classes != manyFiles || len(r.Findings) < manyFiles {
			b.Fatalf("%d classes, %d findings", r.Classes, len(r.Findings))
		}
	}
}

func FuzzCheck(f *testing.F) {
	names, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, text := range []string{
		strings.Replace(goodPod, "{driver: secrets-store.csi.k8s.io, readOnly: true,", "{<<: {driver: secrets-store.csi.k8s.io},", 1),
		strings.Replace(goodPod, "{secretProviderClass: app}", "{<<: [{secretProviderClass: app}, {objects: x}]}", 1),
		"x: &x {csi: {<<: *x}}\n" + strings.Replace(goodPod, "- {name: secrets, ", "- {<<: *x, name: secrets, ", 1),
		strings.Replace(goodClass, "parameters:\n", "parameters:\n    <<: {role: a, \"\\e[31m\": 1}\n", 1),
		strings.Replace(goodClass, "{secretName: db, type: Opaque,", "{<<: {secretName: db, tpye: Opaque},", 1),
	} {
		f.Add([]byte(text))
	}
	config := read(f, "testdata/rules/keymount.conf")[0]
	f.Fuzz(func(t *testing.T, text []byte) {
		file := manifest.Parse("fuzzed.yaml", text)
		for _, config := range []*manifest.File{nil, config} {
			r := lint.Check([]*manifest.File{file}, options("", config))
			for _, found := range r.Findings {
				if found.Text == "" || found.Line < 0 || found.Column < 0 || spelling.Plain(found.Text) != nil || found.Rule == lint.Bug {
					t.Errorf("%+v", found)
				}
			}
			lint.SARIF(r.Findings, "v0", "/")
			fixed, made := lint.Fix(file, r.Findings)
			if again := manifest.Parse("fuzzed.yaml", fixed); len(made) > 0 && len(again.Objects) != len(file.Objects) {
				t.Errorf("%d objects became %d:\n%s", len(file.Objects), len(again.Objects), fixed)
			}
		}
	})
}
