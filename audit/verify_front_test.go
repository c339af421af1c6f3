package audit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/audit"
)

// saying are the texts of problems or notes, one a line.
func saying(problems []audit.Problem) string {
	var all []string
	for _, p := range problems {
		all = append(all, fmt.Sprintf("%s: %s", p.Place(), p.Text))
	}
	return strings.Join(all, "\n")
}

// checked is what verify says about files that are named f1, f2 and so on.
func checked(t *testing.T, c audit.Check, files ...story) *audit.Report {
	t.Helper()
	var all []audit.Source
	for i, lines := range files {
		all = append(all, source(fmt.Sprintf("f%d", i+1), text(lines)))
	}
	report, err := c.Verify(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// startedAt is a trail like whole, of a process with that time in its name.
func startedAt(t *testing.T, at time.Time, before *audit.Predecessor) *process {
	t.Helper()
	chain, begin, err := audit.NewChain(audit.Start{Node: "worker-1", Predecessor: before, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{boot: chain.Boot(), lines: [][]byte{begin}}
	for range 2 {
		p.mounts(t, chain, 3)
		p.checkpoint(t, chain)
	}
	end, last, err := chain.End()
	if err != nil {
		t.Fatal(err)
	}
	p.lines, p.last = append(p.lines, end), last
	return p
}

// A trail without its oldest files begins behind a checkpoint. That is no problem where enough
// is left to verify, and one where it can be told that no rotation has left it so.
func TestVerifyWithoutTheOldestFiles(t *testing.T) {
	p := whole(t, "worker-1", nil)
	l := story(p.lines)
	next, node2 := whole(t, "worker-1", &p.last), whole(t, "worker-2", nil)
	early := startedAt(t, time.Unix(1_700_000_000, 0), nil)
	late := startedAt(t, time.Unix(1_700_000_100, 0), &early.last)
	chain, much := aProcess(t, "worker-1", nil, 1, nil)
	much.mounts(t, chain, 257)
	much.checkpoint(t, chain)
	much.checkpoint(t, chain)
	var secrets []audit.Secret
	for i := range 40 {
		secrets = append(secrets, audit.Secret{Path: fmt.Sprint(i, strings.Repeat("x", 1000))})
	}
	parts, _, err := chain.Append(audit.Record{Kind: audit.KindMount, Secrets: secrets})
	if err != nil || len(parts) < 2 {
		t.Fatalf("%d parts: %v", len(parts), err)
	}
	tooMuch, event := story(much.lines[5:]), len(much.lines)
	much.lines = append(much.lines, parts...)
	much.checkpoint(t, chain)
	much.mounts(t, chain, 1)
	much.checkpoint(t, chain)
	for name, test := range map[string]struct {
		files   files
		problem string // empty for a note
	}{
		"one file":                     {files{l[5:]}, ""},
		"two files":                    {files{l[9:], l[5:9]}, ""},
		"an end, and the next process": {files{join(l[9:], next.lines)}, ""},
		"of two nodes":                 {files{l[5:], node2.lines}, ""},
		"a younger trail there":        {files{early.lines[5:], late.lines}, ""},
		"an older trail there":         {files{early.lines, late.lines[5:]}, "the older trail of " + early.boot + " is there"},
		"a lone checkpoint":            {files{l[5:9]}, "no other checkpoint follows"},
		"no checkpoint":                {files{l[5:8]}, "no other checkpoint follows"},
		"in the middle of a file":      {files{join(node2.lines, l[5:])}, "it is not where a file begins"},
		"behind the begin":             {files{l[1:]}, "there was no checkpoint before it"},
		"before the first checkpoint":  {files{l[3:]}, "there was no checkpoint before it"},
		"at a checkpoint":              {files{l[8:]}, "no checkpoint follows another one at once"},
		"too many records":             {files{tooMuch}, "there are 257 records before the first checkpoint"},
		"within an event":              {files{much.lines[event+1:]}, "the record before is of the same event"},
		"at an event":                  {files{much.lines[event:]}, ""},
	} {
		report := checked(t, audit.Check{}, test.files...)
		strictly := checked(t, audit.Check{Strict: true}, test.files...)
		switch notes, problems := saying(report.Notes), saying(report.Problems); {
		case !strings.Contains(saying(strictly.Problems), "the trail begins with record"):
			t.Errorf("%s: strictly it is no problem: %+v", name, strictly)
		case test.problem == "" && (problems != "" || !strings.Contains(notes, "not among these files") || !strings.Contains(notes, "verified from record")):
			t.Errorf("%s: problems %q, notes %q, want a note", name, problems, notes)
		case test.problem != "" && !strings.Contains(problems, "with the key of the first checkpoint; "+test.problem):
			t.Errorf("%s: problems %q, want %q", name, problems, test.problem)
		}
	}
}

// What is left is verified: behind the first checkpoint by the keys, and before it by the chain.
func TestVerifyBehindTheOldestFiles(t *testing.T) {
	l := story(whole(t, "worker-1", nil).lines)
	for name, test := range map[string]struct {
		left story
		want string
	}{
		"a record changed":             {l.changed(6, "prod", "test")[5:], "was changed: record 7"},
		"another key":                  {append(slices.Clone(l[5:9]), audit.SignAnew(t, l[9])), "was signed with another key"},
		"the first checkpoint changed": {l.changed(8, `"number":2`, `"number":7`)[5:], "checkpoint 3 follows checkpoint 7"},
		"a record removed":             {l.without(6, 7)[5:], "record 6 is removed"},
	} {
		if got := saying(checked(t, audit.Check{}, test.left).Problems); !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// What keymount's own rotation leaves has no problem, whichever file is the oldest.
func TestVerifyRotation(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	now := time.Unix(1_790_000_000, 0)
	file := openFile(t, name, func(o *audit.FileOptions) {
		o.MaxSize, o.Keep, o.Now = 1, 2, func() time.Time { now = now.Add(time.Second); return now }
	})
	chain, p := aProcess(t, "worker-1", nil, 0, nil)
	for range 6 {
		written := len(p.lines)
		if written == 1 {
			written = 0
		}
		p.mounts(t, chain, 3)
		p.checkpoint(t, chain)
		if _, err := file.Write(text(p.lines[written:])); err != nil {
			t.Fatal(err)
		}
		if err := file.Checkpoint(p.last); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(name), "audit*.jsonl"))
	if err != nil || len(names) != 2 {
		t.Fatalf("there are %q: %v", names, err)
	}
	var left []audit.Source
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, source(filepath.Base(name), data))
	}
	report, err := new(audit.Check).Verify(t.Context(), left)
	if err != nil || len(report.Problems) > 0 || len(report.Notes) != 1 || report.Trails[0].Begin != audit.Absent {
		t.Errorf("%v: %+v", err, report)
	}
}
