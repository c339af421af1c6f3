package watchfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/keymount/keymount/internal/watchfile"
)

// later is a time by which all files of a test have settled.
func later() time.Time { return time.Now().Add(time.Hour) }

func write(t *testing.T, file, text string, at time.Time) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func try(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestChanges(t *testing.T) {
	began := time.Now().Add(-time.Minute)
	tests := map[string]struct {
		change    func(t *testing.T, file, other string) // other has the same size and time
		unchanged bool
	}{
		"nothing": {func(*testing.T, string, string) {}, true},
		"a file beside it": {func(t *testing.T, _, other string) {
			t.Helper()
			write(t, other, "ccc", began)
		}, true},
		"another size": {func(t *testing.T, file, _ string) {
			t.Helper()
			write(t, file, "aaaa", began)
		}, false},
		"another time": {func(t *testing.T, file, _ string) {
			t.Helper()
			write(t, file, "aaa", began.Add(time.Second))
		}, false},
		"written in place, size and time as before": {func(t *testing.T, file, _ string) {
			t.Helper()
			write(t, file, "bbb", began)
		}, runtime.GOOS != "linux"}, // which alone tells when a file's times were set
		"replaced": {func(t *testing.T, file, other string) {
			t.Helper()
			try(t, os.Rename(other, file))
		}, false},
		"a swapped link": {func(t *testing.T, file, other string) {
			t.Helper()
			try(t, os.Remove(file), os.Symlink(other, file))
		}, false},
		"removed": {func(t *testing.T, file, _ string) {
			t.Helper()
			try(t, os.Remove(file))
		}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			file, other := filepath.Join(folder, "file"), filepath.Join(folder, "other")
			write(t, file, "aaa", began)
			write(t, other, "bbb", began)
			stamp, err := watchfile.Look(file, later())
			if err != nil {
				t.Fatal(err)
			}
			awaitTick(t, folder)
			test.change(t, file, other)
			if got := stamp.Unchanged(); got != test.unchanged {
				t.Errorf("unchanged is %v, want %v", got, test.unchanged)
			}
		})
	}
}

// awaitTick writes a file beside those of the test until the file system's clock goes on.
func awaitTick(t *testing.T, folder string) {
	t.Helper()
	probe := func() time.Time {
		file := filepath.Join(folder, "probe")
		try(t, t.Context().Err(), os.WriteFile(file, []byte("x"), 0o600))
		info, err := os.Stat(file)
		try(t, err)
		return info.ModTime()
	}
	for first := probe(); !probe().After(first); {
		continue
	}
}

// A change that is too recent is not believed to be the last one.
func TestYoung(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "aaa", time.Now())
	for name, test := range map[string]struct {
		now       time.Time
		unchanged bool
	}{
		"at once":                {time.Now(), false},
		"a clock that goes back": {time.Now().Add(-time.Hour), false},
		"when it has settled":    {later(), true},
	} {
		stamp, err := watchfile.Look(file, test.now)
		if got := stamp.Unchanged(); err != nil || got != test.unchanged {
			t.Errorf("%s: unchanged is %v, %v", name, got, err)
		}
	}
}

func TestNoFile(t *testing.T) {
	stamp, err := watchfile.Look(filepath.Join(t.TempDir(), "none"), later())
	if !errors.Is(err, fs.ErrNotExist) || stamp.Unchanged() || (watchfile.Stamp{}).Unchanged() {
		t.Errorf("%v, and a stamp of no file is unchanged", err)
	}
}
