package provider_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
)

func TestSocketModeAndEnd(t *testing.T) {
	w := start(t)
	info, err := os.Lstat(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(w.socket))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.Contains(entry.Name(), "sock") {
			t.Errorf("%s is left behind", entry.Name())
		}
	}
}

func TestSeveralSockets(t *testing.T) {
	var second string
	w := start(t, func(w *world, s *setup) {
		second = filepath.Join(filepath.Dir(w.socket), "second.sock")
		s.sockets = append(s.sockets, second)
	})
	w.memory.Set("shop/db", map[string]any{"password": canary})
	driver, err := providertest.Dial(second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = driver.Close() }()
	if _, err := driver.Mount(t.Context(), w.volume(pod("shop", "api"), oneKey), t.TempDir()); err != nil {
		t.Errorf("the second socket does not serve: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	w := start(t, func(w *world, _ *setup) {
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		if err := stale.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := w.driver.Version(t.Context()); err != nil {
		t.Errorf("nobody answers: %v", err)
	}
}

func TestSocketsThatCannotBeHad(t *testing.T) {
	w := start(t)
	folder := filepath.Dir(w.socket)
	file := filepath.Join(folder, "file.sock")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	free := filepath.Join(folder, "free.sock")
	missing := filepath.Join(folder, "none", "keymount.sock")
	for socket, want := range map[string]string{
		w.socket: "another process serves it; stop that one or list another socket",
		file:     "there is a file that is not a socket; move it away",
		missing:  "its folder: open " + filepath.Dir(missing) + ": no such file or directory; create it (the driver looks for sockets there) or list another socket",
	} {
		_, err := provider.Listen(t.Context(), []string{free, socket}, provider.New(provider.Options{}), slog.New(slog.DiscardHandler))
		if err == nil || err.Error() != "socket "+socket+": "+want {
			t.Errorf("got %v, want %s", err, want)
		}
		if _, err := os.Lstat(free); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the first socket is left behind: %v", err)
		}
	}
	if content, _ := os.ReadFile(file); string(content) != "precious" {
		t.Error("a file in the way was touched")
	}
	if _, err := w.driver.Version(t.Context()); err != nil {
		t.Errorf("the live provider was harmed: %v", err)
	}
}

// Whoever owns the path at our end keeps it.
func TestSocketOfSomebodyElseStays(t *testing.T) {
	w := start(t)
	if err := os.Remove(w.socket); err != nil {
		t.Fatal(err)
	}
	other, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(w.socket); err != nil {
		t.Errorf("the other process's socket is gone: %v", err)
	}
}

// A mount under way at SIGTERM is answered, whatever other sockets there are.
func TestStopLetsMountsFinish(t *testing.T) {
	w := start(t, func(w *world, s *setup) {
		folder := filepath.Dir(w.socket)
		s.sockets = []string{filepath.Join(folder, "vault.sock"), w.socket, filepath.Join(folder, "openbao.sock")}
	})
	w.memory.Set("shop/db", map[string]any{"password": canary})
	reading, release := make(chan struct{}), make(chan struct{})
	w.memory.Behave(func(context.Context, store.Caller, store.Ref) error {
		close(reading)
		<-release
		return nil
	})
	answered := make(chan error, 1)
	v := w.volume(pod("shop", "api"), oneKey)
	target := t.TempDir()
	go func() { _, err := w.driver.Mount(t.Context(), v, target); answered <- err }()
	<-reading
	stopped := make(chan error, 1)
	go func() { stopped <- w.stop() }()
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the mount under way got %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A connection that says nothing holds up no stop.
func TestStopBesideASilentConnection(t *testing.T) {
	w := start(t)
	silent, err := (&net.Dialer{}).DialContext(t.Context(), "unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if _, err := w.driver.Version(t.Context()); err != nil { // so that the other one is accepted
		t.Fatal(err)
	}
	began := time.Now()
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second { // rather than 5 s: the machine may be busy
		t.Errorf("the stop took %s", took)
	}
}

// Mounts that take longer than a stop can are answered, whether their stores heed that or not.
func TestStopIsBounded(t *testing.T) {
	const stopping = "keymount is stopping; the next try is answered when it has started again"
	w := start(t, func(_ *world, s *setup) { s.options.Deadline = time.Minute })
	reading, release := make(chan struct{}, 2), make(chan struct{})
	defer close(release)
	w.memory.Behave(func(ctx context.Context, caller store.Caller, _ store.Ref) error {
		reading <- struct{}{}
		if caller.Identity.Namespace == "blog" {
			<-ctx.Done()
			return store.Unavailable.Errorf("cut off: %s", context.Cause(ctx))
		}
		<-release
		return nil
	})
	answers := map[string]chan error{}
	for namespace, objects := range map[string]string{"shop": oneKey, "blog": strings.ReplaceAll(oneKey, "shop", "blog")} {
		answered := make(chan error, 1)
		answers[namespace] = answered
		v, target := w.volume(pod(namespace, "api"), objects), t.TempDir()
		go func() { _, err := w.driver.Mount(t.Context(), v, target); answered <- err }()
		<-reading
	}
	began := time.Now()
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	checkStatus(t, <-answers["shop"], codes.FailedPrecondition, `objects[0]: secret "shop/db" of store "default": `+stopping)
	checkStatus(t, <-answers["blog"], codes.FailedPrecondition, `objects[0]: secret "blog/db" of store "default": store unavailable: cut off: `+stopping)
	if took := time.Since(began); took > 10*time.Second { // rather than 5 s: the machine may be busy
		t.Errorf("the stop took %s", took)
	}
}
