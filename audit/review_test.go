package audit_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/store"
)

// mountOf is a mount of a pod of a service account.
func mountOf(namespace, account string, secrets ...audit.Secret) audit.Record {
	return audit.Record{
		Kind: audit.KindMount, Class: "class", Outcome: audit.Granted, Secrets: secrets,
		Pod: &audit.Pod{Name: account + "-1", Namespace: namespace, UID: namespace + account}, ServiceAccount: &audit.ServiceAccount{Name: account},
	}
}

// usesOf writes records into a trail, and reads them back.
func usesOf(t *testing.T, records ...audit.Record) []audit.Use {
	t.Helper()
	uses := audit.NewUses()
	walk(t, func(e audit.Entry) { uses.Add(e) }, source("f1", text(written(t, records...))))
	return uses.All()
}

func written(t *testing.T, records ...audit.Record) [][]byte {
	t.Helper()
	chain, begin, err := audit.NewChain(audit.Start{Node: "worker-1", Now: clock()})
	if err != nil {
		t.Fatal(err)
	}
	all := [][]byte{begin}
	for _, r := range records {
		lines, _, err := chain.Append(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, lines...)
	}
	return all
}

func walk(t *testing.T, each func(audit.Entry), files ...audit.Source) {
	t.Helper()
	skipped, err := audit.Form{}.Walk(t.Context(), files, func(e audit.Entry) error { each(e); return nil })
	if err != nil || skipped > 0 {
		t.Fatalf("%d skipped: %v", skipped, err)
	}
}

// Over random trails the proposed rules allow each access that was allowed and refuse others,
// and to replay the trail against them changes nothing.
func TestProposedRulesAreExact(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // G404: a failure has to come again
		world := world{random, []access.Need{access.None, access.Optional, access.Required}[seed%3]}
		records, allowed := world.trail(200)
		uses := usesOf(t, records...)
		stores := map[string]audit.Store{"prod": {Kind: access.Kind{Roles: world.roles, Writes: true}}}
		proposals := audit.Propose(uses, stores)
		if len(proposals) != 1 || len(proposals[0].Unsaid) > 0 || proposals[0].Accesses != len(allowed) {
			t.Fatalf("seed %d: %+v, want %d accesses", seed, proposals, len(allowed))
		}
		rules := make([]access.Rule, len(proposals[0].Rules))
		for i, rule := range proposals[0].Rules {
			rules[i] = access.Rule(rule)
		}
		compiled, err := access.Compile("proposed", rules, stores["prod"].Kind)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for a := range allowed {
			if _, err := compiled.Judge(world.query(t, a)); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		for others := 0; others < 50; {
			if a := world.access(); !allowed[a] {
				others++
				if d, err := compiled.Judge(world.query(t, a)); err == nil {
					t.Errorf("seed %d: %s allows %+v, which is not in the trail", seed, d.Rule, a)
				}
			}
		}
		stores["prod"] = audit.Store{Rules: compiled}
		if r := audit.Replay(uses, stores); len(r.Changes) > 0 || len(r.Untold) > 0 || r.Same != len(uses) {
			t.Errorf("seed %d: replay changes %+v", seed, r)
		}
		if len(rules) > len(allowed) {
			t.Errorf("seed %d: %d rules for %d accesses", seed, len(rules), len(allowed))
		}
	}
}

// world has few names, so that lists can be put together in many ways.
type world struct {
	*rand.Rand

	roles access.Need
}

func (w world) of(texts ...string) string { return texts[w.IntN(len(texts))] }

func (w world) access() audit.Access {
	a := audit.Access{
		Store: "prod", Namespace: w.of("shop", "billing", "test"), ServiceAccount: w.of("api", "job", "a.b"), Write: w.IntN(4) == 0,
		Path: w.of("secret/a", "secret/b", "secret/metadata/x", "pki/issue/shop", "a", "é/ü", "a/b/c/d/e/f", "secret/"+w.of("1", "2", "3")),
	}
	switch w.roles {
	case access.None:
	case access.Optional:
		a.Role = w.of("", "r", "arn:aws:iam::1:role/x")
	case access.Required:
		a.Role = w.of("r", "s", "t u")
	}
	if strings.Contains(a.Path, "metadata") {
		a.Literal = "metadata"
	}
	return a
}

// trail allows half of all accesses, in any shape, and each always or never.
func (w world) trail(n int) (records []audit.Record, allowed map[audit.Access]bool) {
	allowed = map[audit.Access]bool{}
	salt := w.IntN(1000)
	for range n {
		a := w.access()
		s := audit.Secret{Store: a.Store, Role: a.Role, Path: a.Path, Write: a.Write, Literal: a.Literal, Scope: audit.ScopePath}
		sum := salt
		for _, c := range fmt.Sprint(a) {
			sum = sum*31 + int(c)
		}
		if sum%2 == 0 {
			s.Outcome, s.List = audit.Denied, "paths"
		} else {
			s.Outcome = audit.Outcome(w.of("granted", "not_found", "error"))
			allowed[a] = true
		}
		records = append(records, mountOf(a.Namespace, a.ServiceAccount, s))
	}
	return records, allowed
}

func (w world) query(t *testing.T, a audit.Access) access.Query {
	t.Helper()
	path, err := store.ParsePath(a.Path)
	if err != nil {
		t.Fatal(err)
	}
	return access.Query{Store: a.Store, Namespace: a.Namespace, ServiceAccount: a.ServiceAccount, Role: a.Role, Path: path, Write: a.Write, Literal: a.Literal}
}

// Rules are put together only where no combination of their lists is new.
func TestPropose(t *testing.T) {
	read := func(role, path string) audit.Secret {
		return audit.Secret{Store: "prod", Role: role, Path: path, Outcome: audit.Granted, Scope: audit.ScopePath}
	}
	with := func(s audit.Secret, change func(*audit.Secret)) audit.Secret { change(&s); return s }
	uses := usesOf(
		t,
		mountOf("shop", "api", read("r", "a"), read("r", "b")), mountOf("shop", "job", read("r", "b"), read("r", "a")),
		mountOf("test", "api", read("r", "a")), mountOf("test", "job", read("s", "b")),
		mountOf("docs", "api", with(read("r", "w"), func(s *audit.Secret) { s.Write = true })),
		mountOf("odd", "api", read("r", "a*b"), read("r", "{x}"), read("", "a"), read("r", "/a")),
		mountOf("none", "api", with(read("r", "a"), func(s *audit.Secret) { s.Scope = audit.ScopeLogin }), with(read("r", "a"), func(s *audit.Secret) { s.Outcome = "" }),
			with(read("r", "a"), func(s *audit.Secret) { s.Scope = "" })),
		mountOf("none", "api", with(read("r", "a"), func(s *audit.Secret) { s.Outcome = audit.Denied })),
		mountOf("late", "api", with(read("r", "a"), func(s *audit.Secret) { s.Outcome, s.Reason = audit.Denied, "denied by the store" })),
	)
	got := audit.Propose(uses, map[string]audit.Store{"prod": {Kind: access.Kind{Roles: access.Required, Writes: true}}})[0]
	list := func(texts ...string) []string { return texts }
	if diff := cmp.Diff([]audit.Rule{
		{Namespaces: list("docs"), ServiceAccounts: list("api"), Roles: list("r"), Paths: list(audit.NoReads), Writes: list("w")},
		{Namespaces: list("late", "test"), ServiceAccounts: list("api"), Roles: list("r"), Paths: list("a")},
		{Namespaces: list("shop"), ServiceAccounts: list("api", "job"), Roles: list("r"), Paths: list("a", "b")},
		{Namespaces: list("test"), ServiceAccounts: list("job"), Roles: list("s"), Paths: list("b")},
	}, got.Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if len(got.Unsaid) != 4 || len(got.Undelivered) != 1 || got.Undelivered[0].Namespace != "late" {
		t.Errorf("unsaid %+v, undelivered %+v", got.Unsaid, got.Undelivered)
	}
}

// What a past refusal at login leaves unknown cannot be told, unless the login is refused still.
func TestReplayOfLogins(t *testing.T) {
	s := audit.Secret{Store: "prod", Role: "r", Path: "secret/data/%61", Outcome: audit.Denied, Scope: audit.ScopeLogin}
	uses := usesOf(t, mountOf("shop", "api", s))
	for namespace, want := range map[string][2]int{"shop": {0, 1}, "test": {1, 0}} {
		rules, err := access.Compile("access", []access.Rule{{Namespaces: []string{namespace}, ServiceAccounts: []string{"*"}, Roles: []string{"r"}, Paths: []string{"x"}}}, access.Kind{Roles: access.Required})
		if err != nil {
			t.Fatal(err)
		}
		r := audit.Replay(uses, map[string]audit.Store{"prod": {Rules: rules}})
		if got := [2]int{r.Same, len(r.Untold)}; got != want || len(r.Changes) > 0 {
			t.Errorf("%s: %+v", namespace, r)
		}
	}
}

// Records come once and in their order, whatever the order of the files, however their clocks
// go, and however often a file is there.
func TestWalk(t *testing.T) {
	one, other := whole(t, "worker-1", nil), whole(t, "worker-2", nil) // with clocks that step back
	l := one.lines
	files := []audit.Source{source("c", text(l[7:])), source("b.gz", compressed(t, text(l[3:7]))), source("a", text(l[:4])), source("other", text(other.lines)), source("again", text(l))}
	third := story(whole(t, "worker-3", nil).lines)
	files = append(files, source("parts", text(append(third[:1:1], third[3:]...))), source("of it", text(third[1:3])))
	last := map[string]int64{}
	walk(t, func(e audit.Entry) {
		if e.Seq != last[e.Boot] || !bytes.Contains(e.Text, []byte(e.Boot)) || e.Line == 0 || e.File == "" {
			t.Errorf("record %d of %s, want %d: %s:%d", e.Seq, e.Boot, last[e.Boot], e.File, e.Line)
		}
		last[e.Boot]++
	}, files...)
	if want := map[string]int64{one.boot: 10, other.boot: 10, read(t, third[0]).Boot: 10}; !maps.Equal(want, last) {
		t.Errorf("read %v, want %v", last, want)
	}
	noise := source("noise", append([]byte("{\"msg\":1}\n"), text(l)...))
	if skipped, err := (audit.Form{}).Walk(t.Context(), []audit.Source{noise}, func(audit.Entry) error { return nil }); skipped != 1 || err != nil {
		t.Errorf("%d skipped: %v", skipped, err)
	}
	enough := fmt.Errorf("enough")
	if _, err := (audit.Form{}).Walk(t.Context(), files, func(audit.Entry) error { return enough }); err != enough { //nolint:errorlint // it comes back as it is
		t.Errorf("the error of each is %v", err)
	}
}

// Records of several nodes are shown by time.
func TestWalkByTime(t *testing.T) {
	var files []audit.Source
	for n := range 3 {
		now := time.Unix(1_790_000_000, int64(n))
		chain, line, err := audit.NewChain(audit.Start{Node: fmt.Sprint("n", n), Now: func() time.Time { now = now.Add(time.Second); return now }})
		if err != nil {
			t.Fatal(err)
		}
		lines := [][]byte{line}
		for range 5 {
			more, _, err := chain.Append(audit.Record{Kind: audit.KindStale})
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, more...)
		}
		files = append(files, source(fmt.Sprint(n), text(lines[:3])), source(fmt.Sprint(n, "b"), text(lines[3:])))
	}
	var times []string
	walk(t, func(e audit.Entry) { times = append(times, e.At) }, files...)
	if len(times) != 18 || !slices.IsSorted(times) {
		t.Errorf("times are %q", times)
	}
}

// Counts belong to what the last mount of a volume has delivered, in all its parts; what was
// withdrawn has not reached the pod.
func TestReaders(t *testing.T) {
	granted := func(path string) audit.Secret {
		return audit.Secret{Store: "prod", Path: path, Outcome: audit.Granted, Scope: audit.ScopePath, Rule: "rule", Files: []string{path}}
	}
	count := func(n int64) audit.Record {
		return audit.Record{Kind: audit.KindCount, Counts: []audit.Count{{Class: "class", Count: n, First: "3", Last: "4", Pod: audit.Pod{UID: "shopapi"}}}}
	}
	var many []audit.Secret
	for i := range 100 {
		many = append(many, granted(fmt.Sprintf("many/%d/%s", i, strings.Repeat("x", 500))))
	}
	failed := mountOf("shop", "api", granted("a"))
	failed.Outcome = audit.Failed
	lines := written(t,
		mountOf("shop", "api", granted("a"), granted("b")), count(5), // 1, 2
		mountOf("shop", "api", granted("b")), count(7), // 3, 4
		failed, count(1), // 5, 6
		mountOf("shop", "job", granted("a")), audit.Record{Kind: audit.KindWithdrawn, Withdrawn: &audit.Withdrawn{Seq: 7}}, // 7, 8
		mountOf("shop", "api", append(many, granted("z"))...), count(100),
	)
	times := func(path string) map[string][2]int64 {
		pattern, err := audit.ParsePattern(path)
		if err != nil {
			t.Fatal(err)
		}
		readers := audit.NewReaders(pattern)
		walk(t, func(e audit.Entry) { readers.Add(e) }, source("f1", text(lines)))
		got := map[string][2]int64{}
		for _, r := range readers.Readers() {
			got[r.ServiceAccount+" "+r.Path] = [2]int64{r.Times, r.Undelivered}
		}
		return got
	}
	want := map[string][2]int64{"api a": {7, 1}, "api b": {15, 0}, "job a": {1, 1}, "api z": {101, 0}}
	if got := times("*"); !maps.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
	if got := times("many/0/*"); len(got) != 1 || got["api "+many[0].Path] != [2]int64{101, 0} {
		t.Errorf("read %v", got)
	}
}
