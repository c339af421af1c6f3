package access_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keymount/keymount/access"
)

// A pattern that can fit no name is a mistake, with the cure.
func TestNamesThatCanBeNoNames(t *testing.T) {
	const regular = `; a pattern is no regular expression, and "*" in it stands for any characters: write `
	const ofNamespace = ` never fits; the name of a namespace has lower-case letters, digits and dashes, no `
	const ofAccount = ` never fits; the name of a service account has lower-case letters, digits, dashes and dots, no `
	const ends = ` never fits; the name of a namespace begins and ends with a letter or a digit`
	const apart = `; write each name as an entry of its own, without spaces`
	for _, test := range []struct{ list, pattern, want string }{
		{"namespaces", "shop-[a-z]+", ofNamespace + `'['` + regular + `"shop-*"`},
		{"namespaces", "^shop-.*$", ofNamespace + `'^'` + regular + `"shop-*"`},
		{"namespaces", "shop.*", ofNamespace + `'.'` + regular + `"shop*"`},
		{"namespaces", ".*", ofNamespace + `'.'` + regular + `"*"`},
		{"namespaces", "shop|blog", ofNamespace + `'|'` + `; a pattern is no regular expression: write each name as an entry of its own`},
		{"namespaces", "Shop", ofNamespace + `'S'; write "shop"`},
		{"namespaces", "shop_eu", ofNamespace + `'_'; did you mean "shop-eu"?`},
		{"namespaces", "shop.eu", ofNamespace + `'.'`},
		{"namespaces", " shop", ofNamespace + `' '` + apart},
		{"namespaces", "shop, blog", ofNamespace + `','` + apart},
		{"namespaces", "shöp", ofNamespace + `'ö'`},
		{"namespaces", "shop-", ends},
		{"namespaces", "-shop", ends},
		{"namespaces", "*-", ends},
		{"namespaces", "-*", ends},
		{"namespaces", "{serviceAccount}-", ends},
		{"namespaces", strings.Repeat("a", 64), ` never fits; the name of a namespace has 63 characters at most, and this takes 64`},
		{"namespaces", strings.Repeat("a", 63) + "*{serviceAccount}", ` never fits; the name of a namespace has 63 characters at most, and this takes 64`},
		{"serviceAccounts", "API", ofAccount + `'A'; write "api"`},
		{"serviceAccounts", "api-.*", ` never fits; between the dots of a name there is a part that begins and ends with a letter or a digit` + regular + `"api-*"`},
		{"serviceAccounts", ".*", ` never fits; the name of a service account begins and ends with a letter or a digit` + regular + `"*"`},
		{"serviceAccounts", "a..b", ` never fits; between the dots of a name there is a part that begins and ends with a letter or a digit`},
		{"serviceAccounts", "system:serviceaccount:shop:api", ofAccount + `':'`},
		{"serviceAccounts", strings.Repeat("a", 254), ` never fits; the name of a service account has 253 characters at most, and this takes 254`},
	} {
		rule := access.Rule{Namespaces: all, ServiceAccounts: all, Paths: []string{"**"}}
		if test.list == "namespaces" {
			rule.Namespaces = []string{test.pattern}
		} else {
			rule.ServiceAccounts = []string{test.pattern}
		}
		_, err := access.Compile("access", []access.Rule{rule}, plain)
		if want := "access[0]." + test.list + `[0]: "` + test.pattern + `"` + test.want; errorText(err) != want {
			t.Errorf("got\n%v\nwant\n%s", err, want)
		}
	}
}

func TestNamesThatCanBeNames(t *testing.T) {
	rule := access.Rule{
		Namespaces:      []string{"shop", "shop-*", "*-prod", "a--b", "1", "*a*", "{serviceAccount}", strings.Repeat("a", 63)},
		ServiceAccounts: []string{"api", "api.v1", "api.*", "*.api", "{namespace}.x", "{namespace}-*", "a.*.b", strings.Repeat("a", 253)},
		Paths:           []string{"**"},
	}
	if _, err := access.Compile("access", []access.Rule{rule}, plain); err != nil {
		t.Error(err)
	}
}

// What never fits for another reason.
func TestPathsThatCanBeNoPaths(t *testing.T) {
	const braces = `: braces hold {namespace} or {serviceAccount}, nothing else`
	for pattern, want := range map[string]string{ //nolint:gosec // no credentials
		"secret/{Namespace}/**":       `"{Namespace}"` + braces + `; did you mean "{namespace}"?`,
		"secret/{serviceaccount}/db":  `"{serviceaccount}"` + braces + `; did you mean "{serviceAccount}"?`,
		"secret/{service_account}/db": `"{service_account}"` + braces + `; did you mean "{serviceAccount}"?`,
		"secret/{{namespace}}/db":     `"{{namespace}}"` + braces + `; did you mean "{namespace}"?`,
		"secret/{{ .Namespace }}/db":  `"{{ .Namespace }}"` + braces + `; did you mean "{namespace}"?`,
		"secret/${namespace}/db":      `"${namespace}": what stands before a brace is a part of the text; write {namespace} or {serviceAccount} without "$"`,
		"/secret/{namespace}/db":      `empty segment; a pattern has no slash at either end and no doubled slashes`,
		"{namespace}/" + long:         `"{namespace}/` + long + `" never fits; it takes 1026 bytes, and a path has 1024 at most`,
		"**/" + long + "/*":           `"**/` + long + `/*" never fits; it takes 1026 bytes, and a path has 1024 at most`,
	} {
		_, err := access.Compile("access", []access.Rule{{Namespaces: all, ServiceAccounts: all, Paths: []string{pattern}}}, plain)
		if errorText(err) != "access[0].paths[0]: "+want {
			t.Errorf("got\n%v\nwant\n%s", err, want)
		}
	}
	if _, err := access.Compile("access", []access.Rule{{Namespaces: all, ServiceAccounts: all, Paths: []string{"**/" + long}}}, plain); err != nil {
		t.Error(err)
	}
}

// long is as long as a path can be.
var long = strings.Repeat("a", 1024)

// A kind of store says which patterns fit nothing of it.
func TestNever(t *testing.T) {
	kind := roled
	kind.Never = func(list, pattern string) error {
		if pattern == "bad" {
			return errors.New("never, as " + list)
		}
		return nil
	}
	bad := []string{"good", "bad"}
	_, err := access.Compile("access", []access.Rule{{Namespaces: bad, ServiceAccounts: bad, Roles: bad, Paths: bad, Writes: bad}}, kind)
	want := "access[0].namespaces[1]: never, as namespaces\naccess[0].serviceAccounts[1]: never, as serviceAccounts\n" +
		"access[0].paths[1]: never, as paths\naccess[0].roles[1]: never, as roles\naccess[0].writes[1]: never, as writes"
	if errorText(err) != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// A token's name that is no name of Kubernetes stands for no placeholder: it could be two
// names in one.
func TestStrangeNamesFitNoPlaceholder(t *testing.T) {
	rules := compile(t, plain, access.Rule{Namespaces: all, ServiceAccounts: all, Paths: []string{"{namespace}_{serviceAccount}"}})
	for _, pod := range []access.Query{{Namespace: "a_b", ServiceAccount: "c"}, {Namespace: "a", ServiceAccount: "b_c"}, {Namespace: "", ServiceAccount: "c"}} {
		pod.Path = parse(t, pod.Namespace+"_"+pod.ServiceAccount)
		if _, err := rules.Judge(pod); !errors.Is(err, access.ErrDenied) {
			t.Errorf("%s/%s: %v, want a denial", pod.Namespace, pod.ServiceAccount, err)
		}
	}
}
