// Package observe reports mounts: a [Log] writes lines, [Metrics] count for Prometheus,
// [Events] inform the owner of a pod, and a [Rotation] checks that the driver mounts
// volumes again. Each is a Recorder of package provider and never fails a mount: a
// [record.Mount] is its only source.
package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/record"
)

const (
	// tellEvery is the time between two lines about the mounts that have none of their own.
	tellEvery = time.Minute
	// mostNamed bounds the names in one line.
	mostNamed = 20
)

// Log writes a line for each mount that is the first of its volume, fails, or changes something.
// The others, which are nearly all, have theirs at debug level, and are counted in a line a
// minute. It has to be the last Recorder: the line has the code for the driver, and the bugs
// of the other Recorders. It is safe for concurrent use.
type Log struct {
	log     *slog.Logger
	changes *changes
	counts  counts
}

// counts are mounts since the last line about them.
type counts struct{ mounts, first, changed, failed atomic.Int64 }

// NewLog makes a Log of the lines of log.
func NewLog(log *slog.Logger) *Log { return &Log{log: log, changes: newChanges()} }

// Volumes are those with a mount since a time, in no order. Those without are forgotten, and
// would be new ones.
func (l *Log) Volumes(since time.Time) []Volume { return l.changes.list(since) }

// States are the numbers of the same volumes.
func (l *Log) States(since time.Time) (s States) {
	l.changes.each(since, func(_ volume, h had) {
		switch h.state() {
		case StateFailing:
			s.Failing++
		case StateStale:
			s.Stale++
		default:
			s.Fresh++
		}
	})
	return s
}

// Run writes the line a minute, until ctx ends; after a minute without a mount there is none.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			l.sum(ctx)
		}
	}
}

func (l *Log) sum(ctx context.Context) {
	mounts := l.counts.mounts.Swap(0)
	first, changed, failed := l.counts.first.Swap(0), l.counts.changed.Swap(0), l.counts.failed.Swap(0)
	if mounts > 0 {
		l.log.LogAttrs(ctx, slog.LevelInfo, "mounts of the last minute", slog.Int64("all", mounts),
			slog.Int64("first", first), slog.Int64("changed", changed), slog.Int64("failed", failed))
	}
}

// Record writes the line and, before it at debug level, one for each read denied by the
// operator's rules.
func (l *Log) Record(ctx context.Context, m *record.Mount) error {
	l.denials(ctx, m)
	news := l.changes.note(m)
	l.count(m, news)
	level := slog.LevelInfo
	panicked := contain.Attrs(errors.Join(m.Err, m.Bug))
	switch {
	case panicked != nil:
		level = slog.LevelError
	case m.Err != nil:
		level = slog.LevelWarn
	case news.none():
		level = slog.LevelDebug
	}
	if !l.log.Enabled(ctx, level) {
		return nil
	}
	attrs := append(attrsOf(m, news), slog.String("rpc", "Mount"),
		slog.String("code", m.Code.String()), slog.Float64("took_ms", float64(m.Took.Microseconds())/1000))
	if m.Err != nil {
		attrs = append(attrs, slog.String("error", m.Message))
	}
	l.log.LogAttrs(ctx, level, "call", append(attrs, panicked...)...)
	return nil
}

func (l *Log) count(m *record.Mount, news change) {
	l.counts.mounts.Add(1)
	switch {
	case m.Err != nil:
		l.counts.failed.Add(1)
	case news.first:
		l.counts.first.Add(1)
	case len(news.files) > 0 || news.removed > 0:
		l.counts.changed.Add(1)
	}
}

// attrsOf are the parts of the line for one mount alone.
func attrsOf(m *record.Mount, news change) []slog.Attr {
	attrs := append(make([]slog.Attr, 0, 18), namesOf(m)...)
	if m.Err == nil || m.Files > 0 {
		attrs = append(attrs, slog.Int("files", m.Files), slog.Int("reads", values(m)))
	}
	if m.Err != nil {
		attrs = append(attrs, failuresIn(m)...)
	}
	if m.Err == nil {
		attrs = append(attrs, newsOf(news)...)
	}
	if len(m.Warnings) > 0 {
		attrs = append(attrs, slog.String("warning", m.Warning()))
	}
	return attrs
}

// newsOf is what the mount changed.
func newsOf(news change) []slog.Attr {
	var attrs []slog.Attr
	if news.first {
		attrs = append(attrs, slog.Bool("first", true))
	}
	if news.recovered {
		attrs = append(attrs, slog.Bool("recovered", true))
	}
	if len(news.files) > 0 {
		attrs = append(attrs, slog.String("changed", listed(news.files)))
	}
	if news.removed > 0 {
		attrs = append(attrs, slog.Int("removed", news.removed))
	}
	if news.stale != nil {
		attrs = append(attrs, slog.Bool("stale", len(news.stale) > 0))
	}
	if len(news.stale) > 0 {
		causes := slices.Collect(maps.Values(news.stale))
		attrs = append(attrs, slog.String("store", listed(slices.Sorted(maps.Keys(news.stale)))), slog.String("cause", record.Fit(strings.Join(distinct(causes), "; "))))
	}
	return attrs
}

// failuresIn are the stores whose secrets have no value, and what kind of failure it is, as
// the metrics call it.
func failuresIn(m *record.Mount) []slog.Attr {
	var stores, causes []string
	for i := range m.Reads {
		r := &m.Reads[i]
		if r.Err == nil {
			continue
		}
		cause := resultOf(r.Err)
		if r.Denied() {
			cause = "no_rule"
		}
		stores, causes = append(stores, r.Secret.Store), append(causes, cause)
	}
	if stores == nil {
		return nil
	}
	return []slog.Attr{slog.String("store", listed(distinct(stores))), slog.String("cause", listed(distinct(causes)))}
}

func distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// listed is some names in one text.
func listed(names []string) string {
	some := make([]string, min(len(names), mostNamed))
	for i := range some {
		some[i] = class.Shorten(names[i])
	}
	text := strings.Join(some, ", ")
	if more := len(names) - len(some); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// namesOf are the pod and its class.
func namesOf(m *record.Mount) []slog.Attr {
	return []slog.Attr{
		slog.String("namespace", class.Shorten(m.Pod.Namespace)), slog.String("pod", class.Shorten(m.Pod.Name)),
		slog.String("pod_uid", class.Shorten(m.Pod.UID)), slog.String("service_account", class.Shorten(m.Pod.ServiceAccount)),
		slog.String("class", class.Shorten(m.Class)),
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
func (l *Log) denials(ctx context.Context, m *record.Mount) {
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
