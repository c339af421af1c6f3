package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
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
	registry    *prometheus.Registry
	mounts      *prometheus.CounterVec
	duration    prometheus.Histogram
	inFlight    prometheus.Gauge
	reads       *prometheus.CounterVec
	reading     *prometheus.HistogramVec
	logins      *prometheus.CounterVec
	leases      *prometheus.CounterVec
	renewals    *prometheus.CounterVec
	revocations *prometheus.CounterVec
	standIns    *prometheus.CounterVec
	unattended  *prometheus.CounterVec
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
		leases: counters("keymount_leases_total",
			"Credentials with a lease that a store made.", "store"),
		renewals: counters("keymount_renewals_total",
			"Renewals of logins and leases, each try counted, by what came of them.", "store", "of", "result"),
		revocations: counters("keymount_revocations_total",
			"Logins and leases that were given back since nobody needs them, each try counted, by what came of it.", "store", "of", "result"),
		standIns: counters("keymount_stale_values_total",
			"Secrets that were delivered as they were last known, because the store gave no answer.", "store"),
		unattended: counters("keymount_unattended_credentials_total",
			"Credentials, certificates and passwords that no replacement can reach, because the driver mounts no volume again.", "store"),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keymount_build_info", Help: "1, with the version of keymount that runs.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(m.mounts, m.duration, m.inFlight, m.reads, m.reading, m.logins,
		m.leases, m.renewals, m.revocations, m.standIns, m.unattended, info,
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

// unreplaced counts what ends and cannot be replaced in its pod.
func (m *Metrics) unreplaced(store string) {
	if m != nil {
		m.unattended.WithLabelValues(store).Inc()
	}
}

// CountReads counts and times the reads of a store, and what becomes of its leases.
// What it returns can do what s can.
func (m *Metrics) CountReads(name string, s store.Store) store.Store {
	if m == nil {
		return s
	}
	zero(m.reads, name)
	m.standIns.WithLabelValues(name)
	m.unattended.WithLabelValues(name)
	m.reading.WithLabelValues(name)
	if _, ok := s.(store.Leaser); ok {
		m.leases.WithLabelValues(name)
		zero(m.renewals, name, ofLease)
		zero(m.revocations, name, ofLease)
	}
	return store.Decorate(s, countedStore{store.Decorated{Store: s}, name, m})
}

// MeasureMemory shows what held says of a store.
func (m *Metrics) MeasureMemory(store string, held func() int64) {
	if m == nil {
		return
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keymount_store_memory_bytes", ConstLabels: prometheus.Labels{"store": store},
		Help: "Memory that what was read of a store takes; at its memoryMiB, secrets are read more often than refresh says.",
	}, func() float64 { return float64(held()) }))
}

// CountLogins counts the logins to a store, those that are remembered are none, and
// what becomes of them.
func (m *Metrics) CountLogins(store string, method auth.Method) auth.Method {
	if m == nil {
		return method
	}
	zero(m.logins, store)
	counted := countedMethod{method, store, m}
	renewer, ok := method.(auth.Renewer)
	if !ok {
		return counted
	}
	zero(m.renewals, store, ofLogin)
	zero(m.revocations, store, ofLogin)
	return countedRenewer{counted, renewer}
}

// What is renewed and revoked.
const (
	ofLogin = "login"
	ofLease = "lease"
)

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
	if err == nil && value.Lease != nil {
		s.metrics.leases.WithLabelValues(s.name).Inc()
	}
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

// Renew implements [store.Leaser].
func (s countedStore) Renew(ctx context.Context, session store.Session, lease store.Lease) (renewed store.Lease, err error) {
	tally(s.metrics.renewals, []string{s.name, ofLease}, func() error {
		renewed, err = s.Decorated.Renew(ctx, session, lease)
		return err
	})
	return renewed, err
}

// Revoke implements [store.Leaser].
func (s countedStore) Revoke(ctx context.Context, session store.Session, lease store.Lease) (err error) {
	tally(s.metrics.revocations, []string{s.name, ofLease}, func() error {
		err = s.Decorated.Revoke(ctx, session, lease)
		return err
	})
	return err
}

type countedMethod struct {
	method  auth.Method
	store   string
	metrics *Metrics
}

func (c countedMethod) Login(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (login auth.Login, err error) {
	tally(c.metrics.logins, []string{c.store}, func() error {
		login, err = c.method.Login(ctx, identity, token, role)
		return err
	})
	return login, err
}

type countedRenewer struct {
	countedMethod
	renewer auth.Renewer
}

// Renew implements [auth.Renewer].
func (c countedRenewer) Renew(ctx context.Context, identity auth.Identity, login auth.Login) (renewed auth.Login, err error) {
	tally(c.metrics.renewals, []string{c.store, ofLogin}, func() error {
		renewed, err = c.renewer.Renew(ctx, identity, login)
		return err
	})
	return renewed, err
}

// Revoke implements [auth.Renewer].
func (c countedRenewer) Revoke(ctx context.Context, identity auth.Identity, login auth.Login) (err error) {
	tally(c.metrics.revocations, []string{c.store, ofLogin}, func() error {
		err = c.renewer.Revoke(ctx, identity, login)
		return err
	})
	return err
}

// tally counts what comes of asking.
func tally(counter *prometheus.CounterVec, labels []string, ask func() error) {
	result := resultBug // unless ask returns
	defer func() { counter.WithLabelValues(slices.Concat(labels, []string{result})...).Inc() }()
	result = resultOf(ask())
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

// zero makes every result known before it happens.
func zero(counter *prometheus.CounterVec, labels ...string) {
	results := []string{resultOK, resultBug}
	for _, f := range failures() {
		results = append(results, f.result)
	}
	for _, result := range results {
		counter.WithLabelValues(slices.Concat(labels, []string{result})...)
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
	mux.Handle(http.MethodGet+" "+metricsPath, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes,
		DisableCompression:  true, // which would keep a mebibyte for an answer of 20 KiB
	}))
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
