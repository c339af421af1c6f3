package class_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/kind"
)

// show has a mistake with its place, its reason and what to write instead.
func show(all []class.Mistake) (lines []string) {
	for _, m := range all {
		line := fmt.Sprintf("%s[%d].%s %d:%d %s: %s", m.Parameter, m.Object, m.Field, m.Line, m.Column, m.Reason, m.Text)
		if m.Instead != "" {
			line += " => " + m.Instead
		}
		lines = append(lines, line)
	}
	return lines
}

func TestCheckPlaces(t *testing.T) {
	stores := map[string]class.Store{"default": {}, "prod": {Traits: kind.Traits{Roles: access.Required}}}
	tests := map[string]struct {
		dialect    class.Dialect
		parameters map[string]string
		want       []string
	}{
		"a field": {parameters: map[string]string{"objects": "- path: a\n  key: b\n  fiel: c\n  file: d\n"}, want: []string{
			`objects[0].fiel 3:3 unknown-field: unknown field "fiel"; did you mean "file"?`,
		}},
		"a value": {parameters: map[string]string{"objects": "- path: a\n  key: b\n  file: c\n  mode: 256\n"}, want: []string{
			`objects[0].mode 4:9 mode: mode: "256" is the decimal number that YAML tools make of 0400; write "0400", in quotes, or "0256" if that is meant => 0400`,
		}},
		"an absolute file": {parameters: map[string]string{"objects": "- {path: a, file: /tls/}\n"}, want: []string{
			`objects[0].file 1:19 value: file: "/tls" is absolute; it starts at the root of the mount, write it without the slash => tls/`,
		}},
		"what is missing": {parameters: map[string]string{"objects": "- path: a\n  key: b\n  file: c\n- {}\n"}, want: []string{
			`objects[1].path 4:3 missing: path: missing; name the secret in the store`,
			`objects[1].file 4:3 missing: file: missing; name the file to write, or a folder ("tls/") for one file per key`,
		}},
		"within a field": {parameters: map[string]string{"objects": "- path: a\n  format: jks\n  file: c\n  passwordFrom: {path: b, kye: c}\n"}, want: []string{
			`objects[0].kye 4:27 unknown-field: passwordFrom: unknown field "kye"; did you mean "key"? => key`,
			`objects[0].key 4:17 missing: passwordFrom: key: missing; name the value that is the password`,
		}},
		"a clash": {parameters: map[string]string{"objects": "- {path: a, key: b, file: c}\n- {path: a, key: d, file: c}\n"}, want: []string{
			`objects[1].file 2:27 file-clash: file: "c" is also written by objects[0]`,
		}},
		"no YAML": {parameters: map[string]string{"objects": "- path: a\n  key: [\n"}, want: []string{
			`objects[-1]. 2:1 form: objects: not YAML: did not find expected node content`,
		}},
		"an anchor": {parameters: map[string]string{"objects": "- path: &a b\n"}, want: []string{
			`objects[-1]. 1:9 form: objects: anchors and aliases are not read; write the value out`,
		}},
		"a store of the class": {parameters: map[string]string{"store": "prdo", "objects": "[{path: a, key: b, file: c}]"}, want: []string{
			`store[0]. 0:0 store: store "prdo" is not in keymount.yaml; did you mean "prod"? => prod`,
		}},
		"a store of the object": {parameters: map[string]string{"store": "prod", "role": "r", "objects": "[{path: a, key: b, file: c, store: x}]"}, want: []string{
			`objects[0].store 1:36 store: store "x" is not in keymount.yaml`,
		}},
		"a parameter": {parameters: map[string]string{"rolle": "r", "objects": "[{path: a, key: b, file: c}]"}, want: []string{
			`rolle[-1]. 0:0 unknown-parameter: unknown parameter "rolle"; did you mean "role"? => role`,
		}},
		"of the driver": {parameters: map[string]string{"secretProviderClass": "r", "objects": "[{path: a, key: b, file: c}]"}},
		"another dialect": {dialect: class.DialectVault, parameters: map[string]string{"rolename": "r", "objects": "[{objectName: a, secretPath: b, filePermission: 256}]"}, want: []string{
			`[-1]. 0:0 store: the class names no vaultAddress, and store "default" of keymount.yaml is no Vault; add the parameter`,
			`roleName[-1]. 0:0 missing: roleName: missing; name the role to log in with`,
			`rolename[-1]. 0:0 unknown-parameter: unknown parameter "rolename"; did you mean "roleName"? => roleName`,
			`objects[0].filePermission 1:49 mode: filePermission: 256 is decimal to YAML and no octal mode that makes sense, so it is taken as decimal; write "0400" => 0400`,
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			checked := class.Check(test.dialect, "shop", test.parameters, stores)
			if diff := cmp.Diff(test.want, append(show(checked.Mistakes), show(checked.Warnings)...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestCheckFindsAll has more mistakes than the error of a mount spells out.
func TestCheckFindsAll(t *testing.T) {
	const many = 100
	checked := class.Check(class.DialectKeymount, "shop", map[string]string{"objects": strings.Repeat("- 1\n", many)}, nil)
	if len(checked.Mistakes) != many || checked.Mistakes[many-1].Line != many {
		t.Errorf("%d mistakes, %+v", len(checked.Mistakes), checked.Mistakes[len(checked.Mistakes)-1])
	}
	if got := checked.Mistakes[3].Whole(); got != "objects[3]: not a map; write {path: ..., key: ..., file: ...}" {
		t.Error(got)
	}
}

// TestCheckAnyStore reads classes without keymount.yaml.
func TestCheckAnyStore(t *testing.T) {
	stores := map[string]class.Store{class.AnyStore: {Traits: kind.Traits{Roles: access.Optional, Versions: true, Writes: true}}}
	for dialect, parameters := range map[class.Dialect]map[string]string{
		class.DialectKeymount: {"store": "anywhere", "objects": "[{path: a, key: b, file: c, version: 3}]"},
		class.DialectVault:    {"roleName": "r", "vaultAddress": "https://vault:8200", "audience": "x", "objects": "[{objectName: a, secretPath: b}]"},
	} {
		if checked := class.Check(dialect, "shop", parameters, stores); len(checked.Mistakes)+len(checked.Warnings) > 0 || len(checked.Secrets) != 1 {
			t.Errorf("%s: %v %v", dialect, show(checked.Mistakes), show(checked.Warnings))
		}
	}
}

// FuzzCheckAgrees holds Check against a mount: it finds a mistake exactly where a mount is
// refused, in the same words, and the same warnings.
func FuzzCheckAgrees(f *testing.F) {
	for _, seed := range []string{
		"- {path: a, key: b, file: c}", "- path: a\n  fiel: b\n", "[{objectName: a, secretPath: b, filePermission: 256}]", "- 1\n- 2\n", "- {path: a, template: '{{ .x }', file: c}",
		"- &a {}\n", "- {path: a, passwordFrom: {path: b}, format: jks, file: c}", "x: [", "- {path: a, file: /c, mode: 256}\n- {path: a, key: b, file: c}\n",
	} {
		f.Add(seed, "role", "x")
		f.Add(seed, "roleName", "x")
		f.Add(seed, "strict", "true")
	}
	f.Add("- {path: a, key: b, file: c}\n"+strings.Repeat("#", 1<<20), "role", "x")
	f.Add("- {path: a, key: b, file: c}\n#"+strings.Repeat("<", 1<<18), "role", "x") // six bytes each as JSON
	stores := map[string]class.Store{"default": {Traits: kind.Traits{Roles: access.Optional, Versions: true}}}
	f.Fuzz(func(t *testing.T, objects, name, text string) {
		for _, dialect := range []class.Dialect{class.DialectKeymount, class.DialectVault, class.DialectOpenBao} {
			parameters := map[string]string{"objects": objects, name: text}
			if strings.HasPrefix(name, "csi.storage.k8s.io/") || name == "secretProviderClass" || !utf8.ValidString(objects+" "+name+" "+text) {
				return // JSON, as which a mount gets it, has other texts then
			}
			call := callParts{dialect: dialect, volume: providertest.Volume{Pod: pod(), Class: "app", Parameters: parameters, Tokens: map[string]string{audience: "x"}}}.call(t)
			request, err := class.Parse(call, stores)
			checked := class.Check(dialect, pod().Namespace, parameters, stores)
			if (err == nil) != (len(checked.Mistakes) == 0) {
				t.Fatalf("%s: a mount says %v, and Check %v", dialect, err, show(checked.Mistakes))
			}
			const most = 20 // that a mount spells out
			for i, m := range checked.Mistakes {
				if whole := strings.ReplaceAll(m.Whole(), "\n", "\n  "); i < most && !strings.Contains(err.Error(), m.Whole()) && !strings.Contains(err.Error(), whole) {
					t.Errorf("%s: a mount lacks %q: %v", dialect, m.Whole(), err)
				}
			}
			var warnings []string
			for _, w := range checked.Warnings {
				warnings = append(warnings, w.Whole())
			}
			if diff := cmp.Diff(request.Warnings, warnings); diff != "" {
				t.Errorf("%s: warnings: %s", dialect, diff)
			}
		}
	})
}
