package observe_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/storetest"
)

// What Prometheus sees of mounts, to the last one.
func TestMetricsCount(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	w, l := startCounted(t, metrics)
	url := serveMetrics(t, metrics)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	w.memory.Set("shop/bug", map[string]any{"password": canary})
	w.memory.Behave(func(_ context.Context, _ store.Caller, ref store.Ref) error {
		if ref.Path.String() == "shop/bug" {
			panic(canary)
		}
		return nil
	})
	const by = "store: logins, role: shop, key: password"
	for objects, code := range map[string]codes.Code{
		oneKey: codes.OK,
		// Two spellings of a secret are read once, with one login for all of this.
		"[{path: shop/db, file: a, " + by + "}, {path: data/shop/db, file: b, " + by + "}]": codes.OK,
		"[{path: shop/none, file: a, " + by + "}]":                                          codes.NotFound,
		"[{path: blog/db, key: password, file: a}]":                                         codes.PermissionDenied, // by a rule: nothing is read
		"[{path: shop/db, store: logins, role: unbound, key: password, file: a}]":           codes.PermissionDenied, // at the login
		"[{path: shop/bug, key: password, file: a}]":                                        codes.Internal,
		"[{path: shop/db, file: a, fiel: b}]":                                               codes.InvalidArgument,
	} {
		err := w.mount(w.volume(pod("shop", "api"), objects))
		if got := status.Code(err); got != code {
			t.Errorf("%s: %v", objects, err)
		}
	}
	l.mu.Lock()
	l.revoked = map[string]bool{"token-1": true, "token-2": true}
	l.mu.Unlock()
	if err := w.mount(w.volume(pod("shop", "api"), "[{path: shop/db, file: a, "+by+"}]")); err != nil {
		t.Error(err)
	}

	want := map[string]float64{
		`keymount_build_info{goversion="` + runtime.Version() + `",revision="abc",version="v1.2.3"}`: 1,
		`keymount_mounts_total{code="OK"}`:                                  3,
		`keymount_mounts_total{code="NotFound"}`:                            1,
		`keymount_mounts_total{code="PermissionDenied"}`:                    2,
		`keymount_mounts_total{code="Internal"}`:                            1,
		`keymount_mounts_total{code="InvalidArgument"}`:                     1,
		`keymount_mount_duration_seconds_count`:                             8,
		`keymount_store_reads_total{result="ok",store="default"}`:           1,
		`keymount_store_reads_total{result="bug",store="default"}`:          1,
		`keymount_store_reads_total{result="ok",store="logins"}`:            2,
		`keymount_store_reads_total{result="not_found",store="logins"}`:     1,
		`keymount_store_reads_total{result="session_ended",store="logins"}`: 1,
		`keymount_store_read_duration_seconds_count{store="default"}`:       2,
		`keymount_store_read_duration_seconds_count{store="logins"}`:        4,
		`keymount_logins_total{result="ok",store="logins"}`:                 2,
		`keymount_logins_total{result="denied",store="logins"}`:             1,
		`keymount_store_up{store="default"}`:                                1,
		`keymount_store_up{store="logins"}`:                                 1,

		`keymount_store_mounts_total{code="OK",store="default"}`:               1,
		`keymount_store_mounts_total{code="Internal",store="default"}`:         1,
		`keymount_store_mounts_total{code="PermissionDenied",store="default"}`: 1,
		`keymount_store_mounts_total{code="OK",store="logins"}`:                2,
		`keymount_store_mounts_total{code="NotFound",store="logins"}`:          1,
		`keymount_store_mounts_total{code="PermissionDenied",store="logins"}`:  1,
	}
	if diff := cmp.Diff(want, withoutPhases(counted(t, scrape(t, url)))); diff != "" {
		t.Errorf("counts (-want +got)\n%s", diff)
	}
}

// withoutPhases sums up both phases, since any of the mounts may come first, and leaves out times.
func withoutPhases(series map[string]float64) map[string]float64 {
	sums := map[string]float64{}
	for name, value := range series {
		if !strings.Contains(name, "_timestamp_") {
			sums[strings.NewReplacer(`phase="first",`, "", `phase="rotation",`, "").Replace(name)] += value
		}
	}
	return sums
}

// errAway is an outage after which nobody asks again, so that it is counted once.
var errAway = &store.Error{Reason: store.Unavailable, Uncertain: true}

// away is a store that is out of reach at some question.
type away struct {
	*loginStore
	login, resolve, read bool
}

func (a *away) Login(ctx context.Context, i auth.Identity, token secret.Bytes, role string) (login.Login, error) {
	if a.login {
		return login.Login{}, errAway
	}
	return a.loginStore.Login(ctx, i, token, role)
}

func (a *away) Resolve(ctx context.Context, caller store.Caller, ref store.Ref) (store.Resolved, error) {
	if a.resolve {
		return store.Resolved{}, errAway
	}
	return a.loginStore.Resolve(ctx, caller, ref)
}

func (a *away) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	if a.read {
		return store.Value{}, errAway
	}
	return a.loginStore.Read(ctx, caller, ref)
}

// However far a mount gets while its store is away, the alert of docs/metrics.md
// looks at a counter that rises.
func TestMetricsOfAnOutage(t *testing.T) {
	manual, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, alert, _ := strings.Cut(string(manual), "# A store does not answer.")
	alert, _, _ = strings.Cut(alert, "\n\n")
	watched := regexp.MustCompile(`rate\((keymount_\w+)\{(result="\w+")\}\[`).FindAllStringSubmatch(alert, -1)
	for name, c := range map[string]struct {
		outage away
		timed  float64
	}{
		"at the login":              {away{login: true}, 0},
		"at what a path is":         {away{resolve: true}, 1},
		"at the read, and no other": {away{read: true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			metrics := observe.NewMetrics("v1.2.3", "abc")
			down := c.outage
			down.loginStore = &loginStore{Memory: storetest.NewMemory()}
			w := start(t, func(_ *world, o *provider.Options) {
				counting(o, metrics)
				o.Backends[0].Store, o.Backends[0].Resolves = direct(metrics.Count("default", storetest.LayersOf(&down, &down))), true
			})
			url := serveMetrics(t, metrics)
			if err := w.mount(w.volume(pod("shop", "api"), oneKey)); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("got %v", err)
			}
			got := counted(t, scrape(t, url))
			var seen float64
			for _, m := range watched {
				seen += got[m[1]+"{"+m[2]+`,store="default"}`]
			}
			if seen != 1 || got[`keymount_store_read_duration_seconds_count{store="default"}`] != c.timed {
				t.Errorf("the alert looks at %s and sees none of it: %v", alert, got)
			}
		})
	}
}

// A store is up while it answers, and be it with a refusal.
func TestStoreIsUp(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	w, _ := startCounted(t, metrics)
	url := serveMetrics(t, metrics)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	const up, success = `keymount_store_up{store="default"}`, `keymount_store_last_success_timestamp_seconds{store="default"}`
	if got := counted(t, scrape(t, url)); got[up] != 1 || got[success] != 0 {
		t.Errorf("before: %v, %v", got[up], got[success])
	}
	for _, step := range []struct {
		err  error
		want float64
	}{{nil, 1}, {errAway, 0}, {store.Denied.Errorf("no"), 1}, {errAway, 0}, {nil, 1}} {
		before := counted(t, scrape(t, url))[success]
		w.memory.Behave(func(context.Context, store.Caller, store.Ref) error { return step.err })
		_ = w.mount(w.volume(pod("shop", "api"), oneKey))
		if got := counted(t, scrape(t, url)); got[up] != step.want || (got[success] > before) != (step.err == nil) {
			t.Errorf("after %v: up is %v, and the last success went from %v to %v", step.err, got[up], before, got[success])
		}
	}
}

// Nothing that a pod's author chose is in a scrape, and what can happen is there
// before it does.
func TestMetricsTellNoNames(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	w, l := startCounted(t, metrics)
	url := serveMetrics(t, metrics)
	series := func() []string {
		var names []string
		for line := range strings.Lines(scrape(t, url)) {
			if strings.HasPrefix(line, "keymount_") {
				names = append(names, line[:strings.LastIndexByte(line, ' ')])
			}
		}
		return names
	}
	w.memory.Set("shop/db", map[string]any{"password": canary})
	l.Set("shop/db", map[string]any{"password": canary})
	before := series()
	for _, objects := range []string{oneKey, "[{path: shop/db, store: logins, role: shop, key: password, file: a}]", "[{path: shop/none, file: a/}]", "canary-7f3a: {"} {
		_ = w.mount(w.volume(pod("shop", "api"), objects))
	}
	if diff := cmp.Diff(before, series()); diff != "" {
		t.Errorf("series (-before +after the mounts)\n%s", diff)
	}
	for _, name := range []string{canary, "shop", "api", "eyJ", "db"} {
		if text := scrape(t, url); strings.Contains(text, name) {
			t.Errorf("a scrape holds %q:\n%s", name, text)
		}
	}
}

type measured struct{}

func (measured) Held() int64       { return 12 }
func (measured) Evictions() uint64 { return 34 }
func (measured) Most() int64       { return 56 }

// docs/metrics.md has every metric with its type and meaning, and every result.
func TestMetricsManual(t *testing.T) {
	manual, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := observe.NewMetrics("v1.2.3", "abc")
	startCounted(t, metrics)
	metrics.Count("prod", storetest.LayersOf(leasing{}, renewing{}))
	metrics.MeasureMemory("logins", measured{})
	metrics.Loaded("bundle")(nil)
	metrics.Probed("bundle", nil)
	metrics.MeasureReady(func() bool { return true })
	trail, err := audit.New(audit.Options{Start: audit.Start{Now: time.Now}, Sinks: []audit.Sink{audit.Stdout(io.Discard, "")}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Loaded("keymount.yaml", "", 1); err != nil {
		t.Fatal(err)
	}
	metrics.MeasureTrail(trail)
	soon := time.Unix(1_000_000, 0)
	metrics.MeasureStore("logins", observe.Sources{
		Logins:  func() (int, time.Time) { return 3, soon },
		Ends:    func() keep.Ends { return keep.Ends{Leases: 4, Lease: soon} },
		Waiting: func() int { return 5 },
	})
	metrics.MeasureVolumes(func() observe.States { return observe.States{Fresh: 7, Stale: 8, Failing: 9} })
	metrics.MeasureConfig("0123abcd")
	metrics.MeasureEvents(func() uint64 { return 11 })
	text := scrape(t, serveMetrics(t, metrics))
	if got := counted(t, text)[`keymount_audit_records_total`]; got != 1 {
		t.Errorf("the trail is said to have %v records", got)
	}
	if got := counted(t, text)[`keymount_store_memory_bytes{store="logins"}`]; got != 12 {
		t.Errorf("the store is said to take %v bytes", got)
	}
	if got := counted(t, text)[`keymount_store_evictions_total{store="logins"}`]; got != 34 {
		t.Errorf("the store is said to have forgotten %v answers", got)
	}
	if got := counted(t, text)[`keymount_store_memory_limit_bytes{store="logins"}`]; got != 56 {
		t.Errorf("the store is said to have room for %v bytes", got)
	}
	for series, want := range map[string]float64{
		`keymount_sessions{store="logins"}`: 3, `keymount_leases{store="logins"}`: 4, `keymount_queue_length{store="logins"}`: 5,
		`keymount_next_expiry_timestamp_seconds{of="login",store="logins"}`: 1e6, `keymount_next_expiry_timestamp_seconds{of="lease",store="logins"}`: 1e6,
		`keymount_volumes{state="fresh"}`: 7, `keymount_volumes{state="stale"}`: 8, `keymount_volumes{state="failing"}`: 9,
		`keymount_config_info{hash="0123abcd"}`: 1, `keymount_events_dropped_total`: 11,
		`keymount_store_up{store="bundle"}`: 1,
	} {
		if got, ok := counted(t, text)[series]; !ok || got != want {
			t.Errorf("%s is %v, %v; want %v", series, got, ok, want)
		}
	}
	found := regexp.MustCompile(`(?m)^# HELP (keymount_\w+) (.+)\n# TYPE \w+ (\w+)$`).FindAllStringSubmatch(text, -1)
	for _, m := range found {
		if row := regexp.MustCompile("(?m)^\\| `" + m[1] + "({[a-z,]+})?` \\| " + m[3] + " \\| " + regexp.QuoteMeta(m[2]) + " \\|$"); !row.Match(manual) {
			t.Errorf("the manual has no row for %s, a %s: %s", m[1], m[3], m[2])
		}
	}
	if rows := bytes.Count(manual, []byte("\n| `keymount_")); rows != len(found) || rows == 0 {
		t.Errorf("the manual has %d metrics and a scrape %d", rows, len(found))
	}
	for _, m := range regexp.MustCompile(`result="(\w+)"`).FindAllStringSubmatch(text, -1) {
		if !bytes.Contains(manual, []byte("\n| `"+m[1]+"` |")) {
			t.Errorf("the manual has no row for the result %s", m[1])
		}
	}
}

func TestMetricsInFlight(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	w, _ := startCounted(t, metrics)
	url := serveMetrics(t, metrics)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	reading, release := make(chan struct{}), make(chan struct{})
	w.memory.Behave(func(context.Context, store.Caller, store.Ref) error {
		close(reading)
		<-release
		return nil
	})
	answered := make(chan error, 1)
	v := w.volume(pod("shop", "api"), oneKey)
	go func() { answered <- w.mount(v) }()
	<-reading
	const name = "keymount_mounts_in_flight"
	if got := counted(t, scrape(t, url))[name]; got != 1 {
		t.Errorf("during a mount: %v", got)
	}
	if diff := cmp.Diff([]provider.InFlight{{Pod: pod("shop", "api"), Class: "app", First: true, Awaits: "secrets", Stores: []string{"default"}}},
		w.provider.InFlight(), cmpopts.IgnoreFields(provider.InFlight{}, "Began")); diff != "" {
		t.Errorf("during a mount (-want +got):\n%s", diff)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if all := w.provider.InFlight(); len(all) > 0 {
		t.Errorf("after it: %v", all)
	}
	if got := counted(t, scrape(t, url))[name]; got != 0 {
		t.Errorf("after it: %v", got)
	}
}

func TestMetricsServerHasOnePage(t *testing.T) {
	url := serveMetrics(t, observe.NewMetrics("v1.2.3", "abc"))
	base := strings.TrimSuffix(url, "/metrics")
	for _, c := range []struct {
		method, url string
		want        int
	}{
		{http.MethodGet, url, http.StatusOK},
		{http.MethodPost, url, http.StatusMethodNotAllowed},
		{http.MethodGet, base + "/", http.StatusNotFound},
		{http.MethodGet, base + "/debug/pprof/", http.StatusNotFound},
		{http.MethodGet, url + "/more", http.StatusNotFound},
	} {
		if got, _ := request(t, c.method, c.url); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.url, got, c.want)
		}
	}
	// What comes with client_golang is there, too.
	if text := scrape(t, url); !strings.Contains(text, "\ngo_goroutines ") || !strings.Contains(text, "\nprocess_resident_memory_bytes ") {
		t.Errorf("no metrics of Go or the process:\n%s", text)
	}
}

func TestMetricsAddressThatCannotBeHad(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	address := taken.Addr().String()
	_, err = observe.NewMetrics("v1.2.3", "abc").Listen(t.Context(), address, slog.New(slog.DiscardHandler))
	want := "metrics: listen tcp " + address + ": bind: address already in use; write a free address of this machine under metrics in keymount.yaml, or remove it"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// serveMetrics serves until the test ends, and then checks that nobody listens.
func serveMetrics(t *testing.T, metrics *observe.Metrics) (url string) {
	t.Helper()
	server, err := metrics.Listen(t.Context(), "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(ctx) }()
	address := server.Addr().String()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if connection, err := net.DialTimeout("tcp", address, time.Second); !errors.Is(err, syscall.ECONNREFUSED) { //nolint:noctx // the test's context has ended
			t.Errorf("somebody still listens: %v, %v", connection, err)
		}
	})
	return "http://" + address + "/metrics"
}

func scrape(t *testing.T, url string) string {
	t.Helper()
	code, body := request(t, http.MethodGet, url)
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, body)
	}
	return body
}

func request(t *testing.T, method, url string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

// counted are keymount's series that are not zero, without what depends on time.
func counted(t *testing.T, text string) map[string]float64 {
	t.Helper()
	series := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if !strings.HasPrefix(name, "keymount_") || strings.Contains(name, "_bucket{") || strings.Contains(name, "_seconds_sum") {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if number != 0 {
			series[name] = number
		}
	}
	return series
}
