package manifest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/keymount/keymount/manifest"
)

// What Unread counts are the folders of the files that only a deep Read has.
func TestUnread(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"in/a.txt", "in/x/a.yaml", "in/x/b.json", "in/x/y/z/a.yml", "in/.git/a.yaml", "in/x/.git/a.yaml", "in/w/a.txt"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]int{"in": 2, "in/": 2, "./in": 2, "in/x": 1, "in/w": 0, "in/x/a.yaml": 0, "absent": 0} {
		if got := manifest.Unread(name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
		if files, err := manifest.Read([]string{name}, false, nil); want == 2 && !errors.Is(err, manifest.ErrNoFiles) {
			t.Errorf("%s: %d files, %v", name, len(files), err)
		}
	}
	flat, _ := manifest.Read([]string{"in/x"}, false, nil)
	deep, _ := manifest.Read([]string{"in/x"}, true, nil)
	if len(flat) != 2 || len(deep) != 3 {
		t.Errorf("%d files, and %d with those below", len(flat), len(deep))
	}
}
