package lint_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/store/all"
)

var update = flag.Bool("update", false, "rewrite the files under testdata")

func options(namespace string, config *manifest.File) lint.Options {
	return lint.Options{Namespace: namespace, Config: config, Kinds: all.All(), Warn: node.Warn}
}

// written has the findings as the command line does, without its colours and its wrapping.
func written(findings []lint.Finding) string {
	var text strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&text, "%s:%d:%d: %s: %s (%s)\n", filepath.Base(f.File), f.Line, f.Column, f.Severity, f.Text, f.Rule)
		if f.Add != "" {
			fmt.Fprintf(&text, "  to add to keymount.yaml:\n    %s\n", strings.ReplaceAll(strings.TrimSuffix(f.Add, "\n"), "\n", "\n    "))
		}
		if f.Fix != nil {
			fmt.Fprintf(&text, "  fix: columns %d to %d of line %d become %q\n", f.Fix.Column, f.Fix.End, f.Fix.Line, f.Fix.Text)
		}
	}
	return text.String()
}

// TestMistakes has a file for each mistake, and beside it what is found there. A first line
// "# -n NAMESPACE" is the flag.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.*")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, name := range files {
		if filepath.Ext(name) == ".txt" {
			continue
		}
		count++
		t.Run(filepath.Base(name), func(t *testing.T) { checkFile(t, name, nil) })
	}
	if count < 60 {
		t.Errorf("%d files, want 60 and more", count)
	}
}

// TestRules holds classes against one keymount.yaml.
func TestRules(t *testing.T) {
	config, err := manifest.Read([]string{"testdata/rules/keymount.conf"}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/rules/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { checkFile(t, name, config[0]) })
	}
}

func checkFile(t *testing.T, name string, config *manifest.File) {
	t.Helper()
	files, err := manifest.Read([]string{name}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(files[0].Text), "\n")
	namespace, _ := strings.CutPrefix(first, "# -n ")
	if namespace == first {
		namespace = ""
	}
	got := written(lint.Check(files, options(namespace, config)).Findings)
	golden := name + ".txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" || got == "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
