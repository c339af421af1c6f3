package main_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
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
