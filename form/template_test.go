package form_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/form"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// values is the secret of most templates below.
func values() map[string]any {
	return map[string]any{
		"user": "shop", "password": "p@ss", "port": json.Number("5432"), "ratio": json.Number("1.10"), "tls": true, "off": false, "zero": json.Number("0"),
		"null": nil, "empty": "", "hosts": []any{"a", "b", "c"}, "mixed": []any{"x", json.Number("1"), nil, true}, "none": []any{}, "nothing": map[string]any{},
		"deep": map[string]any{"b": map[string]any{"c": "bottom"}, "a": json.Number("1"), "n": nil}, "lines": "one\ntwo\n", "b64": "cMOkc3M=", "csv": "a,b,,c", "odd-key": "odd",
		"raw": "\xff\x00", "index": json.Number("1"), "key": "user", "canary": canary, "html": "<&>", "path": "shop/db",
	}
}

// others are the secrets that a template can ask for.
func others(tb testing.TB) func(store.Path) (secret.Tree, bool) {
	tb.Helper()
	db := tree(tb, map[string]any{"name": "orders", "canary": canary})
	return func(path store.Path) (secret.Tree, bool) {
		if path.String() == "shop/db" {
			return db, true
		}
		return secret.Tree{}, false
	}
}

func execute(tb testing.TB, text string, data any) (string, error) {
	tb.Helper()
	tmpl, err := form.ParseTemplate(text, store.ParsePath)
	if err != nil {
		return "", err
	}
	made, err := tmpl.Execute(tb.Context(), tree(tb, data), others(tb))
	return string(made.Reveal()), err
}

func TestTemplates(t *testing.T) {
	tests := map[string]string{ //nolint:gosec // the passwords are made up
		``:      "",
		`plain`: "plain",
		`postgres://{{ .user }}:{{ .password }}@db/{{ (secret "shop/db").name }}`: "postgres://shop:p@ss@db/orders",
		`{{ $db := secret "shop/db" }}{{ $db.name }}`:                             "orders",
		`{{ with secret "shop/db" }}{{ .name }} {{ $.user }}{{ end }}`:            "orders shop",
		// Values as they print.
		`{{ .port }} {{ .ratio }} {{ .tls }} [{{ .null }}] [{{ .empty }}]`: "5432 1.10 true [] []",
		`{{ .mixed }} {{ .deep }} {{ .html }} {{ .nothing }}`:              `["x",1,null,true] {"a":1,"b":{"c":"bottom"},"n":null} <&> {}`,
		`{{ .raw }}`:                "\xff\x00",
		`{{ 1.5 }} {{ 7 }}`:         "1.5 7",
		`{{ $x := .null }}{{ $x }}`: "",
		// Flow.
		`{{ if .tls }}a{{ else if .off }}b{{ else }}c{{ end }}{{ if not .off }}d{{ end }}`:                                 "ad",
		`{{ range .hosts }}{{ . }};{{ end }}{{ range .none }}x{{ else }}none{{ end }}`:                                     "a;b;c;none",
		`{{ range $i, $h := .hosts }}{{ if $i }},{{ end }}{{ $i }}={{ $h }}{{ end }}`:                                      "0=a,1=b,2=c",
		`{{ range $k, $v := .deep }}{{ $k }} {{ end }}{{ range 3 }}{{ . }}{{ end }}`:                                       "a b n 012",
		`{{ range .hosts }}{{ if eq . "b" }}{{ continue }}{{ end }}{{ . }}{{ end }}{{ range .hosts }}{{ break }}{{ end }}`: "ac",
		`{{- /* a comment */ -}} {{ .user -}} !`:                                                                           "shop!",
		`{{ and .tls .user }} {{ or .empty .user }} {{ eq .port "5432" }} {{ lt 1 2 }} {{ len .hosts }} {{ len .user }}`:   "shop shop true true 3 4",
		// Functions.
		`{{ default "x" .empty }}{{ default "x" .null }}{{ default "x" .none }}{{ default "x" .nothing }}`:                           "xxxx",
		`{{ default "x" .user }} {{ .off | default "x" }} {{ default 1 .zero }}`:                                                     "shop false 0",
		`{{ default "x" .missing }}{{ .missing | default "y" }}{{ $.deep.q | default "z" }}{{ (secret "shop/db").q | default "w" }}`: "xyzw",
		`{{ default "x" .deep.n.further }} {{ default "x" .deep.b.c }} {{ $d := .deep }}{{ default "v" $d.q }}`:                      "x bottom v",
		`{{ required "msg" .user }} {{ .user | required "msg" }} {{ required "msg" .off }}`:                                          "shop shop false",
		`{{ .user | b64enc }} {{ b64enc .port }} {{ .b64 | b64dec }}`:                                                                "c2hvcA== NTQzMg== päss",
		`{{ toJson .deep }} {{ toJson .html }} {{ .hosts | toJson }} {{ toJson .null }}`:                                             `{"a":1,"b":{"c":"bottom"},"n":null} "<&>" ["a","b","c"] null`,
		"{{ toYaml .deep }}|":                                                                                                 "a: 1\nb:\n  c: bottom\n\"n\": null|",
		"x:{{ toYaml .hosts | nindent 2 }}":                                                                                   "x:\n  - a\n  - b\n  - c",
		"{{ indent 2 .lines }}|{{ .user | indent 0 }}":                                                                        "  one\n  two\n  |shop",
		`{{ trim " a b\n" }}|{{ upper .user }}|{{ lower "ÄB" }}`:                                                              "a b|SHOP|äb",
		`{{ replace "s" "z" .password }} {{ .password | replace "" "-" }}`:                                                    "p@zz -p-@-s-s-",
		`{{ quote .user }} {{ quote .port }} {{ "a\"b\\\n" | quote }} {{ quote .null }}`:                                      `"shop" "5432" "a\"b\\\n" ""`,
		`{{ join "," .hosts }} {{ .mixed | join "-" }} {{ join "," .none }} {{ join "," .null }}`:                             "a,b,c x-1--true  ",
		`{{ range split "," .csv }}[{{ . }}]{{ end }} {{ .csv | split "," | first }}{{ last (split "," .csv) }}`:              "[a][b][][c] ac",
		`{{ first .hosts }} {{ last .hosts }}`:                                                                                "a c",
		`{{ index . "odd-key" }} {{ index .hosts 1 }} {{ index .hosts .index }} {{ index .deep "b" "c" }} {{ index . .key }}`: "odd b b bottom shop",
		// An absent key where nothing is printed of it.
		`{{ if .foo }}a{{ else if .bar.baz }}b{{ else }}c{{ end }}{{ with .foo }}{{ . }}{{ else }}d{{ end }}`:                                                                  "cd",
		`{{ if or .foo .tls }}a{{ end }}{{ if and .tls .foo }}b{{ end }}{{ if not .foo }}c{{ end }}{{ if .deep.n.x }}d{{ end }}`:                                               "ac",
		`{{ or .foo "x" }} {{ or .foo .bar .user }} {{ .user | or .foo }} {{ not .foo }} {{ and .foo .user }}|`:                                                                "x shop shop true |",
		`{{ or .foo .bar | default "x" }} {{ default "y" (or .foo .bar) }} {{ (or .foo .user) }} {{ .user | and .tls }}`:                                                       "x y shop shop",
		`{{ if (secret "shop/db").foo }}a{{ else }}b{{ end }}{{ with $x := .foo }}{{ $x }}{{ end }}{{ $d := .deep }}{{ if $d.q }}c{{ end }}`:                                   "b",
		`{{ if index . "a-b" }}a{{ else }}b{{ end }}{{ with index .hosts 7 }}c{{ end }}{{ index . "a-b" | default "d" }}{{ or (index .foo "x") "e" }}`:                         "bde",
		`{{ if eq .foo "on" }}a{{ end }}{{ if ne .foo "on" }}b{{ end }}{{ if eq (lower .foo) "on" }}c{{ end }}{{ if eq .user .foo }}d{{ end }}`:                                "b",
		`{{ if and .foo (eq .foo.bar "x") }}a{{ end }}{{ if (index . "odd-key") }}b{{ end }}{{ if (index .foo "x").y }}c{{ end }}`:                                             "b",
		`{{ range $k, $v := .deep }}{{ if $v }}{{ end }}{{ if $.deep.absent }}x{{ end }}{{ end }}{{ with .deep }}{{ if .absent }}x{{ end }}{{ if $.foo }}y{{ end }}z{{ end }}`: "z",
		// Nor is there an answer of a function about it.
		`{{ with fromJson .foo }}x{{ else }}a{{ end }}{{ with .foo | fromJson }}x{{ else }}b{{ end }}{{ with .foo | b64dec }}x{{ else }}c{{ end }}`:                                        "abc",
		`{{ if splitList "," .foo }}x{{ else }}a{{ end }}{{ if len .foo }}x{{ else }}b{{ end }}{{ if first .foo }}x{{ else }}c{{ end }}{{ if last .foo }}x{{ end }}`:                       "abc",
		`{{ if join "," .foo }}x{{ end }}{{ if toJson .foo }}x{{ end }}{{ if quote .foo }}x{{ end }}{{ if replace "a" "b" .foo }}x{{ end }}{{ if toYaml .foo }}x{{ end }}`:                 "",
		`{{ if indent 2 .foo }}x{{ end }}{{ if split "," .foo | last }}x{{ end }}{{ if slice .foo 1 }}x{{ end }}{{ if b64enc .foo }}x{{ end }}{{ if .foo | upper }}x{{ end }}`:             "",
		`{{ with printf "%s:%s" .user .foo }}{{ . }}{{ else }}a{{ end }}{{ with print .user .foo }}{{ . }}{{ else }}b{{ end }}{{ with printf "%s" .user }}{{ . }}{{ end }}`:                "abshop",
		`{{ if gt .foo "5" }}x{{ end }}{{ if lt .foo "5" }}x{{ end }}{{ if not (ge "5" .foo) }}a{{ end }}{{ if le .foo .bar }}x{{ end }}{{ if gt (len .foo) 0 }}x{{ end }}`:                "a",
		`{{ or (fromJson .foo) "a" }}{{ or (eq .foo "x") "b" }}{{ or (ne .foo "x") "c" }}{{ or (gt .foo "x") "d" }}{{ or (eq .user "shop") "x" }}`:                                         "abcdtrue",
		`{{ fromJson .foo | default "a" }}{{ .foo | b64dec | upper | default "b" }}{{ default "c" (upper .foo) }}{{ default "d" (printf "%s" .foo) }}{{ upper .user | default "x" }}`:      "abcdSHOP",
		`{{ .foo | or "a" }}{{ .foo | b64dec | or "b" }}{{ .user | or "" }}{{ .foo | and "" }}{{ .foo | or "c" | upper }}{{ .foo | or "" | default "d" }}{{ .user | or .foo | and .tls }}`: "abshopCdshop",
		`{{ with (fromJson .foo).bar }}x{{ else }}a{{ end }}{{ if eq (fromJson .foo).bar "x" }}x{{ end }}{{ (fromJson .foo).bar | default "b" }}{{ len .port }}`:                           "ab4",
		// JSON and lists.
		"{{ $j := fromJson `{\"a\": {\"b\": [1.10, null, \"x\"]}, \"e\": \"\\ud83d\\ude00\"}` }}{{ index $j.a.b 0 }} {{ $j.e }} {{ toJson $j.a }}":                `1.10 😀 {"b":[1.10,null,"x"]}`,
		`{{ (fromJson "[1, 2]") | join "-" }} {{ fromJson "\"t\"" }} {{ fromJson "true" }} [{{ fromJson "null" }}] [{{ fromJson .null }}] {{ .port | fromJson }}`: "1-2 t true [] [] 5432",
		`{{ with (fromJson "{}").absent }}x{{ else }}none{{ end }} {{ (fromJson "{\"a\":1,\"a\":2}").a }}`:                                                        "none 2",
		`{{ range splitList "," .csv }}[{{ . }}]{{ end }} {{ splitList "" "aä" }} {{ splitList "," "" | len }} {{ .user | splitList "h" | last }}`:                `[a][b][][c] ["a","ä"] 1 op`,
		`{{ slice .user 1 3 }} {{ slice .hosts 1 }} {{ slice .user }}`:                                                                                            `ho ["b","c"] shop`,
		// Printing.
		`{{ print .user 1 2 true }} {{ print .null }}|{{ print .deep.b }}`:                           `shop1 2 true |{"c":"bottom"}`,
		"{{ println .user .port }}":                                                                  "shop 5432\n",
		`{{ printf "%s:%d/%v %5.2f%% %q %x %t" .user .port .null .ratio .user .user .tls }}`:         `shop:5432/  1.10% "shop" 73686f70 true`,
		`{{ printf "%[2]s %[1]s" .user .password }} {{ printf "%-6s|%06d|%.2s" .user .port .user }}`: "p@ss shop shop  |005432|sh",
		`{{ .user | printf "%s %v" .hosts }} {{ printf "%s" 5 }} {{ printf "no verbs" }}`:            `["a","b","c"] shop 5 no verbs`,
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			got, err := execute(t, text, values())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDotThatIsNoMap(t *testing.T) {
	for want, data := range map[string]any{"text": "text", "": nil, "1.10": json.Number("1.10"), `["a"]`: []any{"a"}} {
		if got, err := execute(t, "{{ . }}", data); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := execute(t, "{{ .key }}", nil); err == nil || err.Error() != `line 1, column 4, at <.key>: there is no key "key"` {
		t.Errorf("error %v", err)
	}
}

func TestPaths(t *testing.T) {
	tmpl, err := form.ParseTemplate(`{{ (secret "b/x").a }}{{ secret "a/x" | toJson }}{{ if .x }}{{ range .y }}{{ print (secret `+"`b/x`"+`) }}{{ end }}{{ else }}{{ secret "c" }}{{ end }}`, store.ParsePath)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, path := range tmpl.Paths() {
		got = append(got, path.String())
	}
	if diff := cmp.Diff([]string{"a/x", "b/x", "c"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if tmpl, err := form.ParseTemplate("x", store.ParsePath); err != nil || tmpl.Paths() != nil {
		t.Errorf("%v, %v", tmpl.Paths(), err)
	}
}

// mistakes are templates that must not parse, or not run, with the exact error.
func mistakes() map[string]string {
	const literal = `secret takes one literal path: (secret "mount/name").key`
	return map[string]string{ //nolint:gosec // the passwords are made up
		// What cannot be parsed.
		"{{ .a":              "line 1: unclosed action",
		"a\n{{ $x }}":        `line 2: undefined variable "$x"`,
		"{{ if .a }}":        "line 1: unexpected EOF",
		"{{ break }}":        "line 1: {{break}} outside {{range}}",
		"{{ fist .hosts }}":  `line 1, column 4, at <fist>: there is no function "fist"; did you mean "first"?`,
		"{{ now }}\n{{env}}": "line 1, column 4, at <now>: there is no function \"now\"; did you mean \"not\"?\nline 2, column 3, at <env>: there is no function \"env\"; did you mean \"and\"?",
		// Out of reach.
		`{{ define "x" }}a{{ end }}`:                                    "define and block are not available in a template",
		`{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}`: "define and block are not available in a template\nline 1, column 56, at <{{template \"x\"}}>: template and block are not available in a template",
		`{{ block "x" . }}a{{ end }}`:                                   "define and block are not available in a template\nline 1, column 10, at <{{template \"x\" .}}>: template and block are not available in a template",
		`{{ template "line" }}`:                                         `line 1, column 13, at <{{template "line"}}>: template and block are not available in a template`,
		`{{ call .user }}`:                                              "line 1, column 4, at <call>: call is not available in a template",
		`{{ .user | html }}`:                                            "line 1, column 12, at <html>: html is not available in a template",
		`{{ js .user }}{{ urlquery .user }}`:                            "line 1, column 4, at <js>: js is not available in a template\nline 1, column 18, at <urlquery>: urlquery is not available in a template",
		`{{ keymount_step 1 }}`:                                         `line 1, column 4, at <keymount_step>: there is no function "keymount_step"`,
		`{{ print keymount_text }}`:                                     `line 1, column 10, at <keymount_text>: there is no function "keymount_text"`,
		`{{ keymount_lookup . "user" }}`:                                `line 1, column 4, at <keymount_lookup>: there is no function "keymount_lookup"`,
		// A path is a literal.
		`{{ secret .path }}`:                                           "line 1, column 4, at <secret>: " + literal,
		`{{ $p := "shop/db" }}{{ secret $p }}`:                         "line 1, column 25, at <secret>: " + literal,
		`{{ "shop/db" | secret }}`:                                     "line 1, column 16, at <secret>: " + literal,
		`{{ .path | secret "shop/db" }}`:                               "line 1, column 12, at <secret>: " + literal,
		`{{ secret (print "shop/" "db") }}`:                            "line 1, column 4, at <secret>: " + literal,
		`{{ secret "shop/db" "x" }}`:                                   "line 1, column 4, at <secret>: " + literal,
		`{{ secret }}`:                                                 "line 1, column 4, at <secret>: " + literal,
		`{{ print secret "shop/db" }}`:                                 "line 1, column 10, at <secret>: " + literal,
		`{{ secret.name }}`:                                            "line 1, column 4, at <secret>: " + literal,
		`{{ secret "shop/../db" }}`:                                    `line 1, column 4, at <secret>: the path "shop/../db" has the segment ".."; write the path out`,
		`{{ if .x }}{{ else }}{{ range secret "" }}{{ end }}{{ end }}`: `line 1, column 31, at <secret>: the path is empty`,
		`{{ (secret "other/db").name }}`:                               `line 1, column 5, at <secret "other/db">: there is no secret "other/db"`,
		`{{ required .canary .missing }}`:                              "line 1, column 4, at <required>: required takes a literal text for its error first",
		`{{ .missing | required }}`:                                    "line 1, column 15, at <required>: required takes a literal text for its error first",
		// What is not there.
		"a\n  {{ .foo }}":                     `line 2, column 6, at <.foo>: there is no key "foo"`,
		`{{ .deep.foo.bar }}`:                 `line 1, column 9, at <.deep.foo.bar>: there is no key "foo"`,
		`{{ .canary.foo }}`:                   `line 1, column 11, at <.canary.foo>: there is no key "foo"; what stands before it is not a map`,
		`{{ default "x" .canary.foo }}`:       `line 1, column 23, at <.canary.foo>: there is no key "foo"; what stands before it is not a map`,
		`{{ .null.foo }}`:                     `line 1, column 9, at <.null.foo>: there is no key "foo"`,
		`{{ index . "foo" }}`:                 `line 1, column 4, at <index . "foo">: there is no such key`,
		`{{ index . .canary }}`:               `line 1, column 4, at <index . .canary>: there is no such key`,
		`{{ index .hosts 3 }}`:                `line 1, column 4, at <index .hosts 3>: there is no such element; the list has 3, and the first is 0`,
		`{{ index .canary 0 }}`:               `line 1, column 4, at <index .canary 0>: index takes a list or a map`,
		`{{ print (index . "foo") | quote }}`: `line 1, column 11, at <index . "foo">: there is no such key`,
		`{{ range .foo }}{{ end }}`:           `line 1, column 10, at <.foo>: there is no key "foo"`,
		// An absent key is tolerated in a question, and not where it is printed.
		`{{ if .tls }}{{ .foo }}{{ end }}`:                `line 1, column 17, at <.foo>: there is no key "foo"`,
		`{{ or .foo .bar }}`:                              `line 1, column 12, at <.bar>: there is no key "bar"`,
		`{{ .foo | or .bar }}`:                            `line 1, column 4, at <.foo>: there is no key "foo"`,
		`{{ and .tls .bar }}`:                             `line 1, column 13, at <.bar>: there is no key "bar"`,
		`{{ or .foo (index . "bar") }}`:                   `line 1, column 13, at <index . "bar">: there is no such key`,
		`{{ $x := .foo }}`:                                `line 1, column 10, at <.foo>: there is no key "foo"`,
		`{{ default .foo .user }}`:                        `line 1, column 12, at <.foo>: there is no key "foo"`,
		`{{ .foo | b64dec }}`:                             `line 1, column 4, at <.foo>: there is no key "foo"`,
		`{{ .foo | b64dec | upper }}`:                     `line 1, column 4, at <.foo>: there is no key "foo"`,
		`{{ or .bar (upper .foo) }}`:                      `line 1, column 19, at <.foo>: there is no key "foo"`,
		`{{ .foo | upper | or .bar }}`:                    `line 1, column 4, at <.foo>: there is no key "foo"`,
		`{{ gt .foo "5" }}`:                               `line 1, column 7, at <.foo>: there is no key "foo"`,
		`{{ range splitList "," .foo }}{{ end }}`:         `line 1, column 24, at <.foo>: there is no key "foo"`,
		`{{ default (upper .foo) .user }}`:                `line 1, column 19, at <.foo>: there is no key "foo"`,
		`{{ if replace .foo "x" .user }}{{ end }}`:        `line 1, column 15, at <.foo>: there is no key "foo"`,
		`{{ if .foo | index . }}{{ end }}`:                `line 1, column 7, at <.foo>: there is no key "foo"`,
		`{{ required "set the foo" (b64dec .foo) }}`:      `line 1, column 4, at <required "set the foo" (b64dec .foo)>: set the foo`,
		`{{ if b64dec .password }}{{ end }}`:              `line 1, column 7, at <b64dec .password>: not base64: byte 1 is not of its alphabet`,
		`{{ if .password | b64dec | upper }}{{ end }}`:    `line 1, column 19, at <b64dec>: not base64: byte 1 is not of its alphabet`,
		`{{ if upper .foo .user }}{{ end }}`:              `line 1, column 7, at <upper>: too few or too many arguments`,
		`{{ first (.none | or .foo) }}`:                   `line 1, column 4, at <first (.none | or .foo)>: first takes a list with at least one element`,
		`{{ if len .tls }}{{ end }}`:                      `line 1, column 7, at <len .tls>: len takes a text, a list or a map`,
		"{{ 1" + strings.Repeat(" | or 1", 200) + " }}":   "line 1, column 4: nested more than 100 deep",
		`{{ if index . .foo }}{{ end }}`:                  `line 1, column 15, at <.foo>: there is no key "foo"`,
		`{{ if index .canary 0 }}{{ end }}`:               `line 1, column 7, at <index .canary 0>: index takes a list or a map`,
		`{{ if .canary.foo }}{{ end }}`:                   `line 1, column 14, at <.canary.foo>: there is no key "foo"; what stands before it is not a map`,
		`{{ if or .foo (index .canary "x").y }}{{ end }}`: `line 1, column 16, at <index .canary "x">: index takes a list or a map`,
		// Names that other dialects have.
		`{{ get . "x" }}`:              `line 1, column 4, at <get>: there is no function "get"; did you mean "index"?`,
		`{{ coalesce .a .b }}`:         `line 1, column 4, at <coalesce>: there is no function "coalesce"; did you mean "or"?`,
		`{{ .csv | splitlist "," }}`:   `line 1, column 11, at <splitlist>: there is no function "splitlist"; did you mean "splitList"?`,
		`{{ fromJson .canary }}`:       `line 1, column 4, at <fromJson .canary>: fromJson takes a text that is JSON, and this is none`,
		`{{ fromJson "{} 1" }}`:        `line 1, column 4, at <fromJson "{} 1">: fromJson takes a text that is JSON, and this is none`,
		`{{ fromJson "" }}`:            `line 1, column 4, at <fromJson "">: fromJson takes a text that is JSON, and this is none`,
		`{{ fromJson .raw }}`:          `line 1, column 4, at <fromJson .raw>: fromJson takes a text that is JSON, and this is not Unicode`,
		"{{ fromJson `\"\\ud83d\"` }}": "line 1, column 4, at <fromJson `\"\\ud83d\"`>: fromJson takes a text that is JSON, and this is not Unicode",
		`{{ fromJson .nested }}`:       `line 1, column 4, at <fromJson .nested>: fromJson: nested more than 100 deep`,
		`{{ fromJson .parts }}`:        `line 1, column 4, at <fromJson .parts>: the result would have more than 1048576 bytes`,
		`{{ splitList "" .chars }}`:    `line 1, column 4, at <splitList "" .chars>: the result would have more than 1048576 bytes`,
		`{{ fromJson "[1" | first }}`:  `line 1, column 4, at <fromJson "[1">: fromJson takes a text that is JSON, and this is none`,
		`{{ range 20 }}{{ $x := fromJson $.half }}{{ end }}{{ 1i }}`: `line 1, column 24, at <fromJson $.half>: the functions of the template would make more than 16777216 bytes`,
		`{{ required "set the foo" .foo }}`:                          `line 1, column 4, at <required "set the foo" .foo>: set the foo`,
		`{{ .deep.foo | required "set it" }}`:                        `line 1, column 16, at <required "set it">: set it`,
		`{{ first .none }}`:                                          "line 1, column 4, at <first .none>: first takes a list with at least one element",
		`{{ last .canary }}`:                                         "line 1, column 4, at <last .canary>: last takes a list with at least one element",
		// Values of another kind.
		`{{ range .canary }}{{ end }}`: "line 1, column 10: range takes a list, a map or a whole number",
		`{{ range .port }}{{ end }}`:   "line 1, column 10: range takes a list, a map or a whole number",
		`{{ eq .canary 1 }}`:           `line 1, column 4, at <eq .canary 1>: these do not compare; a number of a secret compares to a number in quotes, as in: eq .port "5432"`,
		`{{ eq .deep .deep }}`:         `line 1, column 4, at <eq .deep .deep>: these do not compare; a number of a secret compares to a number in quotes, as in: eq .port "5432"`,
		// Work without results: what is looked through is paid for, too.
		`{{ $b := .big }}{{ range 100000 }}{{ $x := eq $b $b }}{{ end }}`:   `line 1, column 44, at <eq $b $b>: ` + looked,
		`{{ range 100000 }}{{ $x := replace "b" "" $.big }}{{ end }}`:       `line 1, column 28, at <replace "b" "" $.big>: the functions of the template would make more than 16777216 bytes`,
		`{{ range 100000 }}{{ $x := join "" $.empties }}{{ end }}`:          `line 1, column 28, at <join "" $.empties>: ` + looked,
		`{{ range 100000 }}{{ range $.wide }}{{ break }}{{ end }}{{ end }}`: `line 1, column 28: ` + looked,
		strings.Repeat("{{1}}", 3000):                                       "more than 5000 nodes; make two files of it",
		`{{ .user "x" }}`:                                                   "line 1, column 4, at <.user>: cannot be evaluated",
		`{{ .port.Float64 | .ratio.Int64 }}`:                                "line 1, column 26, at <.ratio.Int64>: too few or too many arguments",
		`{{ .ratio.Int64 }}`:                                                "line 1, column 10, at <.ratio.Int64>: cannot be evaluated",
		`{{ indent .user "x" }}`:                                            "line 1, column 4, at <indent .user \"x\">: indent takes the number of spaces first",
		`{{ indent -1 "x" }}`:                                               `line 1, column 4, at <indent -1 "x">: indent takes the number of spaces first`,
		`{{ join "," .canary }}`:                                            `line 1, column 4, at <join "," .canary>: join takes the separator and then a list`,
		`{{ split "" .canary }}`:                                            `line 1, column 4, at <split "" .canary>: split takes the separator first, which is not empty`,
		`{{ slice .canary 3 1 }}`:                                           "line 1, column 4, at <slice .canary 3 1>: slice: it ends before it begins",
		`{{ slice .hosts 0 4 }}`:                                            "line 1, column 4, at <slice .hosts 0 4>: slice: out of range; the length is 3",
		`{{ slice .port 0 4 }}`:                                             "line 1, column 4, at <slice .port 0 4>: slice takes a text or a list, and where to begin and to end",
		`{{ b64dec .password }}`:                                            "line 1, column 4, at <b64dec .password>: not base64: byte 1 is not of its alphabet",
		`{{ toJson .raw }}`:                                                 "line 1, column 4, at <toJson .raw>: the value is not UTF-8, which json cannot hold; give it a file of its own",
		`{{ 1i }}`:                                                          "line 1, column 4: the value cannot be written as json",
		`{{ upper }}`:                                                       "line 1, column 4, at <upper>: too few or too many arguments",
		`{{ printf "%d" .canary }}`:                                         `line 1, column 4, at <printf "%d" .canary>: printf: the verb takes a whole number`,
		`{{ printf "%s" }}`:                                                 `line 1, column 4, at <printf "%s">: printf has fewer values than verbs`,
		`{{ printf "%s" .canary .canary }}`:                                 `line 1, column 4, at <printf "%s" .canary .canary>: printf has more values than verbs`,
		`{{ printf "%T %p" .canary .canary }}`:                              `line 1, column 4, at <printf "%T %p" .canary .canary>: printf knows the verbs s, v, q, x, X, d, b, o, c, f, e, E, g, G and t`,
		`{{ printf "%" }}`:                                                  `line 1, column 4, at <printf "%">: printf: the text ends in a percent sign; write %% for one`,
		`{{ printf .port }}`:                                                `line 1, column 11, at <.port>: cannot be evaluated`,
		// More than there is room for.
		`{{ range 1000000000000 }}{{ end }}`:                                                                    "line 1, column 10: the ranges of the template take more than 100000 rounds",
		`{{ range 9000 }}{{ range 9000 }}{{ range 9000 }}{{ end }}{{ end }}{{ end }}`:                           "line 1, column 42: the ranges of the template take more than 100000 rounds",
		`{{ range 9000 }}{{ range 9000 }}{{ break }}{{ end }}{{ end }}{{ range 90000 }}{{ continue }}{{ end }}`: "line 1, column 71: the ranges of the template take more than 100000 rounds",
		`{{ range 90000 }}` + strings.Repeat("{{ $x := 1 }}", 400) + `{{ end }}`:                                "line 1, column 10: the ranges of the template take more than 5000000 steps",
		`{{ range 90000 }}{{ $.big }}{{ end }}`:                                                                 "the file would have more than 1048576 bytes",
		`{{ $x := .big }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}`:                                        "line 1, column 40, at <print $x $x>: the result would have more than 1048576 bytes",
		`{{ $x := .big }}{{ range 100 }}{{ $x = printf "%s%s" $x $x }}{{ end }}`:                                "line 1, column 40, at <printf \"%s%s\" $x $x>: the result would have more than 1048576 bytes",
		`{{ $x := .big }}{{ range 100 }}{{ $x = replace "x" "xx" $x }}{{ end }}`:                                "line 1, column 40, at <replace \"x\" \"xx\" $x>: the result would have more than 1048576 bytes",
		`{{ $x := .big }}{{ range 100 }}{{ $x = join $x (split "x" $x) }}{{ end }}`:                             "line 1, column 49, at <split \"x\" $x>: the result would have more than 1048576 bytes",
		`{{ join .big (split "," .commas) }}`:                                                                   "line 1, column 4, at <join .big (split \",\" .commas)>: the result would have more than 1048576 bytes",
		`{{ $x := .big }}{{ range 100 }}{{ $x = b64enc $x }}{{ end }}`:                                          "line 1, column 40, at <b64enc $x>: the result would have more than 1048576 bytes",
		`{{ $x := .big }}{{ range 100 }}{{ $x = toJson (quote $x) }}{{ $x = print $x $x }}{{ end }}`:            "line 1, column 68, at <print $x $x>: the result would have more than 1048576 bytes",
		`{{ range 1000 }}{{ $x := print $.big }}{{ end }}`:                                                      "line 1, column 26, at <print $.big>: the functions of the template would make more than 16777216 bytes",
		manyVariables(200, `printf "%s" .big`) + "{{ range 1000 }}{{ $y := printf `%s` $.big }}{{ end }}":       "line 1, column 5010, at <printf `%s` $.big>: the functions of the template would make more than 16777216 bytes",
		strings.Repeat("{{$a:=1}}", 600):                                                                        "line 1, column 4503, at <$a := 1>: more than 500 variables",
		`{{ indent 1000000000 .canary }}`:                                                                       "line 1, column 4, at <indent 1000000000 .canary>: the result would have more than 1048576 bytes",
		`{{ nindent 1000000 .lines }}`:                                                                          "line 1, column 4, at <nindent 1000000 .lines>: the result would have more than 1048576 bytes",
		`{{ indent 9223372036854775807 .lines }}`:                                                               "line 1, column 4, at <indent 9223372036854775807 .lines>: the result would have more than 1048576 bytes",
		`{{ printf "%1000000000d" 1 }}`:                                                                         `line 1, column 4, at <printf "%1000000000d" 1>: printf takes no width and precision over 999`,
		`{{ printf "%.1000f" 1.5 }}`:                                                                            `line 1, column 4, at <printf "%.1000f" 1.5>: printf takes no width and precision over 999`,
		`{{ printf "%*d" 1000000 1 }}`:                                                                          `line 1, column 4, at <printf "%*d" 1000000 1>: printf takes no * for a width or precision`,
		`{{ printf "%[3]*.[2]*[1]f" 12.0 2 6 }}`:                                                                `line 1, column 4, at <printf "%[3]*.[2]*[1]f" 12.0 2 6>: printf takes no * for a width or precision`,
		`{{ printf "` + strings.Repeat("%[1]s", 100) + `" .big }}`:                                              "line 1, column 4, at <printf \"%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[…>: the result would have more than 1048576 bytes",
		`{{ printf "` + strings.Repeat("%999d", 2000) + `"` + strings.Repeat(" 1", 2000) + ` }}`:                "line 1, column 4, at <printf \"%999d%999d%999d%999d%999d%999d%999d%999d%999d%999d%9…>: the result would have more than 1048576 bytes",
		"{{ " + strings.Repeat("(", 8000) + "1" + strings.Repeat(")", 8000) + " }}":                             "line 1, column 105: nested more than 100 deep",
		"{{ " + strings.Repeat("(", 30000) + "1" + strings.Repeat(")", 30000) + " }}":                           "line 1: max expression depth exceeded",
		strings.Repeat("{{if 1}}", 4000) + strings.Repeat("{{end}}", 4000):                                      "line 1, column 798: nested more than 100 deep",
		strings.Repeat("{{range 9}}", 3000) + strings.Repeat("{{end}}", 3000):                                   "line 1, column 1098: nested more than 100 deep",
		strings.Repeat("x", 64<<10+1):                                                                           "65537 bytes are more than a template may have (65536)",
	}
}

func manyVariables(n int, value string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{{$%x:=%s}}", i, value)
	}
	return b.String()
}

const looked = "the functions of the template would look through more than 268435456 bytes"

// attacked is the secret of the templates that want too much.
func attacked() map[string]any {
	v := values()
	v["big"] = strings.Repeat("x", 60_000)
	v["commas"] = strings.Repeat(",", 1000)
	empties, wide := make([]any, 20_000), map[string]any{}
	for i := range empties {
		empties[i] = ""
	}
	for i := range 20_000 {
		wide[fmt.Sprint(i)] = ""
	}
	v["empties"], v["wide"] = empties, wide
	v["nested"], v["parts"], v["chars"] = strings.Repeat("[", 101)+strings.Repeat("]", 101), "["+strings.Repeat("1,", 20_000)+"1]", strings.Repeat("x", 40_000)
	v["half"] = "[" + strings.Repeat("1,", 14_000) + "1]"
	return v
}

func TestMistakesOfTemplates(t *testing.T) {
	for text, want := range mistakes() {
		t.Run(text[:min(len(text), 60)], func(t *testing.T) {
			got, err := execute(t, text, attacked())
			if err == nil || err.Error() != want {
				t.Errorf("error %v\nwant  %s", err, want)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Error("the error holds the value")
			}
			if got != "" {
				t.Errorf("%d bytes came with the error", len(got))
			}
		})
	}
}

// TestErrorsHoldNoValues gives each function values that it cannot take.
func TestErrorsHoldNoValues(t *testing.T) {
	arguments := []string{".canary", ".list", ".map", ".number", ".null", `"%d%s%*z"`, "1"}
	functions := []string{
		"default", "required \"x\"", "index", "slice", "first", "last", "toJson", "toYaml", "b64enc", "b64dec", "indent", "nindent", "quote", "trim", "upper", "lower",
		"replace", "split", "join", "print", "println", "printf", "and", "or", "not", "len", "eq", "ne", "lt", "le", "gt", "ge", ".canary", ".map.x", ".number.Int64", "range", "with", "if",
	}
	data := map[string]any{"canary": canary + "\xff", "list": []any{canary + "\xff"}, "map": map[string]any{canary: canary}, "number": json.Number("91.7e-3"), "null": nil}
	for _, function := range functions {
		for _, a := range arguments {
			for _, b := range append(arguments, "") {
				for _, text := range []string{
					"{{ " + function + " " + a + " " + b + " }}", "{{ " + a + " | " + function + " " + b + " }}", "{{ " + function + " (" + a + ") }}{{ end }}",
					"{{ " + a + ".x }}", "{{ range " + b + " " + a + " }}{{ .x }}{{ end }}", "{{ $x := " + a + " }}{{ " + function + " $x.y $x }}",
				} {
					if _, err := execute(t, text, data); err != nil && (strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "91.7")) {
						t.Errorf("%s: %v", text, err)
					}
				}
			}
		}
	}
}

func TestCancelEndsARange(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tmpl, err := form.ParseTemplate(`{{ range 90000 }}{{ if eq . 5 }}{{ secret "shop/db" | toJson }}{{ end }}{{ end }}`, store.ParsePath)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tmpl.Execute(ctx, tree(t, nil), func(store.Path) (secret.Tree, bool) {
		cancel() // in the sixth round
		return secret.Tree{}, true
	})
	if !errors.Is(err, context.Canceled) || err.Error() != "line 1, column 55, at <toJson>: the template was stopped: context canceled" {
		t.Errorf("error %v", err)
	}
	tmpl, err = form.ParseTemplate(`{{ range 90000 }}{{ end }}`, store.ParsePath)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = tmpl.Execute(ctx, tree(t, nil), others(t)); !errors.Is(err, context.Canceled) || err.Error() != "line 1, column 10: the template was stopped: context canceled" {
		t.Errorf("error %v", err)
	}
}

func TestPanicsStayInside(t *testing.T) {
	tmpl, err := form.ParseTemplate(`{{ (secret "shop/db").name }}`, store.ParsePath)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tmpl.Execute(t.Context(), tree(t, nil), func(store.Path) (secret.Tree, bool) { panic(canary) })
	if err == nil || err.Error() != `line 1, column 5, at <secret "shop/db">: cannot be evaluated` {
		t.Errorf("error %v", err)
	}
	if _, err = tmpl.Execute(t.Context(), tree(t, nil), nil); err == nil || err.Error() != `line 1, column 5, at <secret "shop/db">: cannot be evaluated` {
		t.Errorf("error %v", err)
	}
}

func TestExecuteConcurrently(t *testing.T) {
	tmpl, err := form.ParseTemplate(`{{ range .hosts }}{{ . | upper }}{{ end }}{{ .missing | default (secret "shop/db").name }}{{ .n }}`, store.ParsePath)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			data := values()
			data["n"] = fmt.Sprint(i)
			for range 50 {
				got, err := tmpl.Execute(t.Context(), tree(t, data), others(t))
				if want := fmt.Sprintf("ABCorders%d", i); string(got.Reveal()) != want || err != nil {
					t.Errorf("%q, %v, want %q", got.Reveal(), err, want)
				}
			}
		})
	}
	wait.Wait()
}

func TestMemoryAfterAttacks(t *testing.T) {
	var attacks []*form.Template
	for text := range mistakes() {
		if tmpl, err := form.ParseTemplate(text, store.ParsePath); err == nil && !strings.Contains(text, "range 9") && !strings.Contains(text, "range 1000000") {
			attacks = append(attacks, tmpl) // the endless ranges take time and no memory
		}
	}
	data, secrets := tree(t, attacked()), others(t)
	run := func(n int) uint64 {
		var wait sync.WaitGroup
		for worker := range 2 {
			wait.Go(func() {
				for i := worker; i < n; i += 2 {
					if _, err := attacks[i%len(attacks)].Execute(t.Context(), data, secrets); err == nil {
						t.Error("an attack without an error")
					}
				}
			})
		}
		wait.Wait()
		runtime.GC()
		runtime.GC() // what is in a sync.Pool survives one
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before := run(len(attacks))
	const slack = 4 << 20
	if after := run(attackRuns); after > before+slack {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

func FuzzTemplate(f *testing.F) {
	for text := range mistakes() {
		if len(text) < 1000 {
			f.Add(text)
		}
	}
	f.Add(`{{ if or .missing (index .deep "q").x }}{{ else with (fromJson "{}").a }}{{ end }}{{ or .missing .user | default "x" }}{{ splitList "" .user }}`)
	f.Add(`{{ range $k, $v := . }}{{ $k }}={{ $v }}{{ end }}{{ with .null }}{{ else }}{{ print . }}{{ end }}`)
	f.Add(`{{ $x := .null }}{{ $x | printf "%v" }}{{ slice .hosts 1 | toYaml | nindent 2 }}{{ default .null .missing }}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := execute(t, text, values())
		if err != nil && strings.Contains(err.Error(), canary) && !strings.Contains(text, canary) {
			t.Errorf("the error holds a value: %v", err)
		}
		if err == nil && strings.Contains(got, "<no value>") && !strings.Contains(text, "no value") {
			t.Errorf("%q", got)
		}
		if len(got) > 1<<20 {
			t.Errorf("%d bytes", len(got))
		}
	})
}
