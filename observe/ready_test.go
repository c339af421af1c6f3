package observe_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/store"
)

// What a bundle and a probe came to is seen, until it changes.
func TestMetricsOfReadiness(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	ready := false
	metrics.MeasureReady(func() bool { return ready })
	url := serveMetrics(t, metrics)
	loaded := metrics.Loaded("default")
	began := time.Now()
	for _, err := range []error{store.Unavailable.Errorf("absent"), nil, store.Invalid.Errorf("canary"), store.Invalid.Errorf("canary")} {
		loaded(err)
		metrics.Probed("default", err)
	}
	got := counted(t, scrape(t, url))
	want := map[string]float64{
		`keymount_bundle_loads_total{result="ok",store="default"}`:          1,
		`keymount_bundle_loads_total{result="invalid",store="default"}`:     2,
		`keymount_bundle_loads_total{result="unavailable",store="default"}`: 1,
		`keymount_store_probe{result="invalid",store="default"}`:            1,
		`keymount_store_probe{result="ok",store="default"}`:                 0,
		`keymount_store_probe{result="unavailable",store="default"}`:        0,
		`keymount_ready`: 0,
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	at := got[`keymount_bundle_loaded_timestamp_seconds{store="default"}`]
	if since := time.Since(time.UnixMilli(int64(at * 1000))); since < 0 || since > time.Since(began)+time.Second {
		t.Errorf("loaded at %v", at)
	}
	if text := scrape(t, url); strings.Contains(text, "canary") {
		t.Errorf("a scrape has the words of a fault:\n%s", text)
	}
	ready = true
	if got := counted(t, scrape(t, url))["keymount_ready"]; got != 1 {
		t.Errorf("ready is %v", got)
	}
}

// A bundle that was never loaded has no time, and not that of 1970 without a word.
func TestMetricsOfABundleNeverLoaded(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	metrics.Loaded("default")(store.Invalid.Errorf("none"))
	text := scrape(t, serveMetrics(t, metrics))
	for _, line := range []string{
		`keymount_bundle_loaded_timestamp_seconds{store="default"} 0`,
		`keymount_bundle_loads_total{result="ok",store="default"} 0`,
		`keymount_bundle_loads_total{result="invalid",store="default"} 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no %s", line)
		}
	}
}

// Probes learn whether, and nothing of a store; that of life never asks for readiness.
func TestReadyAndHealthPages(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	ready := false
	metrics.MeasureReady(func() bool { return ready })
	base := strings.TrimSuffix(serveMetrics(t, metrics), "/metrics")
	type page struct {
		status int
		body   string
	}
	look := func(path string) page {
		status, body := request(t, http.MethodGet, base+path)
		return page{status, body}
	}
	got := []page{look("/readyz"), look("/healthz")}
	ready = true
	got = append(got, look("/readyz"))
	want := []page{{503, "not ready\n"}, {200, "ok\n"}, {200, "ready\n"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(page{})); diff != "" {
		t.Errorf("pages (-want +got)\n%s", diff)
	}
	if status, _ := request(t, http.MethodPost, base+"/readyz"); status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", status)
	}
}

// Without metrics nothing is counted, and nothing breaks.
func TestNoMetricsOfReadiness(*testing.T) {
	var none *observe.Metrics
	none.Loaded("default")(nil)
	none.Probed("default", nil)
	none.MeasureReady(func() bool { return true })
}
