package socket_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/keymount/keymount/internal/socket"
)

func TestModeAndEnd(t *testing.T) {
	path := filepath.Join(shortDir(t), "a.sock")
	s := listen(t, path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	dial(t, path)
	for range 2 { // the second time nothing is left to do
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What a process leaves that was killed: its socket, and one that was being born.
func TestStaleSocketsAreReplaced(t *testing.T) {
	path := filepath.Join(shortDir(t), "a.sock")
	for _, name := range []string{path, path + ".new"} {
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		if err := stale.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := listen(t, path)
	defer func() { _ = s.Close() }()
	dial(t, path)
}

func TestTakenPaths(t *testing.T) {
	folder := shortDir(t)
	served, file := filepath.Join(folder, "served.sock"), filepath.Join(folder, "file.sock")
	s := listen(t, served)
	defer func() { _ = s.Close() }()
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		served: "another process serves it; stop that one or list another socket",
		file:   "there is a file that is not a socket; move it away",
		filepath.Join(folder, "none", "a.sock"): "its folder: open " + folder + "/none: no such file or directory; " +
			"create it (the driver looks for sockets there) or list another socket",
	} {
		if _, err := socket.Listen(t.Context(), path); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	dial(t, served)
	if content, err := os.ReadFile(file); string(content) != "precious" {
		t.Errorf("the file in the way has %q, %v", content, err)
	}
}

// Of processes that start at a time one has the socket, and it is whole.
func TestStartingAtOnce(t *testing.T) {
	path := filepath.Join(shortDir(t), "a.sock")
	opened := make(chan *socket.Socket, 8)
	var all sync.WaitGroup
	for range cap(opened) {
		all.Go(func() {
			if s, err := socket.Listen(t.Context(), path); err == nil {
				opened <- s
			}
		})
	}
	all.Wait()
	if len(opened) != 1 {
		t.Fatalf("%d have the socket", len(opened))
	}
	dial(t, path)
	if err := (<-opened).Close(); err != nil {
		t.Error(err)
	}
}

// A path that another process has by then is left to it.
func TestCloseTakesNoOther(t *testing.T) {
	path := filepath.Join(shortDir(t), "a.sock")
	first := listen(t, path)
	if err := first.Listener().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("closing the listener took the file: %v", err)
	}
	second := listen(t, path)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	dial(t, path)
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second is left behind: %v", err)
	}
}

func listen(t *testing.T, path string) *socket.Socket {
	t.Helper()
	s, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func dial(t *testing.T, path string) {
	t.Helper()
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Error(err)
		return
	}
	if err := connection.Close(); err != nil {
		t.Error(err)
	}
}

// shortDir is a temporary folder whose sockets fit into a socket's address, which
// t.TempDir with its long names does not promise.
func shortDir(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "km") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}
