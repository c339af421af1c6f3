package state_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/state"
)

// memory is a folder on a tmpfs of the machine, which a state folder can be in.
func memory(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "keymount-test-") //nolint:usetesting // it has to be in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

// onDisk is a folder that is not in memory, wherever the tests run.
func onDisk(t *testing.T) string {
	t.Helper()
	const tmpfs = 0x01021994
	for _, candidate := range []string{t.TempDir(), "."} {
		var stat syscall.Statfs_t
		if err := syscall.Statfs(candidate, &stat); err != nil || stat.Type == tmpfs {
			continue
		}
		folder, err := os.MkdirTemp(candidate, "on-disk-") //nolint:usetesting // t.TempDir may be in memory
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(folder) })
		if folder, err = filepath.Abs(folder); err != nil {
			t.Fatal(err)
		}
		return folder
	}
	t.Fatal("this test needs a folder on a disk")
	return ""
}

// A state folder that others may enter, or that is on a disk, or that is another
// keymount's, is refused at the start, with the place and the cure.
func TestStateFolderIsRefused(t *testing.T) {
	for name, refused := range map[string]func(t *testing.T) (folder, want string){
		"no parent": func(t *testing.T) (string, string) {
			t.Helper()
			folder := filepath.Join(memory(t), "none", "state")
			return folder, "mkdir " + folder + ": no such file or directory; make the folder that it is to be in"
		},
		"a file": func(t *testing.T) (string, string) {
			t.Helper()
			file := filepath.Join(memory(t), "state")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return file, "open " + file + ": not a directory; move away what is there, or name another folder"
		},
		"group may enter": open(0o710),
		"others may look": open(0o704),
		"everybody's":     open(0o777),
		"somebody else's": foreign,
		"on a disk": func(t *testing.T) (string, string) {
			t.Helper()
			folder := onDisk(t)
			return folder, folder + " is not on a tmpfs: secrets would reach a disk; name a folder below /run, or mount a tmpfs there"
		},
		"to be made on a disk": func(t *testing.T) (string, string) {
			t.Helper()
			folder := filepath.Join(onDisk(t), "state")
			t.Cleanup(func() {
				if _, err := os.Lstat(folder); err == nil {
					t.Error("it is made all the same")
				}
			})
			return folder, folder + " is not on a tmpfs: secrets would reach a disk; name a folder below /run, or mount a tmpfs there"
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder, want := refused(t)
			kept, err := state.Open(folder, secret.New(make([]byte, 32)), "node-1", slog.New(slog.DiscardHandler))
			if kept != nil || err == nil || err.Error() != want {
				t.Errorf("got  %v, %v\nwant %s", kept, err, want)
			}
		})
	}
}

// open makes a folder that is not private.
func open(mode os.FileMode) func(t *testing.T) (folder, want string) {
	return func(t *testing.T) (string, string) {
		t.Helper()
		folder := memory(t)
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
		return folder, fmt.Sprintf("%[1]s has the mode %04[2]o, so that others than its owner may enter; chmod 0700 %[1]s", folder, mode)
	}
}

// foreign is a folder that belongs to somebody else; whoever is not root cannot make one.
func foreign(t *testing.T) (folder, want string) {
	t.Helper()
	folder, uid := "/dev/shm", 0
	if os.Geteuid() == 0 {
		if folder, uid = memory(t), 1; os.Chown(folder, uid, uid) != nil {
			t.Fatal("root may not give a folder away")
		}
	}
	return folder, fmt.Sprintf("%s belongs to uid %d and keymount runs as uid %d; remove it, and keymount makes one of its own", folder, uid, os.Geteuid())
}
