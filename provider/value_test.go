package provider_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

// Null is no value in every form: no file, no text, no password.
func TestNullIsNoValue(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/aws", map[string]any{"access_key": "AK", "security_token": nil, "deep": map[string]any{"none": nil, "some": "x"}, "list": []any{nil}})
	w.memory.Set("shop/nulls", map[string]any{"a": nil, "b": nil})
	const whole = `{"access_key":"AK","deep":{"none":null,"some":"x"},"list":[null],"security_token":null}` + "\n"
	for objects, want := range map[string]map[string]string{
		`[{path: shop/aws, file: aws/}]`:                                                      {"aws/access_key": "AK", "aws/deep": `{"none":null,"some":"x"}`, "aws/list": "[null]"},
		`[{path: shop/aws, key: security_token, optional: true, file: t}]`:                    {".keymount": ""},
		`[{path: shop/aws, key: deep.none, optional: true, file: t}]`:                         {".keymount": ""},
		`[{path: shop/aws, key: list.0, optional: true, file: t}]`:                            {".keymount": ""},
		`[{path: shop/aws, key: security_token, encoding: base64, optional: true, file: t}]`:  {".keymount": ""},
		`[{path: shop/aws, key: security_token, format: json, optional: true, file: t}]`:      {".keymount": ""},
		`[{path: shop/aws, key: security_token, format: pem, optional: true, file: t/}]`:      {".keymount": ""},
		`[{path: shop/nulls, file: n/, optional: true}]`:                                      {".keymount": ""},
		`[{path: shop/nulls, format: pem, file: n/, optional: true}]`:                         {".keymount": ""},
		`[{path: shop/aws, format: json, file: all.json}]`:                                    {"all.json": whole},
		`[{path: shop/nulls, format: dotenv, file: env}]`:                                     {"env": "a=''\nb=''\n"},
		`[{path: shop/nulls, format: properties, file: p}]`:                                   {"p": "a=\nb=\n"},
		`[{path: shop/nulls, format: yaml, file: y}]`:                                         {"y": "a: null\nb: null\n"},
		`[{path: shop/aws, template: '[{{ .security_token }}{{ .deep.none }}]', file: text}]`: {"text": "[]"},
	} {
		files, _, err := w.mount(t, w.volume(pod("shop", "api"), objects))
		if diff := cmp.Diff(want, files); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", objects, err, diff)
		}
	}
	const cure = "; check the key, or say optional: true"
	for objects, want := range map[string]string{
		`[{path: shop/aws, key: security_token, file: t}]`:               `not found: no such key "security_token": it is null, which is no value` + cure,
		`[{path: shop/aws, key: deep.none, file: t}]`:                    `not found: no such key "deep.none": it is null, which is no value` + cure,
		`[{path: shop/aws, key: security_token, format: json, file: t}]`: `not found: no such key "security_token": it is null, which is no value` + cure,
	} {
		w.refused(t, w.volume(pod("shop", "api"), objects), codes.NotFound, `objects[0]: secret "shop/aws" of store "default": `+want)
	}
	w.refused(t, w.volume(pod("shop", "api"), `[{path: shop/nulls, file: n/}]`), codes.NotFound,
		`objects[0]: secret "shop/nulls" of store "default": not found: all its keys are null, which is no value; fill one, or say optional: true`)
}

// counting is a store that says something else about its secrets at every read.
type counting struct {
	*storetest.Memory
}

func (c counting) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	value, err := c.Memory.Read(ctx, caller, ref)
	value.About = []string{"ttl", "last_vault_rotation"}
	return value, err
}

// The fields about a secret are not part of it: a change of one at every poll changes no
// file and no version, unless the class names it.
func TestWhatAStoreSaysAboutASecretIsNoPartOfIt(t *testing.T) {
	w := start(t, func(w *world, s *setup) {
		s.options.Backends[0].Store = direct(kind.Layers{Store: counting{w.memory}})
	})
	forms := map[string]struct {
		object string
		steady bool
		files  map[string]string // at a ttl of 1
	}{
		"folder":     {`file: db/`, true, map[string]string{"db/password": "p", "db/username": "u"}},
		"json":       {`format: json, file: f`, true, map[string]string{"f": `{"password":"p","username":"u"}` + "\n"}},
		"yaml":       {`format: yaml, file: f`, true, map[string]string{"f": "password: p\nusername: u\n"}},
		"dotenv":     {`format: dotenv, file: f`, true, map[string]string{"f": "password='p'\nusername='u'\n"}},
		"properties": {`format: properties, file: f`, true, map[string]string{"f": "password=p\nusername=u\n"}},
		"template":   {`template: '{{ toJson . }} {{ .username }}', file: f`, true, map[string]string{"f": `{"password":"p","username":"u"} u`}},
		"another's":  {`template: '{{ range $k, $v := (secret "shop/db") }}{{ $k }};{{ end }}', file: f`, true, map[string]string{"f": "password;username;"}},
		"key":        {`key: ttl, file: f`, false, map[string]string{"f": "1"}},
		"field":      {`template: '{{ .ttl }}', file: f`, false, map[string]string{"f": "1"}},
		"index":      {`template: '{{ index . "ttl" }}', file: f`, false, map[string]string{"f": "1"}},
		"variable":   {`template: '{{ $x := . }}{{ $x.ttl }}', file: f`, false, map[string]string{"f": "1"}},
		"of another": {`template: '{{ (secret "shop/db").ttl | default "none" }}', file: f`, false, map[string]string{"f": "1"}},
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			v := w.volume(pod("shop", "api"), fmt.Sprintf("[{path: shop/db, %s}]", form.object))
			var before map[string]string
			for ttl := 1; ttl <= 2; ttl++ {
				w.memory.Set("shop/db", map[string]any{"username": "u", "password": "p", "ttl": json.Number(fmt.Sprint(ttl)), "last_vault_rotation": "x"})
				files, versions, err := w.mount(t, v)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(form.files, files); ttl == 1 && diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if same := cmp.Equal(before, versions); ttl == 2 && same != form.steady {
					t.Errorf("the versions stay the same: %v, want %v", same, form.steady)
				}
				before = versions
			}
		})
	}
}

// The password of a keystore may be another secret: one that is judged, read and recorded
// like any object's, and once.
func TestPasswordOfAnotherSecret(t *testing.T) {
	chain := newChain(t)
	w := start(t)
	chain.fill(t, w.memory, "shop/tls: {certificate: (leaf), private_key: (key), ca_chain: [(intermediate), (root)], line: \""+canary+"\\n\", list: []}\nblog/password: {word: "+canary+"}\n")
	w.memory.Set("shop/password", map[string]any{"word": "fake-password", "none": nil, "number": json.Number("123456"), "line": canary + "\n", "return": canary + "\r\n", "map": map[string]any{"a": canary}, "bool": true})
	object := func(rest string) string { return "{path: shop/tls, format: jks, " + rest + "}" }
	from := func(path, key string) string { return "passwordFrom: {path: " + path + ", key: " + key + "}" }
	mount := func(objects ...string) (map[string]string, error) {
		files, _, err := w.mount(t, w.volume(pod("shop", "api"), "["+strings.Join(objects, ", ")+"]"))
		return files, err
	}
	pfx := func(password string) string { return "{path: shop/tls, format: pfx, " + password + ", file: f}" }
	const (
		invalid = `FailedPrecondition: objects[0]: secret "shop/tls" of store "default": invalid: `
		line    = " ends in a line break, which is no part of a password; store it without, as printf '%s' writes it and echo does not"
		kind    = " is no password; that is a text or a number"
	)
	reads := w.memory.Reads()
	files, err := mount(object(from("shop/password", "word")+", file: a.jks"), object(from("shop/password", "word")+", file: b.jks"), "{path: shop/password, key: word, file: word}")
	if err != nil || files["a.jks"] != files["b.jks"] || files["word"] != "fake-password" || chain.describe([]byte(files["a.jks"])) != "(JKS of the key and its chain)" {
		t.Errorf("got %d files, %v", len(files), err)
	}
	if n := w.memory.Reads() - reads; n != 2 {
		t.Errorf("%d reads of two secrets", n)
	}
	if files, err := mount(object(from("shop/password", "number") + ", file: a.jks")); err != nil || len(files) != 1 {
		t.Errorf("a number: %d files, %v", len(files), err)
	}
	for objects, want := range map[string]string{
		object(from("blog/password", "word") + ", file: f"): `PermissionDenied: objects[0]: not allowed: service account shop/api may not read "blog/password" of store "default"; no rule under access of that store in keymount.yaml allows it`,
		object(from("shop/absent", "word") + ", file: f"):   `NotFound: objects[0]: secret "shop/absent" of store "default": not found: no secret at "shop/absent"`,
		object(from("shop/password", "x") + ", file: f"):    `NotFound: objects[0]: secret "shop/tls" of store "default": not found: passwordFrom: secret "shop/password" of store "default": no such key "x"`,
		object(from("shop/password", "none") + ", file: f"): `NotFound: objects[0]: secret "shop/tls" of store "default": not found: passwordFrom: secret "shop/password" of store "default": no such key "none": it is null, which is no value`,
		object("passwordKey: line, file: f"):                invalid + `passwordKey: the value under "line"` + line,
		object("passwordKey: list, file: f"):                invalid + `passwordKey: the value under "list"` + kind,
		pfx(from("shop/password", "line")):                  invalid + `passwordFrom: secret "shop/password" of store "default": the value under "line"` + line,
		pfx(from("shop/password", "return")):                invalid + `passwordFrom: secret "shop/password" of store "default": the value under "return"` + line,
		pfx(from("shop/password", "map")):                   invalid + `passwordFrom: secret "shop/password" of store "default": the value under "map"` + kind,
		pfx(from("shop/password", "bool")):                  invalid + `passwordFrom: secret "shop/password" of store "default": the value under "bool"` + kind,
	} {
		_, err := mount(objects)
		if got := status.Code(err).String() + ": " + statusText(err); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", objects, got, want)
		}
	}
	for _, objects := range []string{
		object(from("shop/absent", "word") + ", optional: true, file: f"),
		object(from("shop/password", "x") + ", optional: true, file: f"),
		object(from("shop/password", "none") + ", optional: true, file: f"),
		object("passwordKey: absent, optional: true, file: f"),
	} {
		if files, err := mount(objects); err != nil || len(files) != 1 || files[".keymount"] != "" {
			t.Errorf("%s: %q, %v", objects, files, err)
		}
	}
}
