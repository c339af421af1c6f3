package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
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

// The way to a refused state folder is told with its place in keymount.yaml.
func TestServeRefusesAStateFolder(t *testing.T) {
	folder := filepath.Join(memory(t), "none", "state")
	var out bytes.Buffer
	want := "keymount: stateFolder: mkdir " + folder + ": no such file or directory; make the folder that it is to be in\n"
	if code := serveOnce(t, folder, &out); code != 1 || !strings.HasSuffix(out.String(), want) {
		t.Errorf("exit code %d\ngot  %swant %s", code, out.String(), want)
	}
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
