package lint_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/store/kind"
)

const goodClass = `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: app, namespace: shop}
spec:
  provider: keymount
  parameters:
    objects: |
      - {path: secret/shop/db, key: password, file: password, mode: "0444"}
  secretObjects:
    - {secretName: db, type: Opaque, data: [{objectName: password, key: password}]}
`

const goodPod = `apiVersion: v1
kind: Pod
metadata: {name: app, namespace: shop}
spec:
  securityContext: {runAsUser: 1000}
  containers:
    - {name: main, image: shop, volumeMounts: [{name: secrets, mountPath: /secrets}]}
  volumes:
    - {name: secrets, csi: {driver: secrets-store.csi.k8s.io, readOnly: true, volumeAttributes: {secretProviderClass: app}}}
`

const goodConfig = `stores:
  - name: default
    bundle: {file: secrets.age, identityFile: key.txt}
    access: [{namespaces: [shop], serviceAccounts: [default], paths: ["secret/{namespace}/**"]}]
`

// TestFiles has files that belong together, or do not.
func TestFiles(t *testing.T) {
	bare := func(text string) string { return strings.ReplaceAll(text, ", namespace: shop", "") }
	secretly := strings.ReplaceAll(goodClass, "0444", "0400") // for root alone
	tests := map[string]struct {
		files     []string // name, text and so on
		namespace string
		want      []string // file rule severity
	}{
		"all is well":                         {files: []string{"class.yaml", goodClass, "pod.yaml", goodPod, "keymount.yaml", goodConfig}},
		"a pod mounts the class beside it":    {files: []string{"dev/class.yaml", goodClass, "prod/class.yaml", secretly, "dev/pod.yaml", goodPod}},
		"and not one that is further away":    {files: []string{"dev/class.yaml", goodClass, "prod/class.yaml", secretly, "prod/pod.yaml", goodPod}, want: []string{"prod/pod.yaml unreadable error"}},
		"no namespace may be any":             {files: []string{"class.yaml", goodClass, "pod.yaml", bare(goodPod)}},
		"a class without one as well":         {files: []string{"class.yaml", bare(goodClass), "pod.yaml", goodPod}},
		"one Secret of two classes":           {files: []string{"class.yaml", goodClass, "other.yaml", strings.Replace(goodClass, "name: app", "name: other", 1)}, want: []string{"other.yaml secret-twice warning"}},
		"of two clusters":                     {files: []string{"dev/class.yaml", goodClass, "prod/other.yaml", strings.Replace(goodClass, "name: app", "name: other", 1)}},
		"a namespace by flag":                 {files: []string{"class.yaml", goodClass, "pod.yaml", bare(goodPod)}, namespace: "web", want: []string{"pod.yaml other-namespace error"}},
		"the right namespace by flag":         {files: []string{"class.yaml", goodClass, "pod.yaml", bare(goodPod)}, namespace: "shop"},
		"a class of another provider":         {files: []string{"class.yaml", strings.Replace(goodClass, "keymount", "aws", 1), "other.yaml", strings.Replace(strings.Replace(goodClass, "name: app", "name: other", 1), "secretName: db", "secretName: x", 1), "pod.yaml", goodPod}},
		"a list of stores of something else":  {files: []string{"shops.yaml", "stores: [{city: Bern, street: x}]\n"}},
		"two configurations are none":         {files: []string{"class.yaml", strings.Replace(goodClass, "secret/shop", "secret/web", 1), "a.yaml", goodConfig, "b.yaml", goodConfig}},
		"one is, though the other is broken":  {files: []string{"class.yaml", strings.Replace(goodClass, "secret/shop", "secret/web", 1), "a.yaml", goodConfig, "b.yaml", strings.Replace(goodConfig, "file:", "fiel:", 1)}, want: []string{"class.yaml denied error", "b.yaml config error"}},
		"other objects are none of its trade": {files: []string{"x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {stores: a}\n", "values.yaml", "config: {stores: []}\n", "text.json", "[1, 2]"}},
		"kubectl's true":                      {files: []string{"class.yaml", goodClass, "pod.yaml", strings.Replace(goodPod, "readOnly: true", "readOnly: yes", 1), "other.yaml", strings.Replace(strings.Replace(goodPod, "readOnly: true", "readOnly: True", 1), "runAsUser: 1000", "runAsNonRoot: yes", 1)}},
		"and a user of it":                    {files: []string{"class.yaml", secretly, "pod.yaml", strings.Replace(goodPod, "runAsUser: 1000", "runAsNonRoot: on", 1)}, want: []string{"pod.yaml unreadable error"}},
		"a date is a text":                    {files: []string{"class.yaml", strings.Replace(goodClass, "objects:", "role: 2024-01-01\n    objects:", 1)}},
		"merged attributes":                   {files: []string{"class.yaml", goodClass, "pod.yaml", "x: &a {secretProviderClass: app}\n" + strings.Replace(goodPod, "{secretProviderClass: app}", "{<<: *a}", 1)}},
		"the last of two counts":              {files: []string{"class.yaml", strings.Replace(goodClass, "spec:\n", "spec:\nspec:\n", 1)}, want: []string{"class.yaml key-twice error"}},
		"a Secret without namespaces":         {files: []string{"class.yaml", bare(goodClass), "pod.yaml", strings.Replace(goodPod, "image: shop,", "image: shop, env: [{name: A, valueFrom: {secretKeyRef: {name: db, key: pasword}}}],", 1)}, want: []string{"pod.yaml env-key warning"}},
		"one class twice, unchanged":          {files: []string{"class.yaml", goodClass + "---\n" + goodClass}},
		"a chart in a comment":                {files: []string{"class.yaml", "# made of {{ .Values.x }}\n" + strings.Replace(goodClass, "file:", "fiel:", 1)}, want: []string{"class.yaml unknown-field error"}},
		"a chart's template without values":   {files: []string{"class.yaml", "{{- range $i := until 3 }}\n" + goodClass + "{{- end }}\n"}, want: []string{"class.yaml template warning"}},
		"a template by its name":              {files: []string{"class.yaml", strings.Replace(goodClass, "name: app", "name: {{ template \"x\" . }}", 1)}, want: []string{"class.yaml template warning"}},
		"merged maps":                         {files: []string{"class.yaml", strings.Replace(goodClass, "spec:\n  provider: keymount\n", "x: &base {provider: keymount}\nspec:\n  <<: *base\n", 1)}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var files []*manifest.File
			for i := 0; i < len(test.files); i += 2 {
				files = append(files, manifest.Parse(test.files[i], []byte(test.files[i+1])))
			}
			var got []string
			r := lint.Check(files, options(test.namespace, nil))
			for _, f := range r.Findings {
				got = append(got, f.File+" "+f.Rule+" "+string(f.Severity))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s%s", diff, written(r.Findings))
			}
		})
	}
}

// TestOneConfiguration names a keymount.yaml twice, in two ways: it is one, and its rules
// count.
func TestOneConfiguration(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"keymount.yaml": goodConfig, "class.yaml": strings.Replace(goodClass, "secret/shop", "secret/web", 1)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("keymount.yaml", filepath.Join(folder, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	config, class := folder+"/keymount.yaml", folder+"/class.yaml"
	for _, names := range [][]string{{class, config}, {class, config, config}, {class, config, folder + "/./keymount.yaml"}, {class, config, folder + "/link.yaml"}, {folder, class}} {
		files := read(t, names...)
		for _, o := range []lint.Options{options("", nil), options("", read(t, folder+"/./link.yaml")[0])} {
			r := lint.Check(files, o)
			if len(files) != 2 || r.Classes != 1 || r.Configs != 1 || !r.Judged || len(r.Findings) != 1 {
				t.Errorf("%v: %d files, %d classes, %d configurations, judged: %v\n%s", names, len(files), r.Classes, r.Configs, r.Judged, written(r.Findings))
			}
		}
	}
}

// TestABugCostsOneObject lets a check of keymount.yaml fail, and expects the other findings.
func TestABugCostsOneObject(t *testing.T) {
	o := options("", nil)
	o.Warn = func(*config.Config) []kind.Mistake { panic("a bug") }
	files := []*manifest.File{manifest.Parse("keymount.yaml", []byte(goodConfig)), manifest.Parse("class.yaml", []byte(strings.Replace(goodClass, "file:", "fiel:", 1)))}
	r := lint.Check(files, o)
	if len(r.Findings) != 2 || r.Findings[0].Rule != lint.Bug || r.Findings[1].Rule != "unknown-field" {
		t.Error(written(r.Findings))
	}
}

// TestTooLarge has a class that a mount refuses for its size.
func TestTooLarge(t *testing.T) {
	text := strings.Replace(goodClass, "objects: |\n", "objects: |\n"+strings.Repeat("      # "+strings.Repeat("x", 1000)+"\n", 1100), 1)
	r := lint.Check([]*manifest.File{manifest.Parse("class.yaml", []byte(text))}, options("", nil))
	if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, "split it") {
		t.Error(written(r.Findings))
	}
}

// TestSARIF has the parts that the schema of SARIF 2.1.0 requires.
func TestSARIF(t *testing.T) {
	files := []*manifest.File{manifest.Parse("/srv/a b/class.yaml", []byte(strings.Replace(goodClass, "file:", "fiel:", 1))), manifest.Parse("t.yaml", []byte("a: {{ .Values.x }"))}
	log := lint.SARIF(lint.Check(files, options("", nil)).Findings, "v1", "/srv")
	run := log.Runs[0]
	if log.Version != "2.1.0" || run.Tool.Driver.Name == "" || len(run.Tool.Driver.Rules) != len(lint.Rules()) {
		t.Errorf("%+v", run.Tool)
	}
	if len(run.Results) != 2 {
		t.Fatalf("%d results", len(run.Results))
	}
	fixed, whole := run.Results[0], run.Results[1]
	if got := fixed.Locations[0].Physical; got.Artifact.URI != "a%20b/class.yaml" || got.Region.StartLine != 8 || got.Region.StartColumn != 47 {
		t.Errorf("%+v", got)
	}
	if got := fixed.Fixes[0].Changes[0].Replacements[0]; got.Inserted.Text != "file" || got.Deleted.EndColumn != 51 {
		t.Errorf("%+v", got)
	}
	for _, r := range run.Results {
		if run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID || r.Message.Text == "" || r.Level != lint.Error && r.Level != lint.Warning {
			t.Errorf("%+v", r)
		}
	}
	if whole.Locations[0].Physical.Region != nil {
		t.Error("a finding of a whole file has a region, and lines begin at 1")
	}
}
