package provider_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/provider/providertest"
)

const app = "bad request: SecretProviderClass shop/app"

// What an author of a class gets to read for each mistake.
func TestMistakes(t *testing.T) {
	const good = `{path: shop/db, key: a, file: a}`
	tests := map[string]struct{ objects, want string }{
		"unknown field":           {`[` + good + `, ` + good + `, {path: shop/db, key: a, fiel: b, file: b}]`, "has 2 mistakes:\n  objects[2]: unknown field \"fiel\"; did you mean \"file\"?\n  objects[1]: file: \"a\" is also written by objects[0]"},
		"one unknown field":       {`[{path: shop/db, key: a, file: a, fiel: b}]`, `objects[0]: unknown field "fiel"; did you mean "file"?`},
		"far from any field":      {`[{path: shop/db, key: a, file: a, whatever: b}]`, `objects[0]: unknown field "whatever"`},
		"a field twice":           {`[{path: shop/db, key: a, file: a, file: b}]`, `objects[0]: field "file" is there twice`},
		"no objects":              {``, "objects: missing or empty; list the secrets, each as {path: ..., key: ..., file: ...}"},
		"empty list":              {`[]`, "objects: the list is empty; list the secrets, each as {path: ..., key: ..., file: ...}"},
		"a map":                   {`path: shop/db`, "objects: not a list; list the secrets, each as {path: ..., key: ..., file: ...}"},
		"a text":                  {`shop/db`, "objects: not a list; list the secrets, each as {path: ..., key: ..., file: ...}"},
		"two documents":           {"[]\n---\n[]", "objects: more than one YAML document; keep one list"},
		"a second that is broken": {"[]\n...\n: : ][", "objects: more than one YAML document; keep one list"},
		"an anchor":               {"- &a {path: shop/db, key: a, file: a}\n- *a", "objects: line 1: anchors and aliases are not read; write the value out"},
		"half a character":        {"[{\"path\": \"shop/db\",\n\"key\": \"\\ud83d\", \"file\": \"\\ude00\"}]", `objects: line 2: half of a character, such as \ud83d without \ude00; write both halves, or the character itself`},
		"a tag":                   {"- {path: !!binary c2hvcC9kYg==, key: a, file: a}", "objects: line 1: the tag !!binary is not read; remove it"},
		"a long key":              {`[{path: shop/db, key: ` + strings.Repeat("k.", 513) + `, file: a}]`, "objects[0]: key: 1026 bytes are more than a key may have (1024)"},
		"too many objects":        {strings.Repeat("- {}\n", 1001), "objects: 1001 are more than one class may have (1000)"},
		"template and format":     {`[{path: shop/db, template: x, format: json, file: a}]`, "objects[0]: format: a template makes the whole text; remove format or the template"},
		"template and key":        {`[{path: shop/db, template: x, key: a, file: a}]`, "objects[0]: key: a template makes the whole text; remove key or the template"},
		"template into a folder":  {`[{path: shop/db, template: x, file: a/}]`, `objects[0]: file: "a/" is a folder and a template makes one text; remove the slash`},
		"broken template":         {`[{path: shop/db, template: "{{ if }}", file: a}]`, "objects[0]: template: line 1: missing value for if"},
		"unknown format":          {`[{path: shop/db, format: jsn, file: a}]`, `objects[0]: format: "jsn" is none of json, yaml, dotenv, properties, pem, pfx, jks; did you mean "json"?`},
		"format into a folder":    {`[{path: shop/db, format: yaml, file: a/}]`, `objects[0]: file: "a/" is a folder and format: yaml makes one file; remove the slash`},
		"format and encoding":     {`[{path: shop/db, format: yaml, encoding: hex, file: a}]`, "objects[0]: encoding: is of a value that is written as it is; remove it or the format"},
		"unknown encoding":        {`[{path: shop/db, key: a, encoding: base46, file: a}]`, `objects[0]: encoding: "base46" is no encoding; did you mean "base64"?; there are base64, hex`},
		"keyFormat alone":         {`[{path: shop/db, key: a, keyFormat: pkcs8, file: a}]`, "objects[0]: keyFormat: is for format: pem; remove it"},
		"unknown keyFormat":       {`[{path: shop/db, format: pem, keyFormat: pkcs9, file: a}]`, `objects[0]: keyFormat: unknown key format "pkcs9"; did you mean "pkcs1"?`},
		"passwordKey alone":       {`[{path: shop/db, key: a, passwordKey: b, file: a}]`, "objects[0]: passwordKey: is for format: pem, pfx and jks; remove it"},
		"keystore, no password":   {`[{path: shop/db, format: jks, file: a}]`, "objects[0]: passwordKey: missing; name the key of the secret that holds the keystore's password, or another secret in passwordFrom: {path: ..., key: ...}"},
		"passwordFrom alone":      {`[{path: shop/db, key: a, passwordFrom: {path: shop/p, key: b}, file: a}]`, "objects[0]: passwordFrom: is for format: pem, pfx and jks; remove it"},
		"two passwords":           {`[{path: shop/db, format: jks, passwordKey: a, passwordFrom: {path: shop/p, key: b}, file: a}]`, "objects[0]: passwordFrom: the password is in one place; remove this or passwordKey"},
		"passwordFrom, a text":    {`[{path: shop/db, format: jks, passwordFrom: shop/p, file: a}]`, "objects[0]: passwordFrom: not a map; write {path: ..., key: ...}"},
		"passwordFrom, empty":     {`[{path: shop/db, format: jks, passwordFrom: {}, file: a}]`, "has 2 mistakes:\n  objects[0]: passwordFrom: key: missing; name the value that is the password\n  objects[0]: passwordFrom: path: missing; name the secret in the store"},
		"passwordFrom, a store":   {`[{path: shop/db, format: jks, passwordFrom: {path: shop/p, key: b, store: eu}, file: a}]`, `objects[0]: passwordFrom: unknown field "store"`},
		"passwordFrom, a path":    {`[{path: shop/db, format: jks, passwordFrom: {path: shop/../p, key: b}, file: a}]`, `objects[0]: passwordFrom: path: "shop/../p" has the segment ".."; write the path out`},
		"version of a bundle":     {`[{path: shop/db, key: a, version: 3, file: a}]`, `objects[0]: store "default" keeps no versions; remove version "3"`},
		"broken YAML":             {"- path: [", "objects: not YAML: line 1: did not find expected node content"},
		"an entry that is a text": {`[shop/db]`, "objects[0]: not a map; write {path: ..., key: ..., file: ...}"},
		"no path":                 {`[{key: a, file: a}]`, "objects[0]: path: missing; name the secret in the store"},
		"no file":                 {`[{path: shop/db, key: a}]`, `objects[0]: file: missing; name the file to write, or a folder ("tls/") for one file per key`},
		"no key":                  {`[{path: shop/db, file: a}]`, `objects[0]: key: missing; name the value for "a", or end file in a slash to get one file per key, or add a format or a template`},
		"empty key":               {`[{path: shop/db, key: "", file: a}]`, "objects[0]: key: is empty; give it a value or remove it"},
		"key and folder":          {`[{path: shop/db, key: a, file: a/}]`, `objects[0]: file: "a/" is a folder, which takes all keys, and key asks for "a" alone; remove the slash or the key`},
		"path is a list":          {`[{path: [shop, db], key: a, file: a}]`, "objects[0]: path: not a text"},
		"path with dots":          {`[{path: shop/../db, key: a, file: a}]`, `objects[0]: path: "shop/../db" has the segment ".."; write the path out`},
		"path with a slash":       {`[{path: /shop/db, key: a, file: a}]`, `objects[0]: path: "/shop/db" has an empty segment; write it without a slash at either end and without doubled slashes`},
		"path with a query":       {`[{path: "shop/db?version=2", key: a, file: a}]`, `objects[0]: path: "shop/db?version=2" holds '?'; a path has no %, ?, #, backslash or invisible characters`},
		"absolute file":           {`[{path: shop/db, key: a, file: /etc/passwd}]`, `objects[0]: file: "/etc/passwd" is absolute; it starts at the root of the mount, write it without the slash`},
		"file out of the mount":   {`[{path: shop/db, key: a, file: a/../../b}]`, `objects[0]: file: "a/../../b" is not a clean path; write it without empty, "." and ".." parts`},
		"file of the driver":      {`[{path: shop/db, key: a, file: ..data}]`, `objects[0]: file: "..data" starts with two dots, which the driver keeps to itself`},
		"file with a dot":         {`[{path: shop/db, key: a, file: ./a}]`, `objects[0]: file: "./a" is not a clean path; write it without empty, "." and ".." parts`},
		"file with doubled slash": {`[{path: shop/db, key: a, file: a//b}]`, `objects[0]: file: "a//b" is not a clean path; write it without empty, "." and ".." parts`},
		"file with a NUL":         {`[{path: shop/db, key: a, file: "a\0b"}]`, `objects[0]: file: "a\x00b" holds a NUL`},
		"long name":               {`[{path: shop/db, key: a, file: ` + strings.Repeat("n", 256) + `}]`, "objects[0]: file: a name of 256 bytes is more than a file may have (255)"},
		"long path":               {`[{path: shop/db, key: a, file: ` + strings.Repeat("n/", 2049) + `n}]`, "objects[0]: file: 4099 bytes are more than a path may have (4096)"},
		"folder is the file":      {`[{path: shop/db, key: a, file: a}, {path: shop/db, key: a, file: a/b}]`, `objects[1]: file: "a" is a file of objects[0] and cannot be a folder, too`},
		"file is the folder":      {`[{path: shop/db, file: a/}, {path: shop/db, key: a, file: a}]`, `objects[1]: file: "a" is a folder for objects[0]`},
		"decimal mode":            {`[{path: shop/db, key: a, file: a, mode: 384}]`, `objects[0]: mode: "384" is the decimal number that YAML tools make of 0600; write "0600", in quotes`},
		"decimal mode, octal too": {`[{path: shop/db, key: a, file: a, mode: 256}]`, `objects[0]: mode: "256" is the decimal number that YAML tools make of 0400; write "0400", in quotes, or "0256" if that is meant`},
		"a line break":            {`[{path: shop/db, key: a, file: "a\nb"}]`, `objects[0]: file: "a\nb" holds '\n'; no name has control, invisible or bidirectional characters`},
		"args that are none":      {`[{path: shop/db, key: a, file: a, args: }]`, "objects[0]: args: is empty; give it a value, or write args: {} for a write without arguments"},
		"mode with setuid":        {`[{path: shop/db, key: a, file: a, mode: "4755"}]`, `objects[0]: mode: "4755" is not an octal mode from "0000" to "0777", such as "0400"`},
		"letters for a mode":      {`[{path: shop/db, key: a, file: a, mode: u+r}]`, `objects[0]: mode: "u+r" is not an octal mode from "0000" to "0777", such as "0400"`},
		"optional is a text":      {`[{path: shop/db, key: a, file: a, optional: "yes"}]`, "objects[0]: optional: is not true or false"},
	}
	w := start(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			separator := ": "
			if strings.HasPrefix(test.want, "has ") {
				separator = " "
			}
			w.refused(t, w.volume(pod("shop", "api"), test.objects), codes.InvalidArgument, app+separator+test.want)
		})
	}
}

func TestSevenMistakesGetSeven(t *testing.T) {
	w := start(t)
	v := w.volume(pod("shop", "api"), `
- {path: shop//db, key: a, file: a}
- {path: shop/db, key: a, file: ../b, mode: 9}
- {path: shop/db, kee: a, file: c/}
- {key: d, file: d, optional: maybe}
`)
	v.Parameters["obejcts"] = "x"
	w.refused(t, v, codes.InvalidArgument, app+` has 7 mistakes:
  unknown parameter "obejcts"; did you mean "objects"?
  objects[0]: path: "shop//db" has an empty segment; write it without a slash at either end and without doubled slashes
  objects[1]: file: "../b" starts with two dots, which the driver keeps to itself
  objects[1]: mode: "9" is not an octal mode from "0000" to "0777", such as "0400"
  objects[2]: unknown field "kee"; did you mean "key"?
  objects[3]: path: missing; name the secret in the store
  objects[3]: optional: is not true or false`)
}

func TestManyMistakesAreCut(t *testing.T) {
	w := start(t)
	_, _, err := w.mount(t, w.volume(pod("shop", "api"), strings.Repeat("- x\n", 30)))
	if text := statusText(err); !strings.Contains(text, "has 30 mistakes:") || !strings.HasSuffix(text, "objects[19]: not a map; write {path: ..., key: ..., file: ...}\n  and 10 more") {
		t.Errorf("got %s", text)
	}
}

func TestParameters(t *testing.T) {
	tests := map[string]struct {
		change func(*providertest.Volume)
		want   string
	}{
		"unknown parameter": {func(v *providertest.Volume) { v.Parameters["rol"] = "x" }, `unknown parameter "rol"; did you mean "role"?`},
		"unknown store":     {func(v *providertest.Volume) { v.Parameters["store"] = "defautl" }, `objects[0]: store "defautl" is not in keymount.yaml; did you mean "default"?`},
		"role of a bundle":  {func(v *providertest.Volume) { v.Parameters["role"] = "api" }, `objects[0]: store "default" has no roles; remove role "api"`},
		"tokens not JSON": {
			func(v *providertest.Volume) {
				v.Tokens = nil
				v.Parameters["csi.storage.k8s.io/serviceAccount.tokens"] = canary
			},
			`csi.storage.k8s.io/serviceAccount.tokens: not a JSON object of the form {"<audience>": {"token": "<jwt>"}}`,
		},
		"no pod info": {func(v *providertest.Volume) { v.Pod.UID = "" }, "the driver sent no csi.storage.k8s.io/pod.uid; its CSIDriver object needs podInfoOnMount: true"},
	}
	w := start(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := w.volume(pod("shop", "api"), oneKey)
			test.change(&v)
			w.refused(t, v, codes.InvalidArgument, app+": "+test.want)
		})
	}
}

func TestAttributesThatAreNone(t *testing.T) {
	w := start(t)
	for _, attributes := range []string{"", "[]", `{"a":1}`, `{"objects": {"` + canary + `": 1}}`, "{"} {
		_, err := w.driver.Call(t.Context(), attributes)
		checkStatus(t, err, codes.InvalidArgument, "bad request: the attributes are not a JSON object of texts; is the caller the Secrets Store CSI driver?")
	}
	_, err := w.driver.Call(t.Context(), "null")
	if got := statusText(err); status.Code(err) != codes.InvalidArgument || !strings.Contains(got, "has 5 mistakes:") {
		t.Errorf("null: %v", err)
	}
}

// What a pod's author writes cannot flood the log or the event.
func TestLongNames(t *testing.T) {
	w := start(t)
	v := w.volume(pod("shop", "api"), "[]")
	v.Class = strings.Repeat("n", 900<<10)
	_, _, err := w.mount(t, v)
	if got := statusText(err); len(got) > 1000 {
		t.Errorf("the error has %d bytes", len(got))
	}
	if n := len(w.log.Bytes()); n > 3000 {
		t.Errorf("the log has %d bytes", n)
	}
	v = w.volume(pod("shop", "api"), "[{path: shop/db, key: k, file: "+strings.Repeat("f/", 2000)+"..}, "+strings.Repeat("{fie: x},", 30)+"]")
	_, _, err = w.mount(t, v)
	if got := statusText(err); len(got) > 9<<10 {
		t.Errorf("the error has %d bytes", len(got))
	}
}

// A key of a secret becomes the name of a file only if the driver will take it.
func TestKeysThatAreNoFiles(t *testing.T) {
	w := start(t)
	for key, want := range map[string]string{
		"a/b":    `key "a/b" cannot be a file: it holds a slash`,
		"..data": `key "..data" cannot be a file: "..data" starts with two dots, which the driver keeps to itself`,
		"":       `key "" cannot be a file: is empty`,
		".":      `key "." cannot be a file: "." is not a clean path; write it without empty, "." and ".." parts`,
		"\xff":   `key "\xff" cannot be a file: it is not UTF-8`,
		"a\nb":   `key "a\nb" cannot be a file: "a\nb" holds '\n'; no name has control, invisible or bidirectional characters`,
		"\u202e": `key "\u202e" cannot be a file: "\u202e" holds '\u202e'; no name has control, invisible or bidirectional characters`,
		"\u3164": "key \"\u3164\" cannot be a file: \"\u3164\" holds '\\u3164'; no name has control, invisible or bidirectional characters",
	} {
		w.memory.Set("shop/odd", map[string]any{key: canary})
		w.refused(t, w.volume(pod("shop", "api"), "[{path: shop/odd, file: ./}]"), codes.FailedPrecondition,
			`objects[0]: secret "shop/odd" of store "default": invalid: `+want)
	}
	w.memory.Set("shop/odd", map[string]any{"a": canary})
	w.refused(t, w.volume(pod("shop", "api"), "[{path: shop/odd, key: a, file: f/a}, {path: shop/odd, file: f/}]"), codes.FailedPrecondition,
		`objects[1]: secret "shop/odd" of store "default": invalid: file "f/a" is also written by objects[0]`)
	w.refused(t, w.volume(pod("shop", "api"), "[{path: shop/odd, key: b, file: f}]"), codes.NotFound,
		`objects[0]: secret "shop/odd" of store "default": not found: no such key "b"; check the key, or say optional: true`)
}

// However many keys cannot be files, and however long they are, the error stays short.
func TestManyKeysThatAreNoFiles(t *testing.T) {
	w := start(t)
	many := map[string]any{strings.Repeat("n", 1<<20): canary}
	for i := range 50_000 {
		many[fmt.Sprint("a\n", i)] = canary
	}
	w.memory.Set("shop/odd", many)
	_, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/odd, file: ./}]"))
	text := statusText(err)
	if lines := strings.Count(text, "\n") + 1; lines != 21 || !strings.HasSuffix(text, "\nand maybe more") {
		t.Errorf("%d lines, want 21 of which the last is \"and maybe more\": %.300s", lines, text)
	}
}

func TestMistakesAreNotRemembered(t *testing.T) {
	w := start(t)
	for _, namespace := range []string{"shop", "blog", "shop"} {
		const objects = `[{path: shop/db, key: a, fiel: a}]`
		w.refused(t, w.volume(pod(namespace, "api"), objects), codes.InvalidArgument, "bad request: SecretProviderClass "+namespace+
			"/app has 2 mistakes:\n  objects[0]: unknown field \"fiel\"; did you mean \"file\"?\n  objects[0]: file: missing; name the file to write, or a folder (\"tls/\") for one file per key")
	}
}

// Two pods of one class share what it means, and nothing else: with -race, and with
// every form of object at once.
func TestPodsShareAClass(t *testing.T) {
	w := start(t)
	const objects = `
- {path: team/db, key: password, file: password}
- {path: team/db, file: all/}
- {path: team/db, format: yaml, file: all.yaml}
- {path: team/db, template: '{{ .password | default "none" }} {{ range $k, $v := (secret "team/more") }}{{ $k }}={{ $v | upper }}{{ end }}', file: text}
- {path: team/absent, key: a, file: absent, optional: true}
`
	w.memory.Set("team/db", map[string]any{"password": canary, "user": "team"})
	w.memory.Set("team/more", map[string]any{"a": "x", "b": "y"})
	team := w.volume(pod("team", "api"), objects)
	stranger := w.volume(pod("blog", "api"), objects)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				files, _, err := w.mount(t, team)
				if err != nil || files["text"] != canary+" a=Xb=Y" || files["all/user"] != "team" || len(files) != 5 {
					t.Errorf("got %q, %v", files, err)
				}
			}
		})
		all.Go(func() {
			for range 5 {
				if _, _, err := w.mount(t, stranger); status.Code(err) != codes.PermissionDenied {
					t.Errorf("a pod of another namespace: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// What an execution says of its mistakes is the template's, whoever shares it.
func TestPodsShareABrokenTemplate(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"list": []any{"a"}})
	v := w.volume(pod("shop", "api"), `[{path: shop/db, template: '{{ range .list }}{{ $.absent.deep }}{{ end }}', file: f}]`)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, _, err := w.mount(t, v)
			if !strings.Contains(statusText(err), `at <$.absent.deep>: there is no key "absent"`) {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
}
