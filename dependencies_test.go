package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDependenciesHaveReasons holds go.mod and docs/dependencies.md together.
func TestDependenciesHaveReasons(t *testing.T) {
	goMod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	reasons, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := directRequirements(string(goMod))
	if len(direct) == 0 {
		t.Fatal("found no direct requirement in go.mod")
	}
	for _, module := range direct {
		if !strings.Contains(string(reasons), "| `"+module+"` |") {
			t.Errorf("%s has no row in docs/dependencies.md; write its reason, or do without it", module)
		}
	}
}

// TestToolsHaveReasons holds the folders of tools and docs/dependencies.md together.
func TestToolsHaveReasons(t *testing.T) {
	reasons, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := filepath.Glob("tools/*/go.mod")
	if err != nil || len(modules) == 0 {
		t.Fatalf("found %d tools: %v", len(modules), err)
	}
	var tools []string
	for _, module := range modules {
		tools = append(tools, filepath.ToSlash(filepath.Dir(module)))
	}
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(tools/[^`]+)` \\| [^|]").FindAllStringSubmatch(string(reasons), -1) {
		rows = append(rows, m[1])
	}
	slices.Sort(rows)
	if diff := cmp.Diff(tools, rows); diff != "" {
		t.Errorf("docs/dependencies.md does not have a row and a reason for each tool (-tools +rows):\n%s", diff)
	}
}

// directRequirements are the modules that go.mod requires without calling them
// indirect, be it in a block or on a line of their own.
func directRequirements(goMod string) []string {
	requirement := regexp.MustCompile(`^(?:require\s+|\t)([^\s()]+\.[^\s()]+/?[^\s()]*) v\S+$`)
	var direct []string
	for line := range strings.Lines(goMod) {
		if m := requirement.FindStringSubmatch(strings.TrimRight(line, "\r\n")); m != nil {
			direct = append(direct, m[1])
		}
	}
	return direct
}
