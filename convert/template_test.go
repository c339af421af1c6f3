package convert_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"text/template"
	"unicode/utf8"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/convert"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

// shopSecrets are those that templates of these tests read: in KV v2, and in KV v1.
func shopSecrets() map[string]map[string]any {
	return map[string]map[string]any{
		"secret/shop/db":    {"user": "shop", "key": "ZmFrZS0x", "a-b": " fake-2 ", "port": json.Number("5432"), "on": true, "list": "a,b,,c", "json": `{"a": [1, {"b": "x"}]}`},
		"secret/shop/host":  {"name": "db.shop.svc", "lines": "one\ntwo", "empty": "", "port": json.Number("80")},
		"secret/shop/kinds": {"off": false, "zero": json.Number("0"), "port": json.Number("5432"), "map": map[string]any{"a": json.Number("1")}},
		"kv/shop/app":       {"token": "fake-3", "user": "app"},
	}
}

// agentTemplates use all that has a counterpart.
func agentTemplates() []string {
	return []string{
		`{{ with secret "secret/data/shop/db" }}{{ .Data.data.user }}:{{ .Data.data.key | base64Decode }}{{ end }}`,
		`{{- with secret "secret/data/shop/db" -}} {{ range $k, $v := .Data.data }}{{ $k | toUpper }}={{ $v }} {{ end }} {{- end }}`,
		`{{ $db := secret "secret/shop/db" }}{{ $h := secret "secret/data/shop/host" }}{{ $db.Data.data.user }}@{{ $h.Data.data.name }}`,
		`{{ with secret "kv/shop/app" }}{{ .Data.token }}{{ with secret "secret/data/shop/host" }}{{ .Data.data.name | replaceAll "." "-" }}{{ end }}{{ .Data.user }}{{ end }}`,
		`{{ (secret "secret/data/shop/db").Data.data.user | printf "%s!" | toJSON }}{ {{"{{"}} {`,
		`{{ with secret "secret/data/shop/db" }}{{ if and .Data.data.on (eq .Data.data.user "shop") }}yes{{ else if .Data.data.none }}no{{ else }}else{{ end }}{{ end }}`,
		`{{ with secret "secret/data/shop/db" }}{{ with .Data.data.user }}{{ . }}{{ end }}{{ index .Data.data "a-b" | trimSpace }}{{ end }}`,
		`{{ with secret "secret/data/shop/db" }}{{ range $i, $p := split "," .Data.data.list }}{{ if $i }};{{ end }}{{ $p }}{{ else }}none{{ end }}{{ end }}`,
		`{{ with secret "secret/data/shop/db" }}{{ $j := parseJSON .Data.data.json }}{{ (index $j.a 1).b }}{{ range $j.a }}{{ . | toJSON }}{{ break }}{{ end }}{{ end }}`,
		`{{ with $s := secret "secret/data/shop/host" }}{{ $s.Data.data.lines | indent 2 }}{{ with secret "secret/data/shop/db" }}{{ .Data.data.user }}{{ $s.Data.data.name }}{{ end }}{{ else }}x{{ end }}`,
		`{{/* c */}}{{ range $k, $v := (secret "kv/shop/app").Data }}{{ if eq $k "user" }}{{ continue }}{{ end }}{{ $k }}{{ end }}{{ not true | print }}{{ len "abc" }}{{ 3 }}`,
		`{{ with secret "secret/data/shop/db" }}{{ $x := .Data.data.user }}{{ if true }}{{ $x = "new" }}{{ end }}{{ $x }}{{ with secret "secret/data/shop/db" }}{{ .Data.data.user }}{{ end }}{{ end }}`,
	}
}

// TestAgentTemplates executes templates as the agent does, with the functions of
// consul-template, and as keymount does after their conversion.
func TestAgentTemplates(t *testing.T) {
	for _, text := range agentTemplates() {
		if want, got := bothWays(t, text); want != got || want == "" {
			t.Errorf("%q gives %q in place of %q", text, got, want)
		}
	}
}

// FuzzAgentTemplate holds the same of any template: where both ways give a text, it is the
// same one.
func FuzzAgentTemplate(f *testing.F) {
	for _, text := range agentTemplates() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if want, got := bothWays(t, text); want != got {
			t.Errorf("%q gives %q in place of %q", text, got, want)
		}
	})
}

// bothWays executes a template; two empty texts where one of the ways gives none.
func bothWays(t *testing.T, text string) (want, got string) {
	t.Helper()
	want, err := asTheAgent(text)
	if err != nil || !utf8.ValidString(text) || strings.Contains(want, "map[") || strings.Contains(want, "<no value>") || strings.Contains(want, "<nil>") {
		return "", "" // an error, or a text that is meant by nobody
	}
	object := asKeymount(t, text)
	if object == nil {
		return "", "" // something without a counterpart, which the report says
	}
	got, err = executed(t, object)
	if err != nil {
		return "", "" // such as for an absent key
	}
	return want, got
}

// answer is a secret as the agent's templates see it.
type answer struct{ Data map[string]any }

// asTheAgent executes a template as consul-template does, with its functions.
func asTheAgent(text string) (string, error) {
	functions := template.FuncMap{
		"secret": func(path string, args ...string) (*answer, error) {
			path = strings.Trim(path, "/")
			data, ok := shopSecrets()[strings.Replace(path, "secret/data/", "secret/", 1)]
			if !ok || len(args) > 0 {
				return nil, fmt.Errorf("no secret %q", path)
			}
			if strings.HasPrefix(path, "secret/") {
				data = map[string]any{"data": data, "metadata": map[string]any{"version": 1}}
			}
			return &answer{data}, nil
		},
		"base64Encode": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64Decode": func(s string) (string, error) {
			decoded, err := base64.StdEncoding.DecodeString(s)
			return string(decoded), err
		},
		"toJSON":    func(v any) (string, error) { text, err := json.Marshal(v); return string(text), err },
		"parseJSON": func(s string) (v any, err error) { return v, json.Unmarshal([]byte(s), &v) },
		"toLower":   strings.ToLower, "toUpper": strings.ToUpper, "trimSpace": strings.TrimSpace,
		"replaceAll": func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
		"split":      func(sep, s string) []string { return strings.Split(s, sep) },
		"join":       func(sep string, list []string) string { return strings.Join(list, sep) },
		"indent": func(n int, s string) (string, error) {
			if n < 0 || n > 100 {
				return "", fmt.Errorf("indent %d", n)
			}
			lines := strings.SplitAfter(s, "\n")
			for i, line := range lines {
				if strings.TrimRight(line, "\n") != "" {
					lines[i] = strings.Repeat(" ", n) + line
				}
			}
			return strings.Join(lines, ""), nil
		},
	}
	parsed, err := template.New("agent").Funcs(functions).Parse(text)
	if err != nil {
		return "", fmt.Errorf("parse: %w", err)
	}
	out := bounded{}
	if err := parsed.Execute(&out, nil); err != nil {
		return "", fmt.Errorf("execute: %w", err)
	}
	return out.String(), nil
}

// bounded is a text that does not grow without end.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	const most = 1 << 16
	if b.Len()+len(p) > most {
		return 0, fmt.Errorf("more than %d bytes", most)
	}
	return b.Builder.Write(p)
}

// asKeymount converts the template in a pod's annotation; nil where it has no counterpart.
func asKeymount(t *testing.T, text string) *class.Object {
	t.Helper()
	pod, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "api", "annotations": map[string]string{
			"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/role": "shop", "vault.hashicorp.com/agent-inject-template-x": text,
		}},
		"spec": map[string]any{"containers": []any{map[string]string{"name": "api"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return objectOf(t, text, string(pod))
}

// objectOf is the one object of the class that is made of a manifest; nil where the template
// in it has no counterpart.
func objectOf(t *testing.T, text, document string) *class.Object {
	t.Helper()
	r := convert.Convert([]*manifest.File{manifest.Parse("input.yaml", []byte(document))}, convert.Options{})
	for _, note := range r.Notes {
		if strings.Contains(note.Instead, "left out of the class") && !strings.Contains(note.Text, "more than") {
			t.Errorf("%q became a template with a mistake: %s", text, note.Text)
		}
	}
	if len(r.Classes) != 1 {
		return nil
	}
	written, err := convert.YAML(r.Classes[0])
	if err != nil {
		t.Fatal(err)
	}
	c, _ := manifest.Parse("class.yaml", written).Objects[0].Class()
	attributes, err := providertest.Volume{Class: "api", Parameters: c.Parameters, Pod: auth.Pod{Namespace: "default", Name: "api", UID: "uid", ServiceAccount: "default"}}.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := class.Parse(class.Call{Attributes: attributes, Dialect: class.DialectKeymount}, map[string]class.Store{"default": {Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{}}})
	if err != nil {
		t.Fatalf("%v\n%s", err, written)
	}
	return &parsed.Objects[0]
}

func executed(t *testing.T, o *class.Object) (string, error) {
	t.Helper()
	tree := func(path store.Path) (secret.Tree, bool) {
		data, ok := shopSecrets()[path.String()]
		if !ok {
			return secret.Tree{}, false
		}
		tree, err := secret.NewTree(data)
		if err != nil {
			t.Fatal(err)
		}
		return tree, true
	}
	main, ok := tree(o.Secret.Path)
	if !ok {
		return "", fmt.Errorf("no secret %s", o.Secret.Path)
	}
	made, err := o.Template.Execute(t.Context(), main, tree)
	return string(made.Reveal()), err //nolint:wrapcheck // for a test
}
