package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/socket"
)

const (
	// maxRequest lets grpc accept requests for [class.Parse] to refuse with a final code. A
	// request over grpc's own limit is answered ResourceExhausted (promise 1).
	maxRequest = 16 << 20
	// stopGrace is the time that mounts under way at a stop have, and cutGrace is the time
	// beyond it in which they answer that they had no more.
	stopGrace = 2 * time.Second
	cutGrace  = 750 * time.Millisecond
	// greeting bounds a connection that says nothing, for which a stop would wait.
	greeting = time.Second
	// workers bounds the goroutines kept for calls. Their stacks have grown already, which
	// saves a warm mount a tenth of its time. Further calls get goroutines of their own.
	workers = 4
)

// Server listens on the driver's sockets.
type Server struct {
	endpoints []*endpoint
	log       *slog.Logger
}

// endpoint is a socket with its Provider.
type endpoint struct {
	path     string
	socket   *socket.Socket
	provider *Provider
	grpc     *grpc.Server // while it runs
}

// Listen opens all sockets or none. The name of a socket decides the dialect of its
// classes, see [class.DialectOf]. Mounts wait for their answers until Run is called.
func Listen(ctx context.Context, paths []string, p *Provider, log *slog.Logger) (*Server, error) {
	s := &Server{log: log}
	for _, path := range paths {
		opened, err := socket.Listen(ctx, path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("socket %s: %w", path, err), s.Close())
		}
		s.endpoints = append(s.endpoints, &endpoint{path: path, socket: opened, provider: p.Speaking(class.DialectOf(path))})
	}
	return s, nil
}

// NewGRPC is a server that answers for p on any listener. Its mounts end with life.
func NewGRPC(life context.Context, p *Provider, log *slog.Logger) *grpc.Server {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.ConnectionTimeout(greeting),
		grpc.NumStreamWorkers(workers),
		grpc.ChainUnaryInterceptor(logCalls(log), contained, endingWith(life)),
	)
	v1alpha1.RegisterCSIDriverProviderServer(server, p)
	server.RegisterService(adminDesc(), p)
	return server
}

// logCalls gives errors their status, and writes a line for each finished call without a
// record. Requests and responses are never logged: they hold tokens and secrets.
func logCalls(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		began := time.Now()
		response, err := handler(ctx, req)
		if _, settled := status.FromError(err); settled && path.Base(info.FullMethod) == "Mount" {
			return response, err // a Recorder has its line
		}
		answer := statusOf(err)
		attrs := []slog.Attr{
			slog.String("rpc", path.Base(info.FullMethod)), slog.String("code", status.Code(answer).String()),
			slog.Float64("took_ms", float64(time.Since(began).Microseconds())/1000),
		}
		level := slog.LevelInfo
		if err != nil {
			level = slog.LevelWarn
			attrs = append(attrs, slog.String("error", message(err)))
		}
		if panicked := contain.Attrs(err); panicked != nil {
			level = slog.LevelError
			attrs = append(attrs, panicked...)
		}
		if name := path.Base(info.FullMethod); (name == "Version" || name == readyName) && err == nil {
			level = slog.LevelDebug // the driver, and probes, ask every few seconds
		}
		log.LogAttrs(ctx, level, "call", attrs...)
		return response, answer
	}
}

// contained turns a panic of this call into its error.
func contained(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return contain.Do(func() (any, error) { return handler(ctx, req) })
}

// endingWith ends calls with life, for its cause.
func endingWith(life context.Context) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()
		return handler(ctx, req)
	}
}

// Run answers until ctx ends. Then mounts under way have a moment to finish, and the others
// are answered that there was none; and it removes the sockets if they are still its own.
func (s *Server) Run(ctx context.Context) error {
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	failures := make(chan error, len(s.endpoints))
	for _, e := range s.endpoints {
		e.grpc = NewGRPC(life, e.provider, s.log) // which starts its workers
		go func() { failures <- e.serve() }()
	}
	var failed error
	running := len(s.endpoints)
	select {
	case <-ctx.Done():
	case failed = <-failures:
		running--
	}
	s.shutDown(context.WithoutCancel(ctx), end)
	for range running {
		failed = errors.Join(failed, <-failures)
	}
	return errors.Join(failed, s.Close())
}

func (e *endpoint) serve() error {
	err := e.grpc.Serve(e.socket.Listener())
	if err == nil || errors.Is(err, grpc.ErrServerStopped) { // stopped before it began
		return nil
	}
	return fmt.Errorf("socket %s: %w", e.path, err)
}

func (s *Server) shutDown(ctx context.Context, end context.CancelCauseFunc) {
	defer time.AfterFunc(stopGrace, func() { end(errStopping) }).Stop()
	defer time.AfterFunc(stopGrace+cutGrace, func() {
		s.log.LogAttrs(ctx, slog.LevelWarn, "mounts under way at the stop were cut off", slog.String("after", (stopGrace+cutGrace).String()))
		for _, e := range s.endpoints {
			e.grpc.Stop()
		}
	}).Stop()
	var stopping sync.WaitGroup
	for _, e := range s.endpoints {
		stopping.Go(e.grpc.GracefulStop)
	}
	stopping.Wait()
}

// Close removes the sockets of a server before any Run.
func (s *Server) Close() error {
	var failures []error
	for _, e := range s.endpoints {
		failures = append(failures, e.socket.Close())
	}
	return errors.Join(failures...)
}
