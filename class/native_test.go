package class_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/kind"
)

const plainRule = "no name has control, invisible or bidirectional characters"

// parse reads a class of a pod of shop; parameters are beside the objects.
func parse(t *testing.T, dialect class.Dialect, objects string, parameters map[string]string) (class.Request, error) {
	t.Helper()
	v := providertest.Volume{Pod: pod(), Class: "app", Parameters: map[string]string{"objects": objects}}
	if dialect != class.DialectKeymount {
		v.Parameters["roleName"] = "shop"
	}
	maps.Copy(v.Parameters, parameters)
	attributes, err := v.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	stores := vaultStores()
	if dialect == class.DialectKeymount {
		stores = map[string]class.Store{"default": {Traits: kind.Traits{Roles: 1, Versions: true, Writes: true}}}
	}
	return class.Parse(class.Call{Attributes: attributes, Dialect: dialect}, stores)
}

// A mode is octal as it is written. What YAML tools make of one is refused, quoted or not.
func TestModes(t *testing.T) {
	for text, want := range map[string]int32{
		"0400": 0o400, `"0400"`: 0o400, "'0400'": 0o400, "400": 0o400, `"400"`: 0o400, "0o400": 0o400, `"0o400"`: 0o400, "0o0400": 0o400,
		"440": 0o440, "444": 0o444, "500": 0o500, "550": 0o550, "555": 0o555, "600": 0o600, "640": 0o640, "644": 0o644, "660": 0o660, "664": 0o664,
		"666": 0o666, "700": 0o700, "750": 0o750, "755": 0o755, "770": 0o770, "777": 0o777,
		// With a zero in front nothing is decimal.
		"404": 0o404, "505": 0o505, "111": 0o111, "0256": 0o256, `"0420"`: 0o420, "0o256": 0o256, "0511": 0o511, "0000": 0, "0111": 0o111,
	} {
		r, err := parse(t, class.DialectKeymount, "[{path: shop/db, key: a, file: a, mode: "+text+"}]", nil)
		if err != nil || r.Objects[0].Mode != want {
			t.Errorf("%s: got %v, %v, want %04o", text, r.Objects, err, want)
		}
	}
	const generic = `%q is not an octal mode from "0000" to "0777", such as "0400"`
	for text, want := range map[string]string{
		"0": "", "44": "", "-256": "", "-0400": "", "+400": "", "true": "", "yes": "", "0x100": "", "0b100000000": "", "4_00": "", "256.0": "", "2.56e2": "", "1e3": "", "u=r": "",
		"01000": "", "1777": "", "4755": "", "00400": "", "0O400": "", "999": "", "1000": "",
		"null": "is empty; give it a value or remove it", "~": "is empty; give it a value or remove it", `""`: "is empty; give it a value or remove it",
		"[0400]": "not a text", "{a: 0400}": "not a text",
	} {
		if want == "" {
			want = fmt.Sprintf(generic, text)
		}
		_, err := parse(t, class.DialectKeymount, "[{path: shop/db, key: a, file: a, mode: "+text+"}]", nil)
		if err == nil || !strings.Contains(err.Error(), "objects[0]: mode: "+want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

// Every mode that is written in octal, and that a YAML tool rewrites in decimal, is refused
// or comes out as itself.
func TestRewrittenModes(t *testing.T) {
	mistaken := map[int]int32{}
	for _, mode := range []int{
		0o400, 0o404, 0o440, 0o444, 0o500, 0o504, 0o550, 0o554, 0o555, 0o600, 0o604, 0o640, 0o644, 0o660, 0o664, 0o666,
		0o700, 0o704, 0o740, 0o744, 0o750, 0o754, 0o755, 0o770, 0o774, 0o775, 0o776, 0o777,
	} {
		for _, text := range []string{fmt.Sprint(mode), fmt.Sprintf("%q", fmt.Sprint(mode))} {
			r, err := parse(t, class.DialectKeymount, "[{path: shop/db, key: a, file: a, mode: "+text+"}]", nil)
			if err == nil {
				mistaken[mode] = r.Objects[0].Mode
				continue
			}
			if want := fmt.Sprintf("%q is the decimal number that YAML tools make of %04o; write \"%04o\", in quotes", fmt.Sprint(mode), mode, mode); !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", text, err, want)
			}
		}
	}
	if len(mistaken) > 0 {
		t.Errorf("taken for other modes: %v", mistaken)
	}
}

// One rule for every text that becomes a name, a path, a header or part of a message.
func TestTextsThatAreNotPlain(t *testing.T) {
	odd := []string{"a\nb", "a\rb", "a\tb", "a\x00b", "a\x1bb", "a\u0085b", "a\u00a0b", "a\u00adb", "a\u200bb", "a\u202eb", "a\u2066b", "a\u2028b", "a\u3164b", "a\ufe0fb", "a\ufeffb", "a\ufffdb"}
	places := map[string]struct {
		dialect class.Dialect
		objects string // with a place for the text
	}{
		"file": {"", "path: shop/db, key: a, file: %s"}, "folder": {"", "path: shop/db, file: %s/"}, "deeper": {"", "path: shop/db, key: a, file: x/%s/y"},
		"path": {"", "path: shop/%s, key: a, file: a"}, "key": {"", "path: shop/db, key: %s, file: a"}, "role": {"", "path: shop/db, key: a, file: a, role: %s"},
		"store": {"", "path: shop/db, key: a, file: a, store: %s"}, "version": {"", "path: shop/db, key: a, file: a, version: %s"},
		"mode": {"", "path: shop/db, key: a, file: a, mode: %s"}, "encoding": {"", "path: shop/db, key: a, file: a, encoding: %s"},
		"format": {"", "path: shop/db, file: a, format: %s"}, "format of a folder": {"", "path: shop/db, file: a/, format: %s"}, "keyFormat": {"", "path: shop/db, file: a/, format: pem, keyFormat: %s"},
		"passwordKey": {"", "path: shop/db, file: a, format: pfx, passwordKey: %s"}, "lease": {"", "path: shop/db, file: a/, lease: %s"},
		"name of an argument": {"", "path: shop/db, file: a/, args: {%s: x}"}, "name deep in args": {"", "path: shop/db, file: a/, args: {a: [{%s: x}]}"},
		"field":       {"", "path: shop/db, file: a/, %s: x"},
		"objectName":  {"vault", "objectName: %s, secretPath: a/b"},
		"secretPath":  {"vault", "objectName: a, secretPath: shop/%s"},
		"secretKey":   {"vault", "objectName: a, secretPath: a/b, secretKey: %s"},
		"method":      {"vault", "objectName: a, secretPath: a/b, method: %s"},
		"of encoding": {"vault", "objectName: a, secretPath: a/b, secretKey: a, encoding: %s"},
		"permission":  {"vault", "objectName: a, secretPath: a/b, filePermission: %s"},
		"secretArgs":  {"vault", "objectName: a, secretPath: a/b, method: PUT, secretArgs: {%s: x}"},
	}
	for name, place := range places {
		for _, text := range odd {
			// The text is part of a YAML text in quotes, whatever is around it.
			objects := "[{" + place.objects + "}]"
			i := strings.Index(objects, "%s")
			from, to := strings.LastIndexAny(objects[:i], " {")+1, i+strings.IndexAny(objects[i:], ",:}")
			objects = objects[:from] + strings.Replace(`"`+objects[from:to]+`"`, "%s", strings.Trim(strconv.QuoteToASCII(text), `"`), 1) + objects[to:]
			dialect := place.dialect
			if dialect == "" {
				dialect = class.DialectKeymount
			}
			_, err := parse(t, dialect, objects, nil)
			checkOdd(t, name+" "+objects, err)
		}
	}
	for _, text := range odd {
		for _, name := range []string{"store", "role", "secretProviderClass", text} {
			_, err := parse(t, class.DialectKeymount, oneKey, map[string]string{name: text})
			checkOdd(t, fmt.Sprintf("%q", name), err)
		}
		for _, name := range []string{"roleName", "baoRoleName", "audience", "vaultAddress", "vaultNamespace", "baoNamespace", "vaultAuthMountPath", "openbaoKubernetesMountPath"} {
			parameters := map[string]string{name: text}
			if strings.HasSuffix(name, "RoleName") {
				parameters["roleName"] = ""
				parameters[name] = text
			}
			_, err := parse(t, class.DialectVault, vaultKey, parameters)
			checkOdd(t, name, err)
		}
	}
}

// A name of spaces, or with one at an end, looks like another or like none. A key is the
// store's affair.
func TestSpacesAtTheEndsOfNames(t *testing.T) {
	for objects, field := range map[string]string{
		`[{path: shop/db, key: a, file: " "}]`:            "file",
		`[{path: shop/db, key: a, file: "a "}]`:           "file",
		`[{path: shop/db, key: a, file: "x /a"}]`:         "file",
		`[{path: shop/db, file: "tls /"}]`:                "file",
		`[{path: "shop/ ", key: a, file: a}]`:             "path",
		`[{path: " shop/db", key: a, file: a}]`:           "path",
		`[{path: shop/db, key: a, file: a, role: " "}]`:   "role",
		`[{path: shop/db, key: a, file: a, store: "a "}]`: "store",
		`[{path: shop/db, key: " ", file: "a b/c d"}]`:    "",
		`[{path: "shop/d b", key: "a ", file: a}]`:        "",
	} {
		_, err := parse(t, class.DialectKeymount, objects, nil)
		if want := "objects[0]: " + field + ": "; field == "" && err != nil || field != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "has a space at an end of a name; remove it")) {
			t.Errorf("%s: got %v, want %q", objects, err, want)
		}
	}
	for _, name := range []string{"store", "role"} {
		if _, err := parse(t, class.DialectKeymount, oneKey, map[string]string{name: " "}); err == nil || !strings.Contains(err.Error(), name+`: " " has a space at an end`) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// checkOdd wants an error in which everything can be seen.
func checkOdd(t *testing.T, place string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: accepted", place)
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if strings.ContainsFunc(strings.ReplaceAll(line, "\u3164", ""), func(r rune) bool { return !spelling.IsPlain(r) && r != '\ufe0f' && r != '\ufffd' }) {
			t.Errorf("%s: cannot be seen: %+q", place, line)
		}
	}
}

// A template has lines, and what is told of it has not.
func TestTemplatesInMessages(t *testing.T) {
	for _, text := range []string{`{{ absent "a\u202eb" }}`, `{{ absent "a\u2066b\u200bc" }}`, `{{ secret "a\u202eb" }}`, "{{ absent `a\\nb` }}", `{{ absent "a\ufeffb" }}`} {
		_, err := parse(t, class.DialectKeymount, `[{path: shop/db, file: a, template: "`+strings.ReplaceAll(text, `"`, `\"`)+`"}]`, nil)
		checkOdd(t, text, err)
	}
}

// What a query asks is part of the request's path, whatever it is escaped with.
func TestQueriesThatAreNotPlain(t *testing.T) {
	for _, query := range []string{"a=%0a", "%0aa=b", "a=b%00", "a=%e2%80%ae", "a=%ff", "a=1&b=%0d", "version=1%0a"} {
		_, err := parse(t, class.DialectVault, `[{objectName: a, secretPath: "a/b?`+query+`"}]`, nil)
		if err == nil || !strings.Contains(err.Error(), `objects[0]: secretPath: the text after "?": `) {
			t.Errorf("%s: got %v", query, err)
		}
	}
	r, err := parse(t, class.DialectVault, `[{objectName: a, secretPath: "a/b?ttl=1h%20&x=%c3%bc"}]`, nil)
	if err != nil || r.Objects[0].Secret.Query != "ttl=1h+&x=%C3%BC" {
		t.Errorf("got %v, %v", r.Objects, err)
	}
}

// What comes from the kubelet is held against the same rule.
func TestPodsThatAreNotPlain(t *testing.T) {
	v := providertest.Volume{Pod: pod(), Class: "app", Parameters: map[string]string{"objects": oneKey}}
	v.Pod.Name = "api\n0"
	attributes, err := v.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	_, err = class.Parse(class.Call{Attributes: attributes, Dialect: class.DialectKeymount}, map[string]class.Store{"default": {}})
	if want := `csi.storage.k8s.io/pod.name: "api\n0" holds '\n'; ` + plainRule; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// The values of arguments are the store's affair.
func TestArgs(t *testing.T) {
	for args, want := range map[string]string{
		"{}": "{}", "{a: {}}": `{"a":{}}`, `{csr: "a\nb"}`: `{"csr":"a\nb"}`, "{b: 1, a: [true, null]}": `{"a":[true,null],"b":1}`, `{a: ""}`: `{"a":""}`, "\n    ttl: 1h": `{"ttl":"1h"}`,
	} {
		object := "- path: pki/issue/shop\n  file: cert/\n  args: "
		r, err := parse(t, class.DialectKeymount, object+args, nil)
		if err != nil || r.Objects[0].Secret.Args != want {
			t.Errorf("%s: got %v, %v, want %s", args, r.Objects, err, want)
		}
	}
	for args, want := range map[string]string{
		"": "is empty; give it a value, or write args: {} for a write without arguments", "~": "is empty;", "null": "is empty;", `""`: "not a map of names to values", "[]": "not a map of names to values",
		"a": "not a map of names to values", "[a]": "not a map of names to values", "1": "not a map of names to values", "{a: .inf}": "cannot be written as JSON",
	} {
		_, err := parse(t, class.DialectKeymount, "- path: pki/issue/shop\n  file: cert/\n  args: "+args, nil)
		if err == nil || !strings.Contains(err.Error(), "objects[0]: args: "+want) {
			t.Errorf("%s: got %v, want %s", args, err, want)
		}
	}
}

// Each spelling of a method and of an encoding that the other providers take.
func TestVaultEnumerations(t *testing.T) {
	for _, method := range []string{"GET", "get", "Get", "PUT", "put", "POST", "post", "Post"} {
		r, err := parse(t, class.DialectOpenBao, "[{objectName: a, secretPath: a/b, method: "+method+"}]", nil)
		if err != nil || (r.Objects[0].Secret.Args != "") != !strings.EqualFold(method, "get") {
			t.Errorf("%s: got %v, %v", method, r.Objects, err)
		}
	}
	for encoding, want := range map[string]string{"base64": "base64", "Base64": "base64", "BASE64": "base64", "hex": "hex", "HEX": "hex", "Hex": "hex", "utf-8": "", "UTF-8": "", "Utf-8": "", `""`: "", "~": ""} {
		r, err := parse(t, class.DialectVault, "[{objectName: a, secretPath: a/b, secretKey: a, encoding: "+encoding+"}]", nil)
		if err != nil || string(r.Objects[0].Encoding) != want {
			t.Errorf("%s: got %v, %v", encoding, r.Objects, err)
		}
	}
	for _, encoding := range []string{"utf8", "UTF8", "base-64", "base64url", "hexadecimal"} {
		if _, err := parse(t, class.DialectVault, "[{objectName: a, secretPath: a/b, secretKey: a, encoding: "+encoding+"}]", nil); err == nil {
			t.Errorf("%s is an encoding", encoding)
		}
	}
	for flag, want := range map[string]bool{"1": true, "t": true, "T": true, "true": true, "True": true, "TRUE": true, "0": false, "f": false, "F": false, "false": false, "False": false, "FALSE": false} {
		for _, prefix := range []string{"vault", "bao", "openbao"} {
			r, err := parse(t, class.DialectVault, vaultKey, map[string]string{prefix + "SkipTLSVerify": flag})
			if err != nil || slices.Contains(r.Warnings, prefix+"SkipTLSVerify: has no effect; the server's certificate is always verified") != want {
				t.Errorf("%s: got %q, %v", flag, r.Warnings, err)
			}
		}
	}
	for _, flag := range []string{"yes", "no", "on", "tRUE", "2", " true"} {
		_, err := parse(t, class.DialectVault, vaultKey, map[string]string{"baoSkipTLSVerify": flag})
		if err == nil || !strings.Contains(err.Error(), "baoSkipTLSVerify: is not true or false") {
			t.Errorf("%q: got %v", flag, err)
		}
	}
}
