package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keymount/keymount/cli"
)

// memory is a folder on a tmpfs of the machine, which a stateFolder can be in.
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
			var out bytes.Buffer
			if got := serveOnce(t, folder, &out); got != 1 || !strings.HasSuffix(out.String(), "keymount: stateFolder: "+want+"\n") {
				t.Errorf("exit code %d\ngot  %swant %s", got, out.String(), want)
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

// withState writes a keymount.yaml with a state folder.
func withState(t *testing.T, folder string) (file string) {
	t.Helper()
	place, err := os.MkdirTemp("", "km") //nolint:usetesting // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(place) })
	fill(t, place, "versionKeyFile: version.key\nstateFolder: "+folder)
	if err := os.WriteFile(filepath.Join(place, "version.key"), bytes.Repeat([]byte("k"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(place, "keymount.yaml")
}

func serveOnce(t *testing.T, folder string, log io.Writer) (code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // should it serve after all
	defer cancel()
	return cli.Run(ctx, []string{"serve", "--config", withState(t, folder)}, strings.NewReader(""), io.Discard, log)
}

// The folder is made when it is not there, for keymount alone, and is one keymount's at
// a time.
func TestStateFolderIsOneKeymounts(t *testing.T) {
	folder := filepath.Join(memory(t), "state")
	ctx, cancel := context.WithCancel(t.Context())
	logs, log := io.Pipe()
	exited := make(chan int, 1)
	go func() {
		exited <- cli.Run(ctx, []string{"serve", "--config", withState(t, folder)}, strings.NewReader(""), io.Discard, log)
		_ = log.Close()
	}()
	lines := bufio.NewScanner(logs)
	waitFor(t, lines, "serving")
	if info, err := os.Stat(folder); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("the folder has the mode %v, %v", info.Mode(), err)
	}
	var out bytes.Buffer
	want := "keymount: stateFolder: " + folder + " is that of another keymount, which runs; stop that one or name another folder\n"
	if code := serveOnce(t, folder, &out); code != 1 || !strings.HasSuffix(out.String(), want) {
		t.Errorf("exit code %d\ngot  %swant %s", code, out.String(), want)
	}
	cancel()
	waitFor(t, lines, "stopped")
	if code := <-exited; code != 0 {
		t.Errorf("exit code %d", code)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 0)
	defer cancel()
	if code := cli.Run(ctx, []string{"serve", "--config", withState(t, folder)}, strings.NewReader(""), io.Discard, &out); code != 0 {
		t.Errorf("after the first has ended: exit code %d\n%s", code, out.String())
	}
}
