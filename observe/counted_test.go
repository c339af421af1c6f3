package observe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

// atHand has the value at one path at hand.
type atHand struct{ *storetest.Memory }

func (atHand) Recall(_ store.Caller, ref store.Ref) (store.Value, bool) {
	return store.Value{}, ref.Path.String() == "shop/db"
}

// A value that a store has at hand counts as a read, and one that it has not does not.
func TestMetricsOfRecall(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	inner := atHand{storetest.NewMemory()}
	layers := metrics.Count("prod", kind.Layers{Store: inner, Recaller: inner})
	for text, want := range map[string]bool{"shop/db": true, "shop/other": false} {
		path, err := store.ParsePath(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, known := layers.Recall(store.Caller{}, store.Ref{Path: path}); known != want {
			t.Errorf("%s is at hand: %v", text, known)
		}
	}
	expectCounts(t, metrics, "keymount_store_read", map[string]float64{
		`keymount_store_reads_total{result="ok",store="prod"}`:     1,
		`keymount_store_read_duration_seconds_count{store="prod"}`: 1,
	})
}

// A denial that may be the login's fault counts as a denial.
func TestMetricsOfDoubt(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	inner := storetest.NewMemory()
	inner.Behave(func(context.Context, store.Caller, store.Ref) error { return store.Doubt.Errorf("403") })
	layers := metrics.Count("prod", kind.Layers{Store: inner})
	if _, err := layers.Read(t.Context(), store.Caller{}, store.Ref{}); !errors.Is(err, store.Doubt) {
		t.Errorf("got %v", err)
	}
	expectCounts(t, metrics, "keymount_store_reads", map[string]float64{`keymount_store_reads_total{result="denied",store="prod"}`: 1})
}

// A value that stands in counts when it was delivered, and only then.
func TestMetricsOfStaleValues(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	for _, code := range []codes.Code{codes.OK, codes.NotFound, codes.OK} {
		if err := metrics.Record(t.Context(), &record.Mount{Code: code, Reads: []record.Read{
			{Secret: &class.Secret{Store: "prod"}, Source: record.Stale},
			{Secret: &class.Secret{Store: "other"}, Source: record.FromMemory},
		}}); err != nil {
			t.Error(err)
		}
	}
	expectCounts(t, metrics, "keymount_stale", map[string]float64{`keymount_stale_values_total{store="prod"}`: 2})
}

// expectCounts compares the metrics of a name's beginning that are not zero.
func expectCounts(t *testing.T, metrics *observe.Metrics, name string, want map[string]float64) {
	t.Helper()
	got := map[string]float64{}
	for series, value := range counted(t, scrape(t, serveMetrics(t, metrics))) {
		if strings.HasPrefix(series, name) {
			got[series] = value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// The bug of another Recorder is an error in the log, with its stack, whatever came of the
// mount.
func TestLogOfABug(t *testing.T) {
	for _, failed := range []error{nil, store.NotFound} {
		var text bytes.Buffer
		log := observe.NewLog(slog.New(slog.NewJSONHandler(&text, nil)))
		if err := log.Record(t.Context(), &record.Mount{Err: failed, Bug: contain.Recovered(canary)}); err != nil {
			t.Error(err)
		}
		var line struct{ Level, Panic, Stack string }
		if err := json.Unmarshal(text.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.Level != "ERROR" || line.Panic != "string" || !strings.Contains(line.Stack, "TestLogOfABug") {
			t.Errorf("got %s", text.String())
		}
	}
}
