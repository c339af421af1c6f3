package observe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
)

// A denial by a rule tells the operator how near the nearest rule came, at debug level
// only; a denial of the store has nothing of that.
func TestLogOfDenials(t *testing.T) {
	path, err := store.ParsePath("shop/db")
	if err != nil {
		t.Fatal(err)
	}
	secret := &class.Secret{Store: "prod", Role: "shop", Path: path}
	near := access.Decision{Rule: "stores[0].access[1]", List: "roles"}
	m := &record.Mount{
		Pod: pod("shop", "api"), Class: "app", Code: codes.PermissionDenied, Message: "not allowed", Err: access.ErrDenied, Took: 1500 * time.Microsecond,
		Reads: []record.Read{
			{Secret: secret, Rule: near, Err: access.ErrDenied},
			{Secret: secret, Rule: access.Decision{Allowed: true, Rule: "stores[0].access[0]"}, Err: store.Denied.Errorf("no policy")},
			{Secret: secret, Err: access.ErrDenied}, // no rule is near where there is none
			{Secret: secret},
		},
	}
	names := map[string]any{"namespace": "shop", "pod": "api-0", "pod_uid": "uid-shop-api", "service_account": "api", "class": "app"}
	line := func(fields map[string]any) map[string]any {
		maps.Copy(fields, names)
		return fields
	}
	call := line(map[string]any{"level": "WARN", "msg": "call", "rpc": "Mount", "code": "PermissionDenied", "took_ms": 1.5, "error": "not allowed", "store": "prod", "cause": "denied, no_rule"})
	denial := line(map[string]any{
		"level": "DEBUG", "msg": "denied by the rules", "secret": secret.String(),
		"rule": "stores[0].access[1]", "list": "roles",
	})
	for level, want := range map[slog.Level][]map[string]any{
		slog.LevelInfo:  {call},
		slog.LevelDebug: {denial, call},
	} {
		var text bytes.Buffer
		log := observe.NewLog(slog.New(slog.NewJSONHandler(&text, &slog.HandlerOptions{Level: level})))
		if err := log.Record(t.Context(), m); err != nil {
			t.Error(err)
		}
		var got []map[string]any
		for line := range bytes.Lines(text.Bytes()) {
			var fields map[string]any
			if err := json.Unmarshal(line, &fields); err != nil {
				t.Fatal(err)
			}
			delete(fields, "time")
			got = append(got, fields)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("at level %s (-want +got):\n%s", level, diff)
		}
	}
}

// lines are those of a log at info level, without the fields that differ each time.
func lines(t *testing.T, text *bytes.Buffer) (all []map[string]any) {
	t.Helper()
	for line := range bytes.Lines(text.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"time", "took_ms", "namespace", "pod", "pod_uid", "service_account", "class", "rpc", "msg"} {
			delete(fields, name)
		}
		all = append(all, fields)
	}
	text.Reset()
	return all
}

// A mount that brings nothing new has no line: of an idle node all that is left is one a
// minute. What changes, fails or is well again has one that says so.
func TestLogOfChanges(t *testing.T) {
	var text bytes.Buffer
	log := observe.NewLog(slog.New(slog.NewJSONHandler(&text, nil)))
	path, err := store.ParsePath("shop/db")
	if err != nil {
		t.Fatal(err)
	}
	read := record.Read{Secret: &class.Secret{Store: "prod", Path: path}}
	good := func(files ...record.File) *record.Mount {
		return &record.Mount{Pod: pod("shop", "api"), Class: "app", Files: len(files), Delivered: files, Reads: []record.Read{read}}
	}
	a, b, changed := record.File{Path: "a", Version: "1"}, record.File{Path: "b", Version: "1"}, record.File{Path: "a", Version: "2"}
	failed := &record.Mount{Pod: pod("shop", "api"), Class: "app", Code: codes.FailedPrecondition, Message: "no answer", Err: store.Unavailable, Reads: []record.Read{read}}
	failed.Reads[0].Err = store.Unavailable.Errorf("gone")
	stale := func(cause string) *record.Mount {
		m := good(changed, b)
		m.Reads = []record.Read{{Secret: read.Secret, Source: record.Stale, Cause: cause}}
		m.Warnings = []string{"the last known value stands in: " + cause}
		return m
	}
	warned := good(changed, b)
	warned.Warnings = []string{"unknown parameter"}
	ok := func(fields map[string]any) map[string]any {
		maps.Copy(fields, map[string]any{"level": "INFO", "code": "OK", "reads": 1.0})
		return fields
	}
	for _, step := range []struct {
		name  string
		mount *record.Mount
		want  map[string]any // nil for no line
	}{
		{"first", good(a, b), ok(map[string]any{"files": 2.0, "first": true})},
		{"the same", good(a, b), nil},
		{"changed", good(changed, b), ok(map[string]any{"files": 2.0, "changed": "a"})},
		{"failed", failed, map[string]any{"level": "WARN", "code": "FailedPrecondition", "error": "no answer", "store": "prod", "cause": "unavailable"}},
		{"failed again", failed, map[string]any{"level": "WARN", "code": "FailedPrecondition", "error": "no answer", "store": "prod", "cause": "unavailable"}},
		{"well again", good(changed, b), ok(map[string]any{"files": 2.0, "recovered": true})},
		{"stale", stale("since 10:00"), ok(map[string]any{"files": 2.0, "stale": true, "store": "prod", "cause": "since 10:00", "warning": "the last known value stands in: since 10:00"})},
		{"still stale", stale("since 10:00, 5 tries"), nil},
		{"fresh again", good(changed, b), ok(map[string]any{"files": 2.0, "stale": false})},
		{"warned", warned, ok(map[string]any{"files": 2.0, "warning": "unknown parameter"})},
		{"warned again", warned, nil},
		{"one gone, one new", good(changed, record.File{Path: "c", Version: "1"}), ok(map[string]any{"files": 2.0, "changed": "c", "removed": 1.0})},
		{"in another order", good(record.File{Path: "c", Version: "1"}, changed), nil},
	} {
		if err := log.Record(t.Context(), step.mount); err != nil {
			t.Error(err)
		}
		var want []map[string]any
		if step.want != nil {
			want = []map[string]any{step.want}
		}
		if diff := cmp.Diff(want, lines(t, &text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

// The mounts without lines of their own are in one line a minute, and an hour of 110 idle
// volumes is fewer than 100 lines.
func TestLogOfAnIdleNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // of the text, which is written in the background
		var text bytes.Buffer
		log := observe.NewLog(slog.New(slog.NewJSONHandler(writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return text.Write(p)
		}), nil)))
		written := func() []map[string]any {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return lines(t, &text)
		}
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		go func() { stopped <- log.Run(ctx) }()
		mount := func() {
			for i := range 110 {
				m := &record.Mount{Pod: pod("shop", "api"), Class: fmt.Sprint("app-", i), Files: 1, Delivered: []record.File{{Path: "a", Version: "1"}}}
				if err := log.Record(t.Context(), m); err != nil {
					t.Error(err)
				}
			}
		}
		time.Sleep(time.Second)
		mount()
		written() // those of the first mounts
		for range 60 {
			time.Sleep(time.Minute)
			mount()
		}
		got := written()
		if len(got) >= 100 || len(got) == 0 {
			t.Fatalf("%d lines in an hour", len(got))
		}
		if diff := cmp.Diff(map[string]any{"level": "INFO", "all": 110.0, "first": 0.0, "changed": 0.0, "failed": 0.0}, got[len(got)-1]); diff != "" {
			t.Error(diff)
		}
		time.Sleep(2 * time.Minute)
		written() // the last mounts
		time.Sleep(time.Hour)
		if got := written(); got != nil {
			t.Errorf("without mounts: %v", got)
		}
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// Volumes are counted by what came of their last mounts; one without a mount is gone.
func TestStatesOfVolumes(t *testing.T) {
	log := observe.NewLog(slog.New(slog.DiscardHandler))
	began := time.Now()
	path, err := store.ParsePath("shop/db")
	if err != nil {
		t.Fatal(err)
	}
	secret := &class.Secret{Store: "prod", Path: path}
	mount := func(name string, at time.Time, change func(*record.Mount)) {
		m := &record.Mount{Pod: pod("shop", "api"), Class: name, Began: at, Files: 1, Delivered: []record.File{{Path: "a", Version: "1"}}}
		change(m)
		if err := log.Record(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	good := func(*record.Mount) {}
	failed := func(m *record.Mount) { m.Code, m.Err = codes.NotFound, store.NotFound.Errorf("none") }
	stale := func(m *record.Mount) { m.Reads = []record.Read{{Secret: secret, Source: record.Stale, Cause: "gone"}} }
	mount("old", began.Add(-time.Hour), good)
	mount("good", began, good)
	mount("failed", began, good)
	mount("failed", began, failed)
	mount("new and failed", began, failed)
	mount("stale", began, stale)
	if diff := cmp.Diff(observe.States{Fresh: 1, Stale: 1, Failing: 2}, log.States(began.Add(-time.Minute))); diff != "" {
		t.Error(diff)
	}
	mount("failed", began, good)
	mount("stale", began, good)
	if diff := cmp.Diff(observe.States{Fresh: 3, Failing: 1}, log.States(began.Add(-time.Minute))); diff != "" {
		t.Error(diff)
	}
}

// writerFunc is a function as a writer.
type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }
