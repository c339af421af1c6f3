package access_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/store"
)

// all is a list that everything fits.
var all = []string{"*"}

// plain is the kind of a bundle, roled that of a Vault.
var (
	plain = access.Kind{}
	roled = access.Kind{Roles: access.Required, Writes: true}
)

// shopDB is the query that the tables change one thing of.
func shopDB(tb testing.TB) access.Query {
	tb.Helper()
	return access.Query{Store: "prod", Namespace: "shop", ServiceAccount: "api", Role: "shop-api", Path: parse(tb, "secret/shop/db")}
}

func parse(tb testing.TB, text string) store.Path {
	tb.Helper()
	path, err := store.ParsePath(text)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func compile(tb testing.TB, kind access.Kind, rules ...access.Rule) access.Rules {
	tb.Helper()
	compiled, err := access.Compile("access", rules, kind)
	if err != nil {
		tb.Fatal(err)
	}
	return compiled
}

func TestPathPatterns(t *testing.T) {
	tests := []struct {
		pattern string
		fits    string // paths, separated by spaces
		not     string
	}{
		{"secret/shop/db", "secret/shop/db", "secret/shop secret/shop/db/x secret/shop/dbx xsecret/shop/db shop/db Secret/shop/db"},
		{"*", "secret x", "secret/shop"},
		{"secret/*", "secret/shop", "secret secret/shop/db"},
		{"secret/*/db", "secret/shop/db secret/a.b/db", "secret/db secret/shop/eu/db"},
		{"secret/shop/d*", "secret/shop/d secret/shop/db", "secret/shop/b secret/shop/db/d"},
		{"secret/shop/*-db", "secret/shop/eu-db secret/shop/-db", "secret/shop/db secret/shop/eu-db-2"},
		{"a*b*c", "abc axbxc abbcc aXbYcc", "ab acb abcx a/b/c"},
		{"*a*", "a ba ab bab", "b b/a"},
		{"**", "secret secret/shop secret/shop/db", ""},
		{"secret/**", "secret secret/shop secret/shop/db/x", "secrets secrets/shop x/secret"},
		{"**/db", "db secret/db secret/shop/db db/db", "dbx db/x xdb"},
		{"secret/**/db", "secret/db secret/shop/db secret/a/b/c/db secret/db/db", "db secret/shop secret/shop/db/x"},
		{"a/**/b/**/c", "a/b/c a/x/b/y/z/c a/b/b/c/c", "a/c a/b a/c/b"},
		{"a/**/**/b", "a/b a/x/b a/x/y/b", "a b"},
		{"**/a/*/b", "a/x/b y/a/x/b a/a/b/b", "a/b x/a/b"},
		{"secret/{namespace}/db", "secret/shop/db", "secret/other/db secret/{namespace}/db secret/shop/x"},
		{"secret/{namespace}_{serviceAccount}/*", "secret/shop_api/db", "secret/shop/db secret/api_shop/db secret/shop_api secret/shop-api/db"},
		{"secret/{namespace}.{serviceAccount}/db", "secret/shop.api/db", "secret/shop/db secret/shop.api.x/db"},
		{"secret/*_{serviceAccount}/db", "secret/my_api/db secret/a_b_api/db secret/_api/db", "secret/api/db secret/myapi/db"},
		{"secret/{namespace}-prod/db", "secret/shop-prod/db", "secret/shop/db secret/shop-prod-prod/db"},
		{"secret/a.b/x", "secret/a.b/x", "secret/aXb/x"},
	}
	for _, test := range tests {
		t.Run(test.pattern, func(t *testing.T) {
			rules := compile(t, roled, access.Rule{Namespaces: all, ServiceAccounts: all, Roles: all, Paths: []string{test.pattern}})
			for text := range strings.FieldsSeq(test.fits) {
				q := shopDB(t)
				q.Path = parse(t, text)
				if _, err := rules.Judge(q); err != nil {
					t.Errorf("%s: %v", text, err)
				}
			}
			for text := range strings.FieldsSeq(test.not) {
				q := shopDB(t)
				q.Path = parse(t, text)
				if _, err := rules.Judge(q); !errors.Is(err, access.ErrDenied) {
					t.Errorf("%s: %v, want a denial", text, err)
				}
			}
		})
	}
}

func TestNamePatterns(t *testing.T) {
	tests := map[string]struct {
		change func(*access.Rule)
		allows bool
	}{
		"everything":              {func(*access.Rule) {}, true},
		"namespace":               {func(r *access.Rule) { r.Namespaces = []string{"shop"} }, true},
		"namespace by pattern":    {func(r *access.Rule) { r.Namespaces = []string{"sh*"} }, true},
		"one namespace of two":    {func(r *access.Rule) { r.Namespaces = []string{"team-*", "shop"} }, true},
		"other namespace":         {func(r *access.Rule) { r.Namespaces = []string{"shops", "sho", "team-*"} }, false},
		"service account":         {func(r *access.Rule) { r.ServiceAccounts = []string{"api"} }, true},
		"other service account":   {func(r *access.Rule) { r.ServiceAccounts = []string{"shop", "api2"} }, false},
		"role":                    {func(r *access.Rule) { r.Roles = []string{"shop-api"} }, true},
		"role of the asking":      {func(r *access.Rule) { r.Roles = []string{"{namespace}-api"} }, true},
		"other role":              {func(r *access.Rule) { r.Roles = []string{"{namespace}", "{serviceAccount}"} }, false},
		"swapped placeholders":    {func(r *access.Rule) { r.Namespaces = []string{"{serviceAccount}"} }, false},
		"other path":              {func(r *access.Rule) { r.Paths = []string{"secret/other/**"} }, false},
		"path above the secret":   {func(r *access.Rule) { r.Paths = []string{"secret/shop"} }, false},
		"pattern without a match": {func(r *access.Rule) { r.Namespaces = []string{"*shop*shop*"} }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rule := access.Rule{Namespaces: all, ServiceAccounts: all, Roles: all, Paths: []string{"**"}}
			test.change(&rule)
			if _, err := compile(t, roled, rule).Judge(shopDB(t)); (err == nil) != test.allows {
				t.Errorf("%v; allowed should be %v", err, test.allows)
			}
		})
	}
}

// What is no ordinary secret has to be named; a wildcard does not reach it.
func TestLiteralSegments(t *testing.T) {
	metadata, err := store.ParsePath("secret/metadata/db")
	if err != nil {
		t.Fatal(err)
	}
	for pattern, allows := range map[string]bool{
		"**": false, "secret/**": false, "secret/*/db": false, "secret/meta*/db": false, "secret/{namespace}/db": false,
		"secret/metadata/db": true, "secret/metadata/*": true, "*/metadata/**": true, "secret/data/db": false,
	} {
		rules := compile(t, plain, access.Rule{Namespaces: all, ServiceAccounts: all, Paths: []string{pattern}})
		_, err := rules.Judge(access.Query{Namespace: "metadata", Path: metadata, Literal: "metadata"})
		if (err == nil) != allows {
			t.Errorf("%s: %v; allowed should be %v", pattern, err, allows)
		}
	}
}

// Writing takes a pattern under writes; one under paths is not enough.
func TestWrites(t *testing.T) {
	q := shopDB(t)
	q.Write = true
	rule := access.Rule{Namespaces: all, ServiceAccounts: all, Roles: all, Paths: []string{"**"}}
	const want = `not allowed: service account shop/api may not write to "secret/shop/db" of store "prod" with role "shop-api"; no rule under access of that store in keymount.yaml allows it`
	if _, err := compile(t, roled, rule).Judge(q); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	rule.Writes = []string{"secret/{namespace}/*"}
	if _, err := compile(t, roled, rule).Judge(q); err != nil {
		t.Error(err)
	}
	q.Write = false
	rule.Paths = []string{"other"}
	if _, err := compile(t, roled, rule).Judge(q); err == nil {
		t.Error("a pattern under writes allows reading")
	}
}

func TestJudgeLogin(t *testing.T) {
	rule := access.Rule{Namespaces: []string{"shop"}, ServiceAccounts: []string{"api"}, Roles: []string{"shop-*"}, Paths: []string{"nothing"}}
	q := shopDB(t)
	if _, err := compile(t, roled, rule).JudgeLogin(q); err != nil {
		t.Error(err)
	}
	q.Role = "admin"
	const want = `not allowed: service account shop/api may not use store "prod" with role "admin"; no rule under access of that store in keymount.yaml allows it`
	if _, err := compile(t, roled, rule).JudgeLogin(q); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestOpenLeavesItToTheStore(t *testing.T) {
	if _, err := access.Open("access").Judge(shopDB(t)); err != nil {
		t.Error(err)
	}
	if _, err := access.Open("access").JudgeLogin(access.Query{}); err != nil {
		t.Error(err)
	}
}

// A name cannot smuggle a pattern into a rule: names are put in as they are.
func TestPlaceholdersAreLiteral(t *testing.T) {
	rules := compile(t, plain, access.Rule{Namespaces: all, ServiceAccounts: all, Paths: []string{"secret/{namespace}/db"}})
	for _, namespace := range []string{"*", "**", "{serviceAccount}", ""} {
		q := shopDB(t)
		q.Namespace = namespace
		if _, err := rules.Judge(q); !errors.Is(err, access.ErrDenied) {
			t.Errorf("namespace %q: %v, want a denial", namespace, err)
		}
	}
}

func TestListsFitInOneRule(t *testing.T) {
	rules := compile(t, roled,
		access.Rule{Namespaces: []string{"shop"}, ServiceAccounts: all, Roles: all, Paths: []string{"secret/other/**"}},
		access.Rule{Namespaces: []string{"other"}, ServiceAccounts: all, Roles: all, Paths: []string{"secret/shop/**"}},
	)
	if _, err := rules.Judge(shopDB(t)); !errors.Is(err, access.ErrDenied) {
		t.Errorf("one rule has the namespace and another the path: %v, want a denial", err)
	}
	q := shopDB(t)
	q.Namespace = "other"
	if _, err := rules.Judge(q); err != nil {
		t.Errorf("the second rule fits: %v", err)
	}
}

func TestStoreWithoutRoles(t *testing.T) {
	rules := compile(t, plain, access.Rule{Namespaces: all, ServiceAccounts: all, Paths: []string{"**"}})
	q := shopDB(t)
	q.Role = ""
	if _, err := rules.Judge(q); err != nil {
		t.Error(err)
	}
}

func TestNoRules(t *testing.T) {
	for name, rules := range map[string]access.Rules{"zero": {}, "empty": compile(t, roled), "empty, no roles": compile(t, plain)} {
		if _, err := rules.Judge(shopDB(t)); !errors.Is(err, access.ErrDenied) {
			t.Errorf("%s: %v, want a denial", name, err)
		}
	}
}

func TestDenial(t *testing.T) {
	const end = `; no rule under access of that store in keymount.yaml allows it`
	tests := map[string]string{
		"shop-api": `not allowed: service account shop/api may not read "secret/shop/db" of store "prod" with role "shop-api"` + end,
		"":         `not allowed: service account shop/api may not read "secret/shop/db" of store "prod"` + end,
	}
	for role, want := range tests {
		q := shopDB(t)
		q.Role = role
		if _, err := (access.Rules{}).Judge(q); err == nil || err.Error() != want {
			t.Errorf("role %q:\n%v\nwant\n%s", role, err, want)
		}
	}
}

func TestCompileMistakes(t *testing.T) {
	const missing = `missing; a list that is not there allows nothing, write ["*"] for all`
	const missingPaths = `missing; a list that is not there allows nothing, write ["**"] for all`
	const slash = `empty segment; a pattern has no slash at either end and no doubled slashes`
	const stars = `"**" stands for whole segments of a path and cannot be a part of one; use "*"`
	const braces = `braces hold {namespace} or {serviceAccount}, nothing else`
	tests := map[string]struct {
		change func(*access.Rule)
		want   string
	}{
		"no namespaces":       {func(r *access.Rule) { r.Namespaces = nil }, `access[0].namespaces: ` + missing},
		"no service accounts": {func(r *access.Rule) { r.ServiceAccounts = []string{} }, `access[0].serviceAccounts: ` + missing},
		"no roles":            {func(r *access.Rule) { r.Roles = nil }, `access[0].roles: ` + missing},
		"no paths":            {func(r *access.Rule) { r.Paths = nil }, `access[0].paths: ` + missingPaths},
		"empty pattern":       {func(r *access.Rule) { r.Roles = []string{"a", ""} }, `access[0].roles[1]: an empty pattern fits nothing; remove it`},
		"slash in a name":     {func(r *access.Rule) { r.Namespaces = []string{"a/b"} }, `access[0].namespaces[0]: "a/b" holds a slash; names of Kubernetes objects have none`},
		"slash first":         {func(r *access.Rule) { r.Paths = []string{"/a"} }, `access[0].paths[0]: ` + slash},
		"slash last":          {func(r *access.Rule) { r.Paths = []string{"a/"} }, `access[0].paths[0]: ` + slash},
		"doubled slash":       {func(r *access.Rule) { r.Paths = []string{"a//b"} }, `access[0].paths[0]: ` + slash},
		"dot":                 {func(r *access.Rule) { r.Paths = []string{"a/./b"} }, `access[0].paths[0]: "." never fits; no path has such a segment`},
		"itself":              {func(r *access.Rule) { r.Namespaces = []string{"{namespace}"} }, `access[0].namespaces[0]: "{namespace}" fits everybody here; write "*" if that is meant`},
		"itself, account":     {func(r *access.Rule) { r.ServiceAccounts = []string{"{serviceAccount}"} }, `access[0].serviceAccounts[0]: "{serviceAccount}" fits everybody here; write "*" if that is meant`},
		"query":               {func(r *access.Rule) { r.Paths = []string{"a/b?c"} }, `access[0].paths[0]: "a/b?c" never fits; a path has no %, ?, #, backslash or invisible characters`},
		"dots":                {func(r *access.Rule) { r.Paths = []string{"a/.."} }, `access[0].paths[0]: ".." never fits; no path has such a segment`},
		"stars in a segment":  {func(r *access.Rule) { r.Paths = []string{"a/b**"} }, `access[0].paths[0]: "b**": ` + stars},
		"three stars":         {func(r *access.Rule) { r.Paths = []string{"***"} }, `access[0].paths[0]: "***": ` + stars},
		"stars in a name":     {func(r *access.Rule) { r.ServiceAccounts = []string{"**"} }, `access[0].serviceAccounts[0]: "**": "**" is for paths and roles; names of Kubernetes objects have one segment, use "*"`},
		"unknown placeholder": {func(r *access.Rule) { r.Paths = []string{"a/{pod}/b"} }, `access[0].paths[0]: "{pod}": ` + braces},
		"open brace":          {func(r *access.Rule) { r.Paths = []string{"a{namespace"} }, `access[0].paths[0]: "{namespace": ` + braces + `; did you mean "{namespace}"?`},
		"closing brace":       {func(r *access.Rule) { r.Roles = []string{"a}"} }, `access[0].roles[0]: "}": ` + braces},
		"several": {
			func(r *access.Rule) { r.Namespaces, r.Paths = nil, []string{"a", "/", "b}"} },
			"access[0].namespaces: " + missing + "\naccess[0].paths[1]: " + slash + "\n" + `access[0].paths[2]: "}": ` + braces,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rule := access.Rule{Namespaces: all, ServiceAccounts: all, Roles: all, Paths: []string{"**"}}
			test.change(&rule)
			if _, err := access.Compile("access", []access.Rule{rule}, roled); err == nil || err.Error() != test.want {
				t.Errorf("error\n%v\nwant\n%s", err, test.want)
			}
		})
	}
}

func TestCompileNamesThePlace(t *testing.T) {
	good := access.Rule{Namespaces: all, ServiceAccounts: all, Paths: all}
	bad := access.Rule{Namespaces: all, ServiceAccounts: all, Paths: all, Roles: []string{"x"}}
	_, err := access.Compile("stores[1].access", []access.Rule{good, bad, {Namespaces: all, ServiceAccounts: all}}, plain)
	want := "stores[1].access[1].roles: this kind of store has no roles; remove the list\n" +
		`stores[1].access[2].paths: missing; a list that is not there allows nothing, write ["**"] for all`
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"secret/shop/db", "secret/shop/db"},
		{"secret/*/db", "secret/shop/db"},
		{"secret/**", "secret"},
		{"**/a/**/a/**", "a/a/a/b"},
		{"*a*a*a*", "aaaaaaaab"},
		{"{namespace}/{serviceAccount}", "shop/api"},
		{"{", "{"},
		{"}", "x"},
		{"***", "x"},
		{"a//b", "a"},
		{"", "a"},
		{"\xff*", "ÿ"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		rules, err := access.Compile("access", []access.Rule{{Namespaces: all, ServiceAccounts: all, Paths: []string{pattern}}}, plain)
		if err != nil {
			return
		}
		path, err := store.ParsePath(text)
		if err != nil {
			return
		}
		q := shopDB(t)
		q.Path = path
		decision, err := rules.Judge(q)
		allowed := err == nil && decision.Allowed
		if !strings.ContainsAny(pattern, "*{") && allowed != (pattern == text) {
			t.Errorf("pattern %q on %q: allowed is %v", pattern, text, allowed)
		}
		if pattern == "**" && !allowed {
			t.Errorf("%q denies %q", pattern, text)
		}
	})
}
