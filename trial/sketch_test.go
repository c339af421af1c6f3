package trial_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/trial"
)

// form is an entry of provider/testdata/forms.yaml, of which docs/forms.md is made.
type form struct{ Form, About, Store, Elsewhere, Objects string }

func forms(t *testing.T) (all []form) {
	t.Helper()
	text, err := os.ReadFile("../provider/testdata/forms.yaml")
	check(t, err)
	check(t, yaml.Unmarshal(text, &all))
	return all
}

// sketched is what comes of objects with made-up secrets alone.
func sketched(t *testing.T, objects string) *trial.Outcome {
	t.Helper()
	p := trial.Picked{Class: trial.Class{
		Namespace: "shop", Name: "app", Provider: "keymount", Dialect: class.DialectKeymount, Parameters: map[string]string{"objects": objects},
	}}
	p.Pod.Namespace, p.Pod.Name, p.Pod.UID, p.Pod.ServiceAccount = "shop", "api-0", "0b6f1d1c-7a5e-4f0e-9a4e-5d2c7f1e8a01", "api"
	return madeUp(t, p, trial.Assume(p.Class, all.All()))
}

// Every form of a file is made of made-up secrets. Without a store that keeps versions or has
// another name the class itself is wrong, so that Assume gives it one.
func TestSketchOfForms(t *testing.T) {
	for _, f := range forms(t) {
		t.Run(f.Form, func(t *testing.T) {
			objects := f.Objects
			if f.Store == "versions" { // of which each pod needs a role
				objects = strings.Replace(objects, "path: ", "role: shop, path: secret/", 1)
			}
			if o := sketched(t, objects); o.Message != "" || len(o.Files) == 0 {
				t.Errorf("%d files, %s", len(o.Files), o.Message)
			}
		})
	}
}

// Each function of templates gets what it takes, in the ways that classes use it.
func TestSketchOfFunctions(t *testing.T) {
	templates := map[string][]string{
		"b64dec":    {`{{ b64dec .x }}`, `{{ .x | b64dec }}`, `{{ (.x | b64dec | fromJson).y }}`, `{{ .x | trim | b64dec }}`, `{{ $x := .x }}{{ b64dec $x }}`},
		"b64enc":    {`{{ .x | b64enc }}`},
		"default":   {`{{ .x | default "y" }}`, `{{ .o.p | default .x }}`},
		"first":     {`{{ first .hosts }}`, `{{ (first .hosts).name }}`},
		"fromJson":  {`{{ (fromJson .x).y }}`, `{{ $o := fromJson .x }}{{ $o.y.z }}{{ range $o.list }}{{ .name }}{{ end }}`, `{{ range fromJson .x }}{{ . }}{{ end }}`},
		"indent":    {`{{ toYaml .o | indent 2 }}{{ .o.q }}`},
		"index":     {`{{ index .l 2 }}`, `{{ (index .l 1).name }}`, `{{ index . "a-key" }}`, `{{ index .o "a" "b" }}`},
		"join":      {`{{ join "," .hosts }}`, `{{ .hosts | join "," }}`},
		"last":      {`{{ last .hosts }}`},
		"lower":     {`{{ lower .x }}`},
		"nindent":   {`{{ .x | nindent 2 }}`},
		"quote":     {`{{ .x | quote }}`},
		"replace":   {`{{ .x | replace "a" "b" }}`},
		"required":  {`{{ (required "no options" .o).p }}`},
		"secret":    {`{{ (secret "shop/other").x }}`, `{{ $s := secret "shop/other" }}{{ index $s "y" }}{{ b64dec $s.z }}`},
		"split":     {`{{ index (split ":" .x) 1 }}`, `{{ range split "," .x }}{{ . }}{{ end }}`},
		"splitList": {`{{ last (splitList "/" .x) }}`},
		"toJson":    {`{{ toJson .o }}{{ .o.p }}`},
		"toYaml":    {`{{ toYaml . }}`},
		"trim":      {`{{ trim .x }}`},
		"upper":     {`{{ .x | upper }}`},
		"and":       {`{{ if and .a .b.c }}{{ .b.c }}{{ end }}`},
		"eq":        {`{{ if eq .x "y" }}z{{ end }}`, `{{ if eq .on true }}z{{ end }}`},
		"ge":        {`{{ if ge .x "5" }}z{{ end }}`},
		"gt":        {`{{ if gt (len .hosts) 1 }}z{{ end }}`},
		"le":        {`{{ if le .x "5" }}z{{ end }}`},
		"len":       {`{{ len .hosts }}{{ range .hosts }}{{ .name }}{{ end }}`},
		"lt":        {`{{ if lt .x "5" }}z{{ end }}`},
		"ne":        {`{{ if ne .on false }}z{{ end }}`},
		"not":       {`{{ if not .x }}z{{ end }}`},
		"or":        {`{{ $o := or .a .b }}{{ $o.p }}`},
		"print":     {`{{ print .x .y }}`},
		"printf":    {`{{ printf "%d %s %5.2f %t%%" .n .x .f .b }}`, `{{ printf "%[2]d %[1]q" .x .n }}`},
		"println":   {`{{ println .x }}`},
		"slice":     {`{{ slice .x 0 40 }}`},
	}
	about := forms(t)[slices.IndexFunc(forms(t), func(f form) bool { return f.Form == "Template" })].About
	for _, name := range regexp.MustCompile(`[a-zA-Z0-9]+`).FindAllString(about[strings.Index(about, "Functions: ")+len("Functions: "):], -1) {
		if name == "Go" || name == "s" || name == "own" || len(templates[name]) > 0 {
			continue
		}
		t.Errorf("no template uses %s", name)
	}
	templates["range"] = []string{
		`{{ range .l }}{{ .name }}{{ end }}`, `{{ range $k, $v := . }}{{ $k }}={{ $v }}{{ end }}`, `{{ range $i, $e := .l }}{{ if $i }},{{ end }}{{ $e.name }}{{ end }}`,
		`{{ range . }}{{ .name }}{{ end }}`, `{{ range $l := .l }}{{ $.x.y }}{{ $l }}{{ else }}{{ .z }}{{ end }}`,
	}
	templates["with"] = []string{`{{ with .o }}{{ .p }}{{ end }}`, `{{ $x := .o }}{{ $x.p }}`, `{{ with $x := .o }}{{ $x.p.q }}{{ else }}{{ .y }}{{ end }}`, `{{ .o.p }}{{ .o }}`}
	for name, texts := range templates {
		t.Run(name, func(t *testing.T) {
			for _, text := range texts {
				if o := sketched(t, fmt.Sprintf("[{path: shop/db, file: f, template: %q}]", text)); o.Message != "" {
					t.Errorf("%s: %s", text, o.Message)
				}
			}
		})
	}
}

// Objects of one secret ask for values that all of them take.
func TestSketchOfObjects(t *testing.T) {
	for _, objects := range []string{
		`[{path: a/b, key: x, format: dotenv, file: e}, {path: a/b, key: y, format: properties, file: p}]`,
		`[{path: a/b, encoding: hex, file: f/}, {path: a/b, key: x, file: x}]`,
		`[{path: a/b, key: x, file: raw}, {path: a/b, key: x, encoding: hex, file: f}]`,
		`[{path: a/b, format: pem, file: u/}, {path: a/b, format: pem, keyFormat: pkcs1, file: t/}]`,
		`[{path: a/b, key: p, format: pem, keyFormat: pkcs1, file: t/}, {path: a/b, key: q, format: pem, keyFormat: pkcs8, file: u/}]`,
		`[{path: a/b, key: tls.crt, file: crt}, {path: a/b, format: pem, file: t/}]`,
		`[{path: a/b, key: c, file: raw}, {path: a/b, key: c, format: pem, file: t/}]`,
		`[{path: a/b, format: dotenv, file: e}]`,
		`[{path: a/b, file: f, template: "{{ .x | b64dec }}"}, {path: a/b, key: x, encoding: base64, file: g}]`,
	} {
		if o := sketched(t, objects); o.Message != "" {
			t.Errorf("%s: %s", objects, o.Message)
		}
	}
}

// No template makes a sketch without end, whatever it asks for.
func FuzzSketch(f *testing.F) {
	for _, template := range []string{
		`{{ .a.b }}`, `{{ range $k, $v := .l }}{{ $v.x }}{{ end }}`, `{{ $x := fromJson .x }}{{ $x := $x.x }}{{ $x }}`, `{{ printf "%d %[1]s%%" .n }}`,
		`{{ index .l 900 900 900 900 }}`, `{{ .x` + strings.Repeat(" | fromJson", 90) + ` }}`, `{{ .x` + strings.Repeat(" | b64dec", 90) + ` }}`, `{{ index . "" | len }}{{ index .l 900 900 900 "" 900 }}`,
		`{{ slice .x 0 1000 | split "" | first | splitList "x" }}`, `{{ with secret "shop/other" }}{{ .y }}{{ else }}{{ or .a .b }}{{ end }}`,
	} {
		f.Add(template)
	}
	kinds := all.All()
	f.Fuzz(func(t *testing.T, template string) {
		p := trial.Picked{Class: trial.Class{
			Namespace: "shop", Name: "app", Provider: "keymount", Dialect: class.DialectKeymount,
			Parameters: map[string]string{"objects": fmt.Sprintf("[{path: shop/db, file: f, template: %q}]", template)},
		}}
		p.Pod.Namespace, p.Pod.Name, p.Pod.UID, p.Pod.ServiceAccount = "shop", "api-0", "0b6f1d1c-7a5e-4f0e-9a4e-5d2c7f1e8a01", "api"
		text, err := trial.Sketch(p, trial.Assume(p.Class, kinds))
		if err != nil {
			return
		}
		const most = 32 << 20
		if len(text) > most {
			t.Errorf("a sketch of %d bytes", len(text))
		}
	})
}

// No mistake in a file of secrets quotes a value, also where it has no quotes and begins
// with a character that YAML takes for its own. (Keys are told, and after a comma comes one.)
func TestMistakesHaveNoValue(t *testing.T) {
	const canary = "Tr0ub4dor"
	c, err := config.Parse([]byte(operator), all.All())
	check(t, err)
	mistakes := 0
	for _, before := range []string{"", "*", "&", "!", "!!", "!<", "@", "`", "%", "'", `"`, `"\q`, "|", ">", "[", "{", ": ", "- ", "x: ", "\x00", "*a ", "!a ", "&a "} {
		for _, form := range []string{"a/b:\n  c: d\n  password: %s\n", "a/b: {password: %s}\n", "a/b: {c: [%s]}", "a/b: %s", "%s", "a/b: {c: d}\n--- %s", "stores: {prod: {a/b: %s}}"} {
			secrets, err := trial.ParseSecrets("made-up.yaml", fmt.Appendf(nil, form, before+canary))
			if err == nil {
				_, err = secrets.For(c)
			}
			if err == nil {
				continue
			}
			mistakes++
			if strings.Contains(err.Error(), canary) {
				t.Errorf("%q: %s", fmt.Sprintf(form, before+canary), err)
			}
		}
	}
	if mistakes == 0 {
		t.Error("there was no mistake")
	}
}
