package lint_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
)

// fixedText makes the edits of a text until there are none.
func fixedText(t *testing.T, name string, text []byte) []byte {
	t.Helper()
	const most = 10
	for range most {
		f := manifest.Parse(name, text)
		next, fixed := lint.Fix(f, lint.Check([]*manifest.File{f}, options("", nil)).Findings)
		if len(fixed) == 0 {
			if string(next) != string(text) {
				t.Errorf("%s: without an edit it becomes %q", name, next)
			}
			return text
		}
		text = next
	}
	t.Errorf("%s: there are edits for ever:\n%s", name, text)
	return text
}

// TestFix has files before and after. What is not corrected stays to the byte.
func TestFix(t *testing.T) {
	files, err := filepath.Glob("testdata/fix/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			before, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := fixedText(t, name, before)
			golden := name + ".after"
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil { //nolint:gosec // a file of this repository
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestFixMakesNothingWorse corrects all files with mistakes: each edit takes a finding
// away, and brings none.
func TestFixMakesNothingWorse(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f := manifest.Parse(name, text)
		before := lint.Check([]*manifest.File{f}, options("", nil)).Findings
		_, fixed := lint.Fix(f, before)
		after := manifest.Parse(name, fixedText(t, name, text))
		left := lint.Check([]*manifest.File{after}, options("", nil)).Findings
		for _, found := range left {
			same := func(f lint.Finding) bool { return f.Rule == found.Rule && f.Text == found.Text }
			if !slices.ContainsFunc(before, same) {
				t.Errorf("%s: it is new:\n%s", name, written([]lint.Finding{found}))
			}
		}
		if len(left) > len(before)-len(fixed) {
			t.Errorf("%s: %d findings, %d fixed, %d left:\n%s", name, len(before), len(fixed), len(left), written(left))
		}
	}
}
