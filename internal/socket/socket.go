// Package socket listens on unix sockets that other processes look for by name.
//
// A socket is born under another name and has its mode before anything can dial it. It
// replaces a stale socket without a gap, but never one in use, and at its end removes only
// its own file.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// bornSuffix marks the temporary name of a new socket; no client dials it.
	bornSuffix = ".new"
	mode       = 0o600
	dialLimit  = 2 * time.Second
)

// Socket is a listening unix socket, and its file at birth.
type Socket struct {
	path     string
	listener *net.UnixListener
	born     fs.FileInfo
}

// Listener takes the connections. Closing it leaves the file to Close.
func (s *Socket) Listener() net.Listener { return s.listener }

// Listen opens a socket at path, for its own user alone from the first moment on. It makes
// the socket under another name and then renames it, which replaces a stale one without a
// gap; a lock on the folder keeps two keymounts from doing so at once.
func Listen(ctx context.Context, path string) (*Socket, error) {
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkFree(ctx, path); err != nil {
		return nil, err
	}
	temporary := path + bornSuffix
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("clear the way: %w", err)
	}
	listener, err := listenPrivately(ctx, temporary)
	if err != nil {
		return nil, err
	}
	// Go would unlink the path at Close even when another process owns it by then.
	listener.SetUnlinkOnClose(false)
	born, err := place(temporary, path)
	if err != nil {
		return nil, errors.Join(err, listener.Close(), os.Remove(temporary))
	}
	return &Socket{path: path, listener: listener, born: born}, nil
}

// listenPrivately sets the mode of the socket before bind makes its file.
func listenPrivately(ctx context.Context, path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), mode) })
		return errors.Join(err, failed)
	}}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	unix, ok := listener.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("listen: not a unix socket"), listener.Close())
	}
	return unix, nil
}

func lockFolder(name string) (unlock func(), err error) {
	folder, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("its folder: %w; create it (the driver looks for sockets there) or list another socket", err)
	}
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock its folder: %w", err), folder.Close())
	}
	return func() { _ = folder.Close() }, nil // releases the lock
}

func place(temporary, path string) (fs.FileInfo, error) {
	// Not every kernel takes the mode from the socket: until now it was no wider than umask
	// allows, and now it is certain.
	if err := os.Chmod(temporary, mode); err != nil {
		return nil, fmt.Errorf("restrict the socket: %w", err)
	}
	born, err := os.Lstat(temporary)
	if err != nil {
		return nil, fmt.Errorf("look at the socket: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return nil, fmt.Errorf("put the socket in its place: %w", err)
	}
	return born, nil
}

// checkFree fails unless path is free or a stale socket, which no process serves.
func checkFree(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at what is there: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is not a socket; move it away")
	}
	connection, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return errors.Join(errors.New("another process serves it; stop that one or list another socket"), connection.Close())
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("cannot tell whether another process serves it: %w", err)
}

// Close stops listening and removes the file, unless it is not ours any more.
func (s *Socket) Close() error {
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close socket %s: %w", s.path, err)
	}
	now, err := os.Lstat(s.path)
	if err != nil || !os.SameFile(now, s.born) {
		return nil //nolint:nilerr // gone or another process's: nothing of ours is left
	}
	if err := os.Remove(s.path); err != nil {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}
