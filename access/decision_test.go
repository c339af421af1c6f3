package access_test

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/access"
)

// ladder has one rule for each list that may be the first that does not fit shopDB.
func ladder() []access.Rule {
	none := []string{"none"}
	return []access.Rule{
		{Namespaces: none, ServiceAccounts: all, Roles: all, Paths: []string{"**"}, Writes: []string{"**"}},
		{Namespaces: all, ServiceAccounts: none, Roles: all, Paths: []string{"**"}, Writes: []string{"**"}},
		{Namespaces: all, ServiceAccounts: all, Roles: none, Paths: []string{"**"}, Writes: []string{"**"}},
		{Namespaces: all, ServiceAccounts: all, Roles: all, Paths: none},
	}
}

func TestDecisions(t *testing.T) {
	rules := ladder()
	allows := access.Rule{Namespaces: []string{"shop"}, ServiceAccounts: []string{"api"}, Roles: all, Paths: []string{"secret/**"}}
	tests := map[string]struct {
		rules []access.Rule
		write bool
		want  access.Decision
	}{
		"no rules":                           {nil, false, access.Decision{}},
		"a grant":                            {[]access.Rule{allows}, false, access.Decision{Allowed: true, Rule: "stores[1].access[0]"}},
		"a grant after denials":              {append(ladder(), allows), false, access.Decision{Allowed: true, Rule: "stores[1].access[4]"}},
		"the first of two grants":            {[]access.Rule{rules[0], allows, allows}, false, access.Decision{Allowed: true, Rule: "stores[1].access[1]"}},
		"namespaces":                         {rules[:1], false, access.Decision{Rule: "stores[1].access[0]", List: "namespaces"}},
		"service accounts come nearer":       {rules[:2], false, access.Decision{Rule: "stores[1].access[1]", List: "serviceAccounts"}},
		"roles come nearer":                  {rules[:3], false, access.Decision{Rule: "stores[1].access[2]", List: "roles"}},
		"paths come nearest":                 {rules, false, access.Decision{Rule: "stores[1].access[3]", List: "paths"}},
		"wherever the nearest stands":        {[]access.Rule{rules[3], rules[0], rules[2]}, false, access.Decision{Rule: "stores[1].access[0]", List: "paths"}},
		"the first of two that are as near":  {[]access.Rule{rules[0], rules[2], rules[2]}, false, access.Decision{Rule: "stores[1].access[1]", List: "roles"}},
		"writes, where there are none":       {rules, true, access.Decision{Rule: "stores[1].access[3]", List: "writes"}},
		"a grant of reads is none of writes": {[]access.Rule{allows}, true, access.Decision{Rule: "stores[1].access[0]", List: "writes"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			compiled, err := access.Compile("stores[1].access", test.rules, roled)
			if err != nil {
				t.Fatal(err)
			}
			q := shopDB(t)
			q.Write = test.write
			got, err := compiled.Judge(q)
			if diff := cmp.Diff(test.want, got); diff != "" || (err == nil) != got.Allowed {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
			if err != nil && (strings.Contains(err.Error(), "stores[1]") || strings.Contains(err.Error(), "none\"")) {
				t.Errorf("the pod is told of the rules: %v", err)
			}
			if fitted, again := compiled.Fitted(q).Judge(q); fitted != got || (again == nil) != (err == nil) {
				t.Errorf("those that fit the login decide %+v, and all of them %+v", fitted, got)
			}
		})
	}
}

// A login is not held against paths.
func TestLoginDecisions(t *testing.T) {
	rules := ladder()
	compiled := compile(t, roled, rules...)
	got, err := compiled.JudgeLogin(shopDB(t))
	if want := (access.Decision{Allowed: true, Rule: "access[3]"}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = compile(t, roled, rules[:3]...).JudgeLogin(shopDB(t))
	if want := (access.Decision{Rule: "access[2]", List: "roles"}); err == nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Roles do not count where a store has none, and a wildcard is no name.
func TestNearestWithoutRoles(t *testing.T) {
	rules := compile(t, plain, access.Rule{Namespaces: all, ServiceAccounts: all, Paths: []string{"**"}})
	q := shopDB(t)
	q.Literal = "shop"
	got, err := rules.Judge(q)
	if want := (access.Decision{Rule: "access[0]", List: "paths"}); err == nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

// The rules that fit a login decide on any path of it as all rules do, whatever they are.
func TestFittedDecidesAlike(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same ones each time
	names := func() []string { return []string{pick(random, "*", "a*", "a", "b"), pick(random, "a-*", "b")} }
	granted := 0
	for range 2000 {
		list := make([]access.Rule, random.IntN(5))
		for i := range list {
			paths := func() []string { return []string{pick(random, "**", "{namespace}/*", "a/b", "b/*", "c")} }
			list[i] = access.Rule{Namespaces: names(), ServiceAccounts: names(), Roles: names(), Paths: paths(), Writes: paths()}
		}
		rules, q := compile(t, roled, list...), somePod(random)
		q.Role = pick(random, "a", "b", "a-b")
		fitted := rules.Fitted(q)
		for _, path := range []string{"a/b", "b/b", "b/a", "c", "d"} {
			q.Path, q.Write, q.Literal = parse(t, path), random.IntN(2) == 0, pick(random, "", "b")
			want, denied := rules.Judge(q)
			if got, err := fitted.Judge(q); got != want || errorText(err) != errorText(denied) {
				t.Fatalf("%+v of %+v: those that fit decide %+v, %v, and all of them %+v, %v", q, list, got, err, want, denied)
			}
			if want.Allowed {
				granted++
			}
		}
	}
	if granted < 1000 || granted > 9000 {
		t.Errorf("%d of 10,000 queries are granted: this test sees too little", granted)
	}
}

func TestOpenDecision(t *testing.T) {
	open := access.Open("stores[2].access")
	want := access.Decision{Allowed: true, Rule: "stores[2].access: store"}
	if got, err := open.Judge(shopDB(t)); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := open.JudgeLogin(shopDB(t)); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := open.Fitted(shopDB(t)).Judge(shopDB(t)); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDecisionInALogLine(t *testing.T) {
	var line bytes.Buffer
	log := slog.New(slog.NewTextHandler(&line, nil))
	log.LogAttrs(t.Context(), slog.LevelInfo, "denied", slog.Any("decision", access.Decision{Rule: "stores[0].access[1]", List: "paths"}))
	const want = "decision.allowed=false decision.rule=stores[0].access[1] decision.list=paths\n"
	if !strings.HasSuffix(line.String(), want) {
		t.Errorf("got %s want %s", line.String(), want)
	}
}

// A warm mount judges every secret: that must not cost memory.
func TestGrantsAllocateNothing(t *testing.T) {
	q := shopDB(t)
	q.Role = "arn:aws:iam::123456789012:role/shop/api"
	rules := compile(t, roled, append(ladder(), access.Rule{Namespaces: all, ServiceAccounts: all, Roles: []string{"**/{namespace}/*"}, Paths: []string{"secret/**"}})...)
	for name, judge := range map[string]func(access.Query) (access.Decision, error){"read": rules.Judge, "login": rules.JudgeLogin} {
		allocations := testing.AllocsPerRun(100, func() {
			if d, err := judge(q); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
		})
		if allocations != 0 {
			t.Errorf("%s: %v allocations", name, allocations)
		}
	}
}
