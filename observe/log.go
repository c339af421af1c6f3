// Package observe reports mounts: a [Log] writes lines, [Metrics] count for Prometheus,
// [Events] inform the owner of a pod, and a [Rotation] checks that the driver mounts
// volumes again. Each is a Recorder of package provider and never fails a mount: a
// [record.Mount] is its only source.
package observe

import (
	"context"
	"errors"
	"log/slog"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/record"
)

// Log writes one line for each mount. It has to be the last Recorder: the line has the
// code for the driver, and the bugs of the other Recorders.
type Log struct{ log *slog.Logger }

// NewLog makes a Log of the lines of log.
func NewLog(log *slog.Logger) Log { return Log{log} }

// Record writes the line and, before it at debug level, one for each read denied by the
// operator's rules.
func (l Log) Record(ctx context.Context, m *record.Mount) error {
	l.denials(ctx, m)
	level := slog.LevelInfo
	attrs := append(attrsOf(m), slog.String("rpc", "Mount"),
		slog.String("code", m.Code.String()), slog.Float64("took_ms", float64(m.Took.Microseconds())/1000))
	if m.Err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("error", m.Message))
	}
	if panicked := contain.Attrs(errors.Join(m.Err, m.Bug)); panicked != nil {
		level = slog.LevelError
		attrs = append(attrs, panicked...)
	}
	l.log.LogAttrs(ctx, level, "call", attrs...)
	return nil
}

// attrsOf are the parts of the line for one mount alone.
func attrsOf(m *record.Mount) []slog.Attr {
	attrs := append(make([]slog.Attr, 0, 13), namesOf(m)...)
	if m.Err == nil || m.Files > 0 {
		attrs = append(attrs, slog.Int("files", m.Files), slog.Int("reads", values(m)))
	}
	if len(m.Warnings) > 0 {
		attrs = append(attrs, slog.String("warning", m.Warning()))
	}
	return attrs
}

// namesOf are the pod and its class.
func namesOf(m *record.Mount) []slog.Attr {
	return []slog.Attr{
		slog.String("namespace", class.Shorten(m.Pod.Namespace)), slog.String("pod", class.Shorten(m.Pod.Name)),
		slog.String("service_account", class.Shorten(m.Pod.ServiceAccount)), slog.String("class", class.Shorten(m.Class)),
	}
}

// values is the number of secrets with a value.
func values(m *record.Mount) int {
	n := 0
	for i := range m.Reads {
		if m.Reads[i].Err == nil {
			n++
		}
	}
	return n
}

// denials are, for each read denied by the rules, the nearest rule and its first list
// without a match. The pod's owner does not learn of them: rules are the operator's.
func (l Log) denials(ctx context.Context, m *record.Mount) {
	if m.Err == nil || !l.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	for i := range m.Reads {
		r := &m.Reads[i]
		if !r.Denied() || r.Rule.Rule == "" {
			continue
		}
		l.log.LogAttrs(ctx, slog.LevelDebug, "denied by the rules", append(namesOf(m),
			slog.String("secret", r.Secret.String()), slog.String("rule", r.Rule.Rule), slog.String("list", r.Rule.List))...)
	}
}
