package provider

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// logCalls writes one line per call, when it is over, and gives errors their
// status. Requests and responses are never logged: they hold tokens and secrets.
func logCalls(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		began := time.Now()
		var l line
		response, err := handler(context.WithValue(ctx, lineKey{}, &l), req)
		answer := statusOf(err)
		code := status.Code(answer)
		attrs := append(l.read(), slog.String("rpc", path.Base(info.FullMethod)),
			slog.String("code", code.String()), slog.Float64("took_ms", float64(time.Since(began).Microseconds())/1000))
		level := slog.LevelInfo
		if err != nil {
			level = slog.LevelWarn
			attrs = append(attrs, slog.String("error", message(err)))
		}
		if p, ok := errors.AsType[*panicError](err); ok {
			level = slog.LevelError
			attrs = append(attrs, slog.String("panic", p.cause), slog.String("stack", p.stack))
		}
		if path.Base(info.FullMethod) == "Version" && code == codes.OK {
			level = slog.LevelDebug // the driver asks every few seconds
		}
		log.LogAttrs(ctx, level, "call", attrs...)
		return response, answer
	}
}

// contain turns a panic of this call into its error.
func contain(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	defer func() {
		if p := recover(); p != nil {
			response, err = nil, newPanicError(p)
		}
	}()
	return handler(ctx, req)
}

// line gathers what a call wants to say in its log line.
type line struct {
	mu       sync.Mutex
	attrs    []slog.Attr
	warnings []string
}

type lineKey struct{}

// note adds to the log line of the call that ctx belongs to.
func note(ctx context.Context, attrs ...slog.Attr) {
	l, ok := ctx.Value(lineKey{}).(*line)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attrs = append(l.attrs, attrs...)
}

// warn adds to the warnings of the line, which are one attribute of it.
func warn(ctx context.Context, texts ...string) {
	l, ok := ctx.Value(lineKey{}).(*line)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warnings = append(l.warnings, texts...)
}

func (l *line) read() []slog.Attr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.warnings) == 0 {
		return l.attrs
	}
	return append(l.attrs, slog.String("warning", cut(strings.Join(l.warnings, "; "))))
}
