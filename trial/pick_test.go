package trial_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/trial"
)

// TestPickMistakes has a file for each mistake, with its text beside it. Its first line may
// be "# as: NAMESPACE/SERVICEACCOUNT" or "# name: CLASS".
func TestPickMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/pick/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			check(t, err)
			var name string
			var as trial.Account
			first, _, _ := strings.Cut(string(data), "\n")
			if text, ok := strings.CutPrefix(first, "# as: "); ok {
				as, err = trial.ParseAccount(text)
			} else if text, ok := strings.CutPrefix(first, "# name: "); ok {
				name = text
			}
			if err == nil {
				_, err = trial.Pick([]*manifest.File{manifest.Parse("class.yaml", data)}, trial.Choice{Class: name, As: as})
			}
			if err == nil {
				t.Fatal("no mistake")
			}
			want := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				check(t, os.WriteFile(want, []byte(err.Error()+"\n"), 0o600)) //nolint:gosec // a file of testdata
			}
			text, readErr := os.ReadFile(want)
			check(t, readErr)
			if diff := cmp.Diff(string(text), err.Error()+"\n"); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}
