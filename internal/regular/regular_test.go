package regular_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keymount/keymount/internal/regular"
)

// Whatever has the name of a file, reading it ends, and says what is wrong.
func TestRead(t *testing.T) {
	const most = 2 << 10
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	for name, size := range map[string]int{"empty": 0, "full": most, "large": most + 1} {
		if err := os.WriteFile(at(name), []byte(strings.Repeat("x", size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("full", at("link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path string
		size int
		want string // the error
	}{
		"empty":    {at("empty"), 0, ""},
		"full":     {at("full"), most, ""},
		"a link":   {at("link"), most, ""},
		"large":    {at("large"), 0, "read " + at("large") + ": is larger than 2 KiB"},
		"a pipe":   {at("pipe"), 0, "read " + at("pipe") + ": is not a regular file"},
		"a folder": {folder, 0, "read " + folder + ": is not a regular file"},
		"a device": {"/dev/zero", 0, "read /dev/zero: is not a regular file"},
		"none":     {at("none"), 0, "open " + at("none") + ": no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := regular.Read(test.path, most)
			if test.want == "" {
				if err != nil || len(data) != test.size {
					t.Errorf("%d bytes, %v", len(data), err)
				}
				return
			}
			if err == nil || err.Error() != test.want {
				t.Fatalf("got %v, want %s", err, test.want)
			}
			if _, isWrong := errors.AsType[regular.WrongFile](err); isWrong != (name != "none") {
				t.Errorf("it is a wrong file: %t", isWrong)
			}
		})
	}
}
