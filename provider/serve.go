package provider

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

const (
	// maxRequest lets grpc take what ParseRequest then refuses with a final code.
	// A request over grpc's own limit is answered ResourceExhausted (promise 1).
	maxRequest = 16 << 20
	// stopGrace is what mounts under way get beyond their deadline at a stop.
	stopGrace = 2 * time.Second
	// bornSuffix names a socket until it is in its place; nobody dials that name.
	bornSuffix = ".new"
	socketMode = 0o600
	dialLimit  = 2 * time.Second
	// workers answer on stacks that have grown already: that saves a warm mount a
	// tenth of its time. Calls beyond that many at a time get goroutines of their own.
	workers = 4
)

// Server listens on the driver's sockets.
type Server struct {
	sockets []*socket
	stop    time.Duration
	log     *slog.Logger
}

// Listen opens all sockets or none. The name of each says what classes that come
// through it are written in, see [DialectOf]. Mounts are answered once Run is
// called; until then they wait.
func Listen(ctx context.Context, paths []string, p *Provider, log *slog.Logger) (*Server, error) {
	s := &Server{stop: p.deadline + stopGrace, log: log}
	for _, path := range paths {
		opened, err := openSocket(ctx, path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("socket %s: %w", path, err), s.Close())
		}
		opened.provider = p.speaking(DialectOf(path))
		s.sockets = append(s.sockets, opened)
	}
	return s, nil
}

// NewGRPC is a server that answers for p on whatever listener it is given.
func NewGRPC(p *Provider, log *slog.Logger) *grpc.Server {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.NumStreamWorkers(workers),
		grpc.ChainUnaryInterceptor(logCalls(log, p.observers), contain),
	)
	v1alpha1.RegisterCSIDriverProviderServer(server, p)
	server.RegisterService(adminDesc(), p)
	return server
}

// Run answers until ctx ends, then lets the mounts under way finish, within their
// deadline and a little more, and removes the sockets that are still its own.
func (s *Server) Run(ctx context.Context) error {
	failures := make(chan error, len(s.sockets))
	for _, socket := range s.sockets {
		socket.grpc = NewGRPC(socket.provider, s.log) // which starts its workers
		go func() { failures <- socket.serve() }()
	}
	var failed error
	running := len(s.sockets)
	select {
	case <-ctx.Done():
	case failed = <-failures:
		running--
	}
	s.shutDown(context.WithoutCancel(ctx))
	for range running {
		failed = errors.Join(failed, <-failures)
	}
	return errors.Join(failed, s.Close())
}

func (s *socket) serve() error {
	err := s.grpc.Serve(s.listener)
	if err == nil || errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
		return nil
	}
	return fmt.Errorf("socket %s: %w", s.path, err)
}

func (s *Server) shutDown(ctx context.Context) {
	late := time.AfterFunc(s.stop, func() {
		s.log.LogAttrs(ctx, slog.LevelWarn, "mounts under way at the stop were cut off", slog.String("after", s.stop.String()))
		for _, socket := range s.sockets {
			socket.grpc.Stop()
		}
	})
	defer late.Stop()
	var stopping sync.WaitGroup
	for _, socket := range s.sockets {
		stopping.Go(socket.grpc.GracefulStop)
	}
	stopping.Wait()
}

// Close removes the sockets of a server that is not to run.
func (s *Server) Close() error {
	var failures []error
	for _, socket := range s.sockets {
		failures = append(failures, socket.close())
	}
	return errors.Join(failures...)
}

// socket is a listening unix socket, the file it was born as, and who answers.
type socket struct {
	provider *Provider
	grpc     *grpc.Server // while it runs
	path     string
	listener *net.UnixListener
	born     fs.FileInfo
}

// openSocket listens on path, for its own user alone from the first moment on. The
// socket is made under another name and then renamed, which replaces a stale one
// without a gap; a lock on the folder keeps two keymounts from doing so at once.
func openSocket(ctx context.Context, path string) (*socket, error) {
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
	return &socket{path: path, listener: listener, born: born}, nil
}

// listenPrivately gives the socket its mode before bind makes the file of it.
func listenPrivately(ctx context.Context, path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), socketMode) })
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
	return func() { _ = folder.Close() }, nil // which lets go of the lock
}

func place(temporary, path string) (fs.FileInfo, error) {
	// Not every kernel takes the mode from the socket; it is never wider than umask
	// allows and now certainly right.
	if err := os.Chmod(temporary, socketMode); err != nil {
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

// checkFree fails unless path is free or a socket that nobody answers.
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

// close stops listening and removes the file, unless it is not ours any more.
func (s *socket) close() error {
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
