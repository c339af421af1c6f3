package provider

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/store"
)

// Call is an answered Mount, for those who count it and tell of it.
type Call struct {
	Pod      auth.Pod // as the driver named it; proven only where Code is OK
	Class    string
	Code     codes.Code
	Message  string // the error as the driver was told it; empty where there is none
	Warnings []string
	Took     time.Duration
}

// Observer is told of every Mount when its answer is ready, and must not wait.
type Observer func(ctx context.Context, c Call)

// logCalls writes one line per call, when it is over, tells the observers, and
// gives errors their status. Requests and responses are never logged: they hold
// tokens and secrets.
func logCalls(log *slog.Logger, observers []Observer) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		began := time.Now()
		var l line
		response, err := handler(context.WithValue(ctx, lineKey{}, &l), req)
		answer := statusOf(err)
		code := status.Code(answer)
		var told error
		if path.Base(info.FullMethod) == "Mount" {
			told = l.tell(ctx, observers, Call{Code: code, Message: status.Convert(answer).Message(), Took: time.Since(began)})
		}
		attrs := append(l.read(), slog.String("rpc", path.Base(info.FullMethod)),
			slog.String("code", code.String()), slog.Float64("took_ms", float64(time.Since(began).Microseconds())/1000))
		level := slog.LevelInfo
		if err != nil {
			level = slog.LevelWarn
			attrs = append(attrs, slog.String("error", message(err)))
		}
		if p, ok := errors.AsType[*store.Panic](errors.Join(err, told)); ok {
			level = slog.LevelError
			attrs = append(attrs, slog.String("panic", p.Cause), slog.String("stack", p.Stack))
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
			response, err = nil, store.Recovered(p)
		}
	}()
	return handler(ctx, req)
}

// line gathers what a call wants to say in its log line.
type line struct {
	mu       sync.Mutex
	pod      auth.Pod
	class    string
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

// noteRequest tells the call's line who asks for what.
func noteRequest(ctx context.Context, r Request) {
	note(ctx, r.attrs()...)
	warn(ctx, r.Warnings...)
	if l, ok := ctx.Value(lineKey{}).(*line); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.pod, l.class = r.Pod, r.Class
	}
}

// tell completes c and hands it on. The error is the bugs of observers.
func (l *line) tell(ctx context.Context, observers []Observer, c Call) error {
	l.mu.Lock()
	c.Pod, c.Class, c.Warnings = l.pod, l.class, slices.Clone(l.warnings)
	l.mu.Unlock()
	var bugs []error
	for _, observe := range observers {
		bugs = append(bugs, observe.safely(ctx, c))
	}
	return errors.Join(bugs...)
}

// safely turns a panic of o into an error: the call has its answer already.
func (o Observer) safely(ctx context.Context, c Call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = store.Recovered(p)
		}
	}()
	o(ctx, c)
	return nil
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
