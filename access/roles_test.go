package access_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/store"
)

func TestRolePatterns(t *testing.T) {
	const arn = "arn:aws:iam::123456789012:role/"
	tests := []struct {
		pattern string
		fits    string // roles, separated by spaces
		not     string
	}{
		{"shop-api", "shop-api", "shop-ap shop-api/x x/shop-api Shop-Api"},
		{"*", "shop-api a:b @ %2f", "a/b " + arn + "x"},
		{arn + "shop/api", arn + "shop/api", arn + "shop/api/x " + arn + "shop arn:aws:iam::1:role/shop/api"},
		{arn + "{namespace}/*", arn + "shop/api " + arn + "shop/web", arn + "other/api " + arn + "shop " + arn + "shop/eu/api"},
		{arn + "{namespace}/{serviceAccount}", arn + "shop/api", arn + "api/shop " + arn + "shop/api2"},
		{arn + "**", arn + "shop " + arn + "shop/eu/api", "arn:aws:iam::123456789012:user/shop"},
		{"arn:aws:iam::*:role/{namespace}_*", "arn:aws:iam::1:role/shop_api arn:aws:iam::2:role/shop_", "arn:aws:iam::1:role/x/shop_api arn:aws:iam::1:x/role/shop_api"},
		{"**", "x " + arn + "shop/api a/b/c/d", ""},
		{"**/api", "api a/api a/b/api", "apis a/apis api/a"},
		{"projects/*/serviceAccounts/{serviceAccount}@*.com", "projects/p/serviceAccounts/api@p.com", "projects/p/q/serviceAccounts/api@p.com"},
		{"a/.../b", "a/.../b", "a/../b a/./b"},
	}
	for _, test := range tests {
		t.Run(test.pattern, func(t *testing.T) {
			rules := compile(t, roled, access.Rule{Namespaces: all, ServiceAccounts: all, Roles: []string{test.pattern}, Paths: []string{"**"}})
			for role := range strings.FieldsSeq(test.fits) {
				judgeRole(t, rules, role, true)
			}
			for role := range strings.FieldsSeq(test.not) {
				judgeRole(t, rules, role, false)
			}
		})
	}
}

// judgeRole wants the same answer for a login and for a read.
func judgeRole(t *testing.T, rules access.Rules, role string, allows bool) {
	t.Helper()
	q := shopDB(t)
	q.Role = role
	if _, err := rules.JudgeLogin(q); (err == nil) != allows {
		t.Errorf("login with role %q: %v; allowed should be %v", role, err, allows)
	}
	if _, err := rules.Judge(q); (err == nil) != allows {
		t.Errorf("role %q: %v; allowed should be %v", role, err, allows)
	}
}

// What a store might clean up fits nothing, wherever it stands.
func TestUncleanRolesFitNothing(t *testing.T) {
	rules := compile(t, access.Kind{Roles: access.Optional}, access.Rule{
		Namespaces: all, ServiceAccounts: all, Paths: []string{"**"},
		Roles: []string{"", "*", "**", "a/*", "*/b", "a/*/b", "a/**", "**/b", "a/**/b", "a*", "*b", "a/b", "{namespace}/**", "*/*/*/*"},
	})
	for _, role := range []string{
		"/", "//", "/a", "a/", "/a/", "a//b", "//a/b", "a/b//", ".", "..", "./a", "../b", "a/.", "a/..", "a/./b", "a/../b", "shop/../a/b", "a/b/../..", "shop//", "shop/",
	} {
		judgeRole(t, rules, role, false)
	}
	for _, role := range []string{"", "a", "a/b", "a/.../b", "a/.b", "a/b.", "..a", "shop/a"} {
		judgeRole(t, rules, role, true)
	}
}

func TestNeed(t *testing.T) {
	const needed = `missing; a list that is not there allows nothing, write ["*"] for all`
	tests := map[string]struct {
		kind  access.Kind
		roles []string
		want  string // the mistake
		none  bool   // a login without a role is allowed
		one   bool   // one with a role is
	}{
		"none":                          {kind: access.Kind{}, none: true, one: true},
		"none, with a list":             {kind: access.Kind{}, roles: []string{"*"}, want: "access[0].roles: this kind of store has no roles; remove the list"},
		"none, the login without":       {kind: access.Kind{}, roles: []string{""}, want: "access[0].roles: this kind of store has no roles; remove the list"},
		"optional":                      {kind: access.Kind{Roles: access.Optional}, roles: []string{"**"}, one: true},
		"optional, without":             {kind: access.Kind{Roles: access.Optional}, roles: []string{""}, none: true},
		"optional, both":                {kind: access.Kind{Roles: access.Optional}, roles: []string{"shop-*", ""}, none: true, one: true},
		"optional, another":             {kind: access.Kind{Roles: access.Optional}, roles: []string{"other"}},
		"optional, without a list":      {kind: access.Kind{Roles: access.Optional}, want: `access[0].roles: missing; a list that is not there allows nothing, write ["", "**"] for all`},
		"optional, an empty list":       {kind: access.Kind{Roles: access.Optional}, roles: []string{}, want: `access[0].roles: missing; a list that is not there allows nothing, write ["", "**"] for all`},
		"required":                      {kind: access.Kind{Roles: access.Required}, roles: []string{"*", "**"}, one: true},
		"required, the login without":   {kind: access.Kind{Roles: access.Required}, roles: []string{"*", ""}, want: "access[0].roles[1]: an empty pattern fits nothing; remove it"},
		"required, without a list":      {kind: access.Kind{Roles: access.Required}, want: "access[0].roles: " + needed},
		"required, a slash at the end":  {kind: access.Kind{Roles: access.Required}, roles: []string{"a/"}, want: "access[0].roles[0]: empty segment; a pattern has no slash at either end and no doubled slashes"},
		"required, dots":                {kind: access.Kind{Roles: access.Required}, roles: []string{"a/../b"}, want: `access[0].roles[0]: ".." never fits; no role has such a segment`},
		"required, stars in a segment":  {kind: access.Kind{Roles: access.Required}, roles: []string{"a/b**"}, want: `access[0].roles[0]: "b**": "**" stands for whole segments of a role and cannot be a part of one; use "*"`},
		"required, a colon and percent": {kind: access.Kind{Roles: access.Required}, roles: []string{"a:b%c", "*"}, one: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rules, err := access.Compile("access", []access.Rule{{Namespaces: all, ServiceAccounts: all, Roles: test.roles, Paths: []string{"**"}}}, test.kind)
			if got := errorText(err); got != test.want {
				t.Fatalf("error\n%s\nwant\n%s", got, test.want)
			}
			if err == nil {
				judgeRole(t, rules, "", test.none)
				judgeRole(t, rules, "shop-api", test.one)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Writes are a matter of their own: a store without roles may answer them.
func TestWritesWithoutRoles(t *testing.T) {
	rule := access.Rule{Namespaces: all, ServiceAccounts: all, Paths: []string{"**"}, Writes: []string{"secret/**"}}
	q := shopDB(t)
	q.Write = true
	if _, err := compile(t, access.Kind{Writes: true}, rule).Judge(q); err != nil {
		t.Error(err)
	}
	rules, err := access.Compile("access", []access.Rule{rule}, access.Kind{Roles: access.Optional})
	const want = `access[0].roles: missing; a list that is not there allows nothing, write ["", "**"] for all` + "\n" +
		"access[0].writes: this kind of store answers no writes; remove the list"
	if errorText(err) != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
	if _, err := rules.Judge(shopDB(t)); !errors.Is(err, access.ErrDenied) {
		t.Errorf("rules with mistakes allow: %v", err)
	}
}

func FuzzRole(f *testing.F) {
	for _, seed := range [][2]string{
		{"arn:aws:iam::123456789012:role/{namespace}/*", "arn:aws:iam::123456789012:role/shop/api"},
		{"**", "a/../b"},
		{"a/**/b", "a//b"},
		{"*", "."},
		{"a/*", "a/"},
		{"", ""},
		{"{namespace}", "shop"},
		{"\xff*", "\xff/"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, role string) {
		rule := access.Rule{Namespaces: all, ServiceAccounts: all, Roles: []string{pattern}, Paths: []string{"**"}}
		rules, err := access.Compile("access", []access.Rule{rule}, access.Kind{Roles: access.Optional})
		if err != nil {
			return
		}
		q := shopDB(t)
		q.Role = role
		_, err = rules.Judge(q)
		allowed := err == nil
		for segment := range strings.SplitSeq(role, "/") {
			if role != "" && (segment == "" || segment == "." || segment == "..") && allowed {
				t.Errorf("%q fits the unclean role %q", pattern, role)
			}
		}
		if !strings.ContainsAny(pattern, "*{") && allowed != (pattern == role) {
			t.Errorf("%q on role %q: allowed is %v", pattern, role, allowed)
		}
		path, err := store.ParsePath(role)
		if err != nil {
			return
		}
		// A role that is a path, too, is judged as one.
		rule.Roles, rule.Paths = nil, []string{pattern}
		likePath, err := access.Compile("access", []access.Rule{rule}, plain)
		if err != nil {
			return
		}
		q.Path = path
		if _, err := likePath.Judge(q); (err == nil) != allowed {
			t.Errorf("%q on %q: as a role allowed is %v, as a path %v", pattern, role, allowed, err)
		}
	})
}
