package convert_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"unicode/utf8"
)

// externalTemplates use what has a counterpart of the templates of ExternalSecrets.
func externalTemplates() []string {
	return []string{
		`{{ .user }}:{{ .key | b64dec }}@{{ .host }}`,
		`{{ .host | upper | replace "." "-" | quote }}{{ .dashed | trim }}{ {{ .user | toString | b64enc }}`,
		`{{ if .empty }}x{{ else if eq .user "shop" }}shop{{ end }}{{ .empty | default "none" }}`,
		`{{ $j := fromJson .json }}{{ range $j.a }}{{ . | toJson }},{{ end }}{{ (index $j.a 1).b }}{{ $.user }}`,
		`{{ range $i, $p := splitList "," .list }}{{ $i }}{{ $p }}{{ with $.host }}{{ . }}{{ end }}{{ end }}{{ join ";" (splitList "," .list) }}`,
		`{{- with .lines }}{{ . | indent 2 }}{{ . | nindent 1 }}{{ end -}} {{ index . "user" }} {{ get . "host" | lower }} {{ printf "%s/%s" .user .host }}`,
		`{{ if .off }}on{{ else }}off{{ end }}{{ if eq .off "false" }}false{{ end }}{{ .zero | default "usual" }}{{ if .zero }}zero{{ end }}{{ empty .zero }}{{ not .off }}`,
		`{{ and .off .zero }}{{ or .off .user }}{{ coalesce .zero "c" }}{{ if eq .port "5432" }}pg{{ end }}{{ len .port }}{{ .port | toJson }}{{ .port | quote }}{{ printf "%q" .port }}`,
		`{{ with .off }}{{ . }}{{ end }}{{ $o := .off }}{{ if $o }}on{{ end }}{{ if not $o }}off{{ end }}{{ if $p := .zero }}{{ $p }}{{ end }}{{ ne .zero "0" }}{{ lt .port "6" }}`,
		`{{ .port | b64enc }}{{ .port | upper }}{{ .off | trim }}{{ .zero | replace "0" "1" }}{{ .map }}{{ .map | toJson }}{{ (fromJson .map).a }}{{ if .map }}m{{ end }}{{ .port | indent 2 }}`,
		`{{ coalesce .empty .user }}{{ empty .empty }}{{ len .user }}{{ first (splitList "," .list) }}{{ last (splitList "," .list) }}{{ required "no" .user }}`,
	}
}

// externalNames are the names of externalTemplates, each of a key of a secret.
func externalNames() map[string][2]string {
	return map[string][2]string{
		"user": {"shop/db", "user"}, "key": {"shop/db", "key"}, "dashed": {"shop/db", "a-b"}, "list": {"shop/db", "list"}, "json": {"shop/db", "json"},
		"off": {"shop/kinds", "off"}, "zero": {"shop/kinds", "zero"}, "port": {"shop/kinds", "port"}, "map": {"shop/kinds", "map"},
		"host": {"shop/host", "name"}, "lines": {"shop/host", "lines"}, "empty": {"shop/host", "empty"},
	}
}

// TestExternalTemplates executes templates as the operator does, with the functions of
// Sprig, and as keymount does after their conversion.
func TestExternalTemplates(t *testing.T) {
	for _, text := range externalTemplates() {
		if want, got := bothExternal(t, text); want != got || want == "" {
			t.Errorf("%q gives %q in place of %q", text, got, want)
		}
	}
}

// FuzzExternalTemplate holds the same of any template: where both ways give a text, it is
// the same one.
func FuzzExternalTemplate(f *testing.F) {
	for _, text := range externalTemplates() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if want, got := bothExternal(t, text); want != got {
			t.Errorf("%q gives %q in place of %q", text, got, want)
		}
	})
}

func bothExternal(t *testing.T, text string) (want, got string) {
	t.Helper()
	want, err := asTheOperator(text)
	if err != nil || !utf8.ValidString(text) || strings.Contains(want, "map[") || strings.Contains(want, "<nil>") || strings.Contains(want, "[a") {
		return "", ""
	}
	document := `
apiVersion: external-secrets.io/v1
kind: SecretStore
metadata: {name: vault}
spec: {provider: {vault: {server: "https://vault.example:8200", path: secret, auth: {kubernetes: {role: shop}}}}}
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: api}
spec:
  secretStoreRef: {name: vault}
  target: {template: {data: {file: ` + strconv.QuoteToASCII(text) + `}}}
  data:
`
	for name, of := range externalNames() {
		document += fmt.Sprintf("  - {secretKey: %s, remoteRef: {key: %s, property: %s}}\n", name, of[0], of[1])
	}
	object := objectOf(t, text, document)
	if object == nil {
		return "", ""
	}
	if got, err = executed(t, object); err != nil {
		return "", ""
	}
	return want, got
}

// asTheOperator executes a template as the External Secrets Operator does, whose data are
// texts, with the functions of Sprig.
func asTheOperator(text string) (string, error) {
	functions := template.FuncMap{
		"b64enc": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"b64dec": func(s string) (string, error) {
			decoded, err := base64.StdEncoding.DecodeString(s)
			return string(decoded), err
		},
		"trim": strings.TrimSpace, "upper": strings.ToUpper, "lower": strings.ToLower,
		"replace":   func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
		"quote":     func(s string) string { return fmt.Sprintf("%q", s) },
		"toString":  func(s string) string { return s },
		"splitList": func(sep, s string) []string { return strings.Split(s, sep) },
		"join":      func(sep string, list []string) string { return strings.Join(list, sep) },
		"first":     func(list []string) string { return list[0] },
		"last":      func(list []string) string { return list[len(list)-1] },
		"default": func(usual string, s string) string {
			if s == "" {
				return usual
			}
			return s
		},
		"coalesce": func(all ...string) string {
			for _, s := range all {
				if s != "" {
					return s
				}
			}
			return ""
		},
		"empty": func(s string) bool { return s == "" },
		"required": func(message, s string) (string, error) {
			if s == "" {
				return "", fmt.Errorf("%s", message)
			}
			return s, nil
		},
		"indent":   indented,
		"nindent":  func(n int, s string) (string, error) { text, err := indented(n, s); return "\n" + text, err },
		"fromJson": func(s string) (v any, err error) { return v, json.Unmarshal([]byte(s), &v) },
		"toJson":   func(v any) (string, error) { text, err := json.Marshal(v); return string(text), err },
		"get":      func(data map[string]string, name string) string { return data[name] },
	}
	data := map[string]string{}
	for name, of := range externalNames() {
		data[name] = asText(shopSecrets()["secret/"+of[0]][of[1]])
	}
	parsed, err := template.New("external").Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return "", fmt.Errorf("parse: %w", err)
	}
	out := bounded{}
	if err := parsed.Execute(&out, data); err != nil {
		return "", fmt.Errorf("execute: %w", err)
	}
	return out.String(), nil
}

// asText is a value as the operator has it: what is no text is JSON.
func asText(v any) string {
	if text, ok := v.(string); ok {
		return text
	}
	text, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(text)
}

func indented(n int, s string) (string, error) {
	if n < 0 || n > 100 {
		return "", fmt.Errorf("indent %d", n)
	}
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad), nil
}
