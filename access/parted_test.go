package access_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/keymount/keymount/access"
)

// shared are patterns that two identities make the same text of, each with those and the
// text.
var shared = []struct{ pattern, one, other, text string }{
	{"{namespace}-{serviceAccount}", "b:c-d", "b-c:d", "b-c-d"},
	{"{namespace}{serviceAccount}", "a:bc", "ab:c", "abc"},
	{"{serviceAccount}-{namespace}", "d-c:b", "c-b:d", "b-d-c"},
	{"{serviceAccount}.{serviceAccount}x.*", "n:a", "n:a.ax", "a.ax.ax.a.axx.x"},
	{"{namespace}-*", "shop:a", "shop-prod:a", "shop-prod-db"},
	{"{namespace}*", "shop:a", "shop-prod:a", "shop-prod"},
	{"*{namespace}", "shop:a", "p:a", "shop"},
	{"*-{namespace}", "prod:a", "eu-prod:a", "shop-eu-prod"},
	{"{serviceAccount}.*", "n:a", "n:a.b", "a.b.c"},
	{"{namespace}.*.{serviceAccount}", "n:c", "n:b.c", "n.a.b.c"},
	{"*_{namespace}_*", "shop:a", "blog:a", "x_shop_blog_y"},
	{"*.{namespace}.{serviceAccount}", "a:b.c", "b:c", "x.a.b.c"},
	{"{namespace}-x-{serviceAccount}", "a:b-x-c", "a-x-b:c", "a-x-b-x-c"},
	{"**/{namespace}/**", "shop:a", "db:a", "secret/shop/db"},
	{"secret/**/{namespace}/**/db", "shop:a", "x:a", "secret/shop/x/db"},
	{"**/x_{serviceAccount}/**", "n:a", "n:b", "x_a/x_b"},
}

// What two identities share by one pattern is refused, in paths, writes and roles.
func TestSharedPatternsAreRefused(t *testing.T) {
	for _, test := range shared {
		for list, change := range map[string]func(*access.Rule){
			"paths":  func(r *access.Rule) { r.Paths = []string{test.pattern} },
			"writes": func(r *access.Rule) { r.Writes = []string{test.pattern} },
			"roles":  func(r *access.Rule) { r.Roles = []string{test.pattern} },
		} {
			rule := access.Rule{Namespaces: all, ServiceAccounts: all, Roles: all, Paths: []string{"**"}}
			change(&rule)
			_, err := access.Compile("access", []access.Rule{rule}, roled)
			if err == nil || !strings.HasPrefix(err.Error(), "access[0]."+list+"[0]: ") || !strings.Contains(err.Error(), "{") {
				t.Errorf("%s of %s: %v, want it refused: %s and %s share %q", test.pattern, list, err, test.one, test.other, test.text)
			}
		}
	}
}

// Which names are whose is told in one line.
func TestSharedTexts(t *testing.T) {
	const end = `, since names hold "-"; part {namespace} from `
	const cure = ` by a slash, or by a character that no name holds, such as "_"`
	for pattern, want := range map[string]string{
		"secret/{namespace}-{serviceAccount}/db": `"{namespace}-{serviceAccount}": one path fits it for pods of different names` + end + `{serviceAccount}` + cure,
		"secret/{namespace}-*":                   `"{namespace}-*": one path fits it for pods of different names` + end + `"*"` + cure,
		"*-{namespace}":                          `"*-{namespace}": one path fits it for pods of different names` + end + `"*"` + cure,
		"*_{namespace}_*":                        `"*_{namespace}_*": between two "*" {namespace} is any part of a path that has the name of the pod's; keep one "*"`,
		"**/{namespace}/**":                      `"**/{namespace}/**": between two "**" {namespace} is any segment of a path that has the name of the pod's; keep one "**"`,
		"{serviceAccount}.*":                     `"{serviceAccount}.*": one path fits it for pods of different names, since names hold "-" and "."; part {serviceAccount} from "*"` + cure,
	} {
		_, err := access.Compile("access", []access.Rule{{Namespaces: all, ServiceAccounts: all, Paths: []string{pattern}}}, plain)
		if got := errorText(err); got != "access[0].paths[0]: "+want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// In lists of names a pattern is held against a name of the pod's own, which is one.
func TestNamesMayHoldEachOther(t *testing.T) {
	rules := compile(t, plain, access.Rule{Namespaces: []string{"team-*"}, ServiceAccounts: []string{"{namespace}-*"}, Paths: []string{"**"}})
	q := shopDB(t)
	q.Namespace, q.ServiceAccount = "team-a", "team-a-api"
	if _, err := rules.Judge(q); err != nil {
		t.Error(err)
	}
}

// Whatever pattern is taken, pods of different names share nothing that it holds the
// names of: {namespace} and {serviceAccount} are looked at separately.
func TestPatternsPartPods(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same ones each time
	taken, refused := 0, 0
	for range 20_000 {
		pattern := somePattern(random)
		rule := access.Rule{Namespaces: all, ServiceAccounts: all, Paths: []string{pattern}}
		rules, err := access.Compile("access", []access.Rule{rule}, plain)
		if err != nil {
			refused++
			continue
		}
		taken++
		for range 6 {
			one, other := somePod(random), somePod(random)
			differ := one.Namespace != other.Namespace && strings.Contains(pattern, "{namespace}") ||
				one.ServiceAccount != other.ServiceAccount && strings.Contains(pattern, "{serviceAccount}")
			text := made(random, pattern, one)
			one.Path, other.Path = parse(t, text), parse(t, text)
			if _, err := rules.Judge(one); err != nil {
				t.Fatalf("%s: %q does not fit %s/%s, which it was made for", pattern, text, one.Namespace, one.ServiceAccount)
			}
			if _, err := rules.Judge(other); differ && err == nil {
				t.Fatalf("%s: %s/%s and %s/%s share %q", pattern, one.Namespace, one.ServiceAccount, other.Namespace, other.ServiceAccount, text)
			}
		}
	}
	if taken < 500 || refused < 500 {
		t.Errorf("%d patterns were taken and %d refused, want many of both", taken, refused)
	}
}

func pick[T any](random *rand.Rand, list ...T) T { return list[random.IntN(len(list))] }

// somePattern has few segments of few pieces, and at least one placeholder mostly.
func somePattern(random *rand.Rand) string {
	var segments []string
	for range 1 + random.IntN(4) {
		if random.IntN(4) == 0 {
			segments = append(segments, "**")
			continue
		}
		var segment string
		for range 1 + random.IntN(5) {
			segment += pick(random, "{namespace}", "{serviceAccount}", "*", "a", "-", ".", "_", "a.", "-a", "b_", ":", "A")
		}
		segments = append(segments, segment)
	}
	return strings.Join(segments, "/")
}

// somePod has names that are much alike.
func somePod(random *rand.Rand) access.Query {
	namespaces := []string{"a", "b", "aa", "a-a", "a-b", "b-a", "a--a", "aba", "a-a-a"}
	return access.Query{
		Namespace:      pick(random, namespaces...),
		ServiceAccount: pick(random, slices.Concat(namespaces, []string{"a.a", "a.b", "b.a-a", "a.a.a"})...),
	}
}

// made is a text that a pattern allows to a pod, with the wildcards' parts out of what
// names and separators are made of.
func made(random *rand.Rand, pattern string, pod access.Query) string {
	part := func() string {
		return pick(random, "", "a", "b", "-", "_", ".", "a-", "-a", "_a", "a_", "a.", ".a", "a_a", "-a-", "_b_", ".a.", "a-a", "_a-b_")
	}
	var segments []string
	for segment := range strings.SplitSeq(pattern, "/") {
		if segment == "**" {
			for range random.IntN(3) {
				segments = append(segments, pick(random, "a", "b", "a-a", "a_a", "a_"+part(), part()+"a"))
			}
			continue
		}
		text := segment
		for strings.Contains(text, "*") {
			text = strings.Replace(text, "*", part(), 1)
		}
		text = strings.NewReplacer("{namespace}", pod.Namespace, "{serviceAccount}", pod.ServiceAccount).Replace(text)
		if text == "" || text == "." || text == ".." {
			return made(random, pattern, pod) // no path has such a segment
		}
		segments = append(segments, text)
	}
	if len(segments) == 0 {
		return made(random, pattern, pod)
	}
	return strings.Join(segments, "/")
}
