package observe_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"testing"
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
			{Secret: secret, Rule: access.Decision{Allowed: true, Rule: "stores[0].access[0]"}, Err: store.Denied},
			{Secret: secret, Err: access.ErrDenied}, // no rule is near where there is none
			{Secret: secret},
		},
	}
	names := map[string]any{"namespace": "shop", "pod": "api-0", "service_account": "api", "class": "app"}
	line := func(fields map[string]any) map[string]any {
		maps.Copy(fields, names)
		return fields
	}
	call := line(map[string]any{"level": "WARN", "msg": "call", "rpc": "Mount", "code": "PermissionDenied", "took_ms": 1.5, "error": "not allowed"})
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
