package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

const (
	metricsPath = "/metrics"
	// scrapeLimit is more than a scrape takes, and less than scrapers wait.
	scrapeLimit = 5 * time.Second
	// idleLimit keeps the connection of a scraper that comes every minute.
	idleLimit = 2 * time.Minute
	maxHeader = 16 << 10
	// maxScrapes bounds what a storm of them may cost beside the mounts.
	maxScrapes = 4
)

// Metrics counts for Prometheus what a provider does. No label has a value that a
// pod's author could choose: codes, results, and the stores of keymount.yaml. It
// is safe for concurrent use; a nil *Metrics counts nothing.
type Metrics struct {
	registry *prometheus.Registry
	mounts   *prometheus.CounterVec
	duration prometheus.Histogram
	inFlight prometheus.Gauge
	reads    *prometheus.CounterVec
	reading  *prometheus.HistogramVec
	logins   *prometheus.CounterVec
	standIns *prometheus.CounterVec
}

// NewMetrics makes the metrics of a process that is this version and revision of
// keymount.
func NewMetrics(version, revision string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		mounts: counters("keymount_mounts_total",
			"Mount calls that were answered, by the gRPC code of the answer.", "code"),
		duration: prometheus.NewHistogram(durations("keymount_mount_duration_seconds",
			"How long Mount calls took.")),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keymount_mounts_in_flight", Help: "Mount calls that are being answered now.",
		}),
		reads: counters("keymount_store_reads_total",
			"Secrets that a store was asked for, each try counted, by what came of it.", "store", "result"),
		reading: prometheus.NewHistogramVec(durations("keymount_store_read_duration_seconds",
			"How long a store took to answer or to fail."), []string{"store"}),
		logins: counters("keymount_logins_total",
			"Logins to a store, by what came of them. Pods share logins, so there are fewer than mounts.", "store", "result"),
		standIns: counters("keymount_stale_values_total",
			"Secrets that were delivered as they were last known, because the store gave no answer.", "store"),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keymount_build_info", Help: "1, with the version of keymount that runs.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(m.mounts, m.duration, m.inFlight, m.reads, m.reading, m.logins, m.standIns, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, code := range []codes.Code{
		codes.OK, codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.FailedPrecondition, codes.Internal,
	} {
		m.mounts.WithLabelValues(code.String()) // a rate sees the first failure only when there was a zero before
	}
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// durations reach from what is answered from memory to the longest mount.
func durations(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25, 110},
	}
}

// mounting counts a mount that has begun; its result counts the end.
func (m *Metrics) mounting() (ended func()) {
	if m == nil {
		return func() {}
	}
	m.inFlight.Inc()
	return m.inFlight.Dec
}

// observe is an [Observer].
func (m *Metrics) observe(_ context.Context, c Call) {
	m.mounts.WithLabelValues(c.Code.String()).Inc()
	m.duration.Observe(c.Took.Seconds())
}

// standIn counts a value that stands in for one that a store did not give.
func (m *Metrics) standIn(store string) {
	if m != nil {
		m.standIns.WithLabelValues(store).Inc()
	}
}

// CountReads counts and times the reads of a store. What it returns can do what s can.
func (m *Metrics) CountReads(name string, s store.Store) store.Store {
	if m == nil {
		return s
	}
	zero(m.reads, name)
	m.standIns.WithLabelValues(name)
	m.reading.WithLabelValues(name)
	return store.Decorate(s, countedStore{store.Decorated{Store: s}, name, m})
}

// CountLogins counts the logins to a store; those that are remembered are none.
func (m *Metrics) CountLogins(store string, method auth.Method) auth.Method {
	if m == nil {
		return method
	}
	zero(m.logins, store)
	counted := countedMethod{method, store, m.logins}
	if renewer, ok := method.(auth.Renewer); ok {
		return struct {
			countedMethod
			auth.Renewer
		}{counted, renewer}
	}
	return counted
}

type countedStore struct {
	store.Decorated
	name    string
	metrics *Metrics
}

// Read implements [store.Store].
func (s countedStore) Read(ctx context.Context, session store.Session, ref store.Ref) (value store.Value, err error) {
	began, result := time.Now(), resultBug // unless Read returns
	defer func() {
		s.metrics.reads.WithLabelValues(s.name, result).Inc()
		s.metrics.reading.WithLabelValues(s.name).Observe(time.Since(began).Seconds())
	}()
	value, err = s.Store.Read(ctx, session, ref)
	result = resultOf(err)
	return value, err
}

// Resolve implements [store.Resolver]. What a path is has to be asked first; that is
// no read, but the end of one if it fails.
func (s countedStore) Resolve(ctx context.Context, session store.Session, ref store.Ref) (store.Resolved, error) {
	began, result := time.Now(), resultBug // unless Resolve returns
	defer func() {
		if result != resultOK {
			s.metrics.reads.WithLabelValues(s.name, result).Inc()
			s.metrics.reading.WithLabelValues(s.name).Observe(time.Since(began).Seconds())
		}
	}()
	resolved, err := s.Decorated.Resolve(ctx, session, ref)
	result = resultOf(err)
	return resolved, err
}

type countedMethod struct {
	method auth.Method
	store  string
	logins *prometheus.CounterVec
}

func (c countedMethod) Login(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (login auth.Login, err error) {
	result := resultBug // unless Login returns
	defer func() { c.logins.WithLabelValues(c.store, result).Inc() }()
	login, err = c.method.Login(ctx, identity, token, role)
	result = resultOf(err)
	return login, err
}

// The results of asking a store, beside its kinds of error.
const (
	resultOK  = "ok"
	resultBug = "bug"
)

// failure is a kind of error and the result that it is counted as.
type failure struct {
	kind   error
	result string
}

func failures() []failure {
	return []failure{
		{store.ErrNotFound, "not_found"},
		{store.ErrDenied, "denied"},
		{store.ErrDoubt, "denied"}, // a policy's denial nearly always; the other case is a login that follows
		{store.ErrSession, "session_ended"},
		{store.ErrUnavailable, "unavailable"},
		{store.ErrInvalid, "invalid"},
	}
}

func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	for _, f := range failures() {
		if errors.Is(err, f.kind) {
			return f.result
		}
	}
	return resultBug
}

// zero makes every result of a store known before it happens.
func zero(counter *prometheus.CounterVec, store string) {
	counter.WithLabelValues(store, resultOK)
	counter.WithLabelValues(store, resultBug)
	for _, f := range failures() {
		counter.WithLabelValues(store, f.result)
	}
}

// MetricsServer answers GET /metrics, and nothing else.
type MetricsServer struct {
	http     *http.Server
	listener net.Listener
}

// Listen opens an address, host:port, for Prometheus. Scrapes are answered once
// Run is called; until then they wait.
func (m *Metrics) Listen(ctx context.Context, address string, log *slog.Logger) (*MetricsServer, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w; write a free address of this machine under metrics in keymount.yaml, or remove it", err)
	}
	mux := http.NewServeMux()
	mux.Handle(http.MethodGet+" "+metricsPath, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}))
	return &MetricsServer{listener: listener, http: &http.Server{
		Handler: mux, ReadTimeout: scrapeLimit, WriteTimeout: scrapeLimit, IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}, nil
}

// Addr is where it listens.
func (s *MetricsServer) Addr() net.Addr { return s.listener.Addr() }

// Run answers until ctx ends, then lets the scrapes under way finish.
func (s *MetricsServer) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("metrics: %w", err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), scrapeLimit)
	defer cancel()
	if err := s.http.Shutdown(late); err != nil {
		return fmt.Errorf("metrics: stop: %w", errors.Join(err, s.http.Close(), <-failed))
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
