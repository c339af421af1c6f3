package lint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/lint"
)

// severities are those with which each rule is among the files of mistakes.
func severities(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	finding := regexp.MustCompile(`(?m)^\S+: (error|warning): .* \(([a-z-]+)\)$`)
	found := map[string][]string{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range finding.FindAllStringSubmatch(string(text), -1) {
			if severity := match[1]; !slices.Contains(found[match[2]], severity) {
				found[match[2]] = append(found[match[2]], severity)
			}
		}
	}
	return found
}

// TestRulesAreDocumented holds docs/lint.md against the rules, and the rules against the
// files of mistakes: each rule finds something there, and nothing is found without one.
func TestRulesAreDocumented(t *testing.T) {
	const file, begin, end = "../docs/lint.md", "<!-- rules -->\n", "<!-- /rules -->"
	found := severities(t)
	table := "| Rule | Severity | What it finds | Cure |\n|---|---|---|---|\n"
	for _, r := range lint.Rules() {
		if r.ID == lint.Bug {
			found[r.ID] = []string{string(lint.Error)} // TestABugCostsOneObject has one
		}
		if len(found[r.ID]) == 0 {
			t.Errorf("rule %s finds nothing in testdata", r.ID)
		}
		slices.Sort(found[r.ID])
		table += fmt.Sprintf("| `%s` | %s | %s | %s |\n", r.ID, strings.Join(found[r.ID], " or "), r.Meaning, strings.ReplaceAll(r.Cure, "|", `\|`))
		delete(found, r.ID)
	}
	for id := range found {
		t.Errorf("rule %s is not among Rules", id)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), begin)
	_, after, marked := strings.Cut(rest, end)
	want := before + begin + table + end + after
	if *update && marked {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil { //nolint:gosec // a file of this repository
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("run go test ./lint -update (-want +got)\n%s", diff)
	}
}
