package observe

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

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

const (
	metricsPath = "/metrics"
	livePath    = "/healthz"
	readyPath   = "/readyz"
	// scrapeLimit is more than a scrape takes, and less than scrapers wait.
	scrapeLimit = 5 * time.Second
	stopLimit   = time.Second // for scrapes under way
	// idleLimit keeps the connection of a scraper with a request every minute.
	idleLimit = 2 * time.Minute
	maxHeader = 16 << 10
	// maxScrapes bounds the cost of many scrapes at once beside the mounts.
	maxScrapes = 4
)

// Metrics counts for Prometheus the work of a provider and its stores. A pod's author can
// choose no value of a label: they are codes, results, and the stores of keymount.yaml. It
// is safe for concurrent use; a nil *Metrics counts nothing.
type Metrics struct {
	registry    *prometheus.Registry
	mounts      *prometheus.CounterVec
	phases      *prometheus.CounterVec
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
	probes      *prometheus.GaugeVec
	loads       *prometheus.CounterVec
	loaded      *prometheus.GaugeVec
	up          *prometheus.GaugeVec
	success     *prometheus.GaugeVec
	ready       func() bool // nil is always
	contacts    contacts
}

// NewMetrics makes the metrics of a process of this version and revision of keymount.
func NewMetrics(version, revision string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		mounts: counters("keymount_mounts_total",
			"Mount calls that were answered, by the gRPC code of the answer.", "code"),
		phases: counters("keymount_store_mounts_total",
			"Mount calls that wanted secrets of a store, by the gRPC code of the answer and by phase: first, while the pod cannot start, or rotation.", "store", "phase", "code"),
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
		probes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keymount_store_probe", Help: "1 for what came last of asking a store without a pod, 0 for what did not.",
		}, []string{"store", "result"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keymount_store_up", Help: "1 while a store answers, whatever it says, 0 since a request or probe without an answer.",
		}, []string{"store"}),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keymount_store_last_success_timestamp_seconds", Help: "When a store last did what it was asked for, in seconds since 1970; 0 before.",
		}, []string{"store"}),
		loads: counters("keymount_bundle_loads_total",
			"Loads of a bundle at the start and when it or its identity changed, by what came of them.", "store", "result"),
		loaded: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "keymount_bundle_loaded_timestamp_seconds", Help: "When the bundle that is in use was loaded, in seconds since 1970; 0 while there is none.",
		}, []string{"store"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keymount_build_info", Help: "1, with the version of keymount that runs.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(m.mounts, m.duration, m.inFlight, m.reads, m.reading, m.logins,
		m.leases, m.renewals, m.revocations, m.standIns, m.unattended, m.probes, m.phases, m.up, m.success, m.loads, m.loaded, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, code := range finalCodes() {
		m.mounts.WithLabelValues(code.String()) // a rate sees the first failure only when there was a zero before
	}
	return m
}

// finalCodes are those that a mount is answered with.
func finalCodes() []codes.Code {
	return []codes.Code{codes.OK, codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.FailedPrecondition, codes.Internal}
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// durations reach from an answer out of memory to the longest mount.
func durations(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25, 110},
	}
}

// Mounting counts a mount at its beginning; the returned function counts the end.
func (m *Metrics) Mounting() (ended func()) {
	if m == nil {
		return func() {}
	}
	m.inFlight.Inc()
	return m.inFlight.Dec
}

// Record counts a mount, and its stale values.
func (m *Metrics) Record(_ context.Context, mount *record.Mount) error {
	if m == nil {
		return nil
	}
	m.mounts.WithLabelValues(mount.Code.String()).Inc()
	m.duration.Observe(mount.Took.Seconds())
	m.recordPhase(mount)
	if mount.Code != codes.OK {
		return nil // nothing was delivered
	}
	for i := range mount.Reads {
		if r := &mount.Reads[i]; r.Source == record.Stale {
			m.standIns.WithLabelValues(r.Secret.Store).Inc()
		}
	}
	return nil
}

// unreplaced counts a value that ends and has no way to be replaced in its pod.
func (m *Metrics) unreplaced(store string) {
	if m != nil {
		m.unattended.WithLabelValues(store).Inc()
	}
}

// Count counts and times the requests to a store: reads, logins (a remembered one is no
// request), renewals and revocations.
func (m *Metrics) Count(name string, layers kind.Layers) kind.Layers {
	if m == nil {
		return layers
	}
	zero(m.reads, name)
	m.unasked(name)
	m.standIns.WithLabelValues(name)
	m.unattended.WithLabelValues(name)
	m.reading.WithLabelValues(name)
	counted := layers
	counted.Store = countedStore{layers.Store, name, m}
	if layers.Resolver != nil {
		counted.Resolver = countedResolver{layers.Resolver, name, m}
		if paths, ok := layers.Resolver.(store.PathRecaller); ok { // which makes no request
			counted.Resolver = countedPaths{counted.Resolver, paths}
		}
	}
	if layers.Leaser != nil {
		m.leases.WithLabelValues(name)
		zero(m.renewals, name, ofLease)
		zero(m.revocations, name, ofLease)
		counted.Leaser = countedLeaser{layers.Leaser, name, m}
	}
	if layers.Recaller != nil {
		counted.Recaller = countedRecaller{layers.Recaller, name, m}
	}
	if layers.Login != nil {
		counted.Login = m.countLogins(name, layers.Login)
	}
	return counted
}

// Memory is that of the answers of a store.
type Memory interface {
	// Held is its size in bytes, and Most the bound, which stores may have together.
	Held() int64
	Most() int64
	// Evictions counts the answers evicted for room.
	Evictions() uint64
}

// MeasureMemory shows the memory of a store.
func (m *Metrics) MeasureMemory(store string, memory Memory) {
	if m == nil {
		return
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keymount_store_memory_bytes", ConstLabels: prometheus.Labels{"store": store},
		Help: "Memory that what was read of a store takes.",
	}, func() float64 { return float64(memory.Held()) }))
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keymount_store_memory_limit_bytes", ConstLabels: prometheus.Labels{"store": store},
		Help: "Memory that what was read may take: of all stores together, or of a store with a memoryMiB of its own.",
	}, func() float64 { return float64(memory.Most()) }))
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "keymount_store_evictions_total", ConstLabels: prometheus.Labels{"store": store},
		Help: "Answers of a store that were forgotten to make room for others: the memory is full, or the share that a namespace has of it.",
	}, func() float64 { return float64(memory.Evictions()) }))
}

// MeasureTrail shows how the audit trail fares.
func (m *Metrics) MeasureTrail(trail *audit.Trail) {
	if m == nil || trail == nil {
		return
	}
	for _, c := range []struct {
		name, help string
		count      func(audit.Tally) uint64
	}{
		{"keymount_audit_records_total", "Records of the audit trail.", func(t audit.Tally) uint64 { return t.Records }},
		{"keymount_audit_lost_records_total", "Records that no trail has, or that a sink too far behind has missed.", func(t audit.Tally) uint64 { return t.Lost }},
		{"keymount_audit_write_failures_total", "Tries to write the audit trail that failed; each is repeated.", func(t audit.Tally) uint64 { return t.Failures }},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help},
			func() float64 { return float64(c.count(trail.Tally())) }))
	}
}

func (m *Metrics) countLogins(store string, method login.Method) login.Method {
	zero(m.logins, store)
	counted := countedMethod{method, store, m}
	renewer, ok := method.(login.Renewer)
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
	store.Store
	name    string
	metrics *Metrics
}

// Read implements [store.Store].
func (s countedStore) Read(ctx context.Context, caller store.Caller, ref store.Ref) (value store.Value, err error) {
	began, result := time.Now(), resultBug // unless Read returns
	defer func() {
		s.metrics.answered(s.name, result, err)
		s.metrics.reads.WithLabelValues(s.name, result).Inc()
		s.metrics.reading.WithLabelValues(s.name).Observe(time.Since(began).Seconds())
	}()
	value, err = s.Store.Read(ctx, caller, ref)
	result = resultOf(err)
	if err == nil && value.Lease != nil {
		s.metrics.leases.WithLabelValues(s.name).Inc()
	}
	return value, err
}

type countedRecaller struct {
	store.Recaller
	name    string
	metrics *Metrics
}

// Recall implements [store.Recaller]: a read that was answered at once.
func (r countedRecaller) Recall(caller store.Caller, ref store.Ref) (store.Value, bool) {
	began := time.Now()
	value, known := r.Recaller.Recall(caller, ref)
	if known {
		r.metrics.answered(r.name, resultOK, nil)
		r.metrics.reads.WithLabelValues(r.name, resultOK).Inc()
		r.metrics.reading.WithLabelValues(r.name).Observe(time.Since(began).Seconds())
	}
	return value, known
}

type countedResolver struct {
	store.Resolver
	name    string
	metrics *Metrics
}

// Resolve implements [store.Resolver]. A question about a path is no read of its own; if
// it fails, the read has failed.
func (r countedResolver) Resolve(ctx context.Context, caller store.Caller, ref store.Ref) (resolved store.Resolved, err error) {
	began, result := time.Now(), resultBug // unless Resolve returns
	defer func() {
		r.metrics.answered(r.name, result, err)
		if result != resultOK {
			r.metrics.reads.WithLabelValues(r.name, result).Inc()
			r.metrics.reading.WithLabelValues(r.name).Observe(time.Since(began).Seconds())
		}
	}()
	resolved, err = r.Resolver.Resolve(ctx, caller, ref)
	result = resultOf(err)
	return resolved, err
}

type countedPaths struct {
	store.Resolver
	store.PathRecaller
}

type countedLeaser struct {
	store.Leaser
	name    string
	metrics *Metrics
}

// Renew implements [store.Leaser].
func (l countedLeaser) Renew(ctx context.Context, caller store.Caller, lease store.Lease) (renewed store.Lease, err error) {
	l.metrics.tally(l.metrics.renewals, []string{l.name, ofLease}, func() error {
		renewed, err = l.Leaser.Renew(ctx, caller, lease)
		return err
	})
	return renewed, err
}

// Revoke implements [store.Leaser].
func (l countedLeaser) Revoke(ctx context.Context, caller store.Caller, lease store.Lease) (err error) {
	l.metrics.tally(l.metrics.revocations, []string{l.name, ofLease}, func() error {
		err = l.Leaser.Revoke(ctx, caller, lease)
		return err
	})
	return err
}

type countedMethod struct {
	method  login.Method
	store   string
	metrics *Metrics
}

func (c countedMethod) Login(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (l login.Login, err error) {
	c.metrics.tally(c.metrics.logins, []string{c.store}, func() error {
		l, err = c.method.Login(ctx, identity, token, role)
		return err
	})
	return l, err
}

type countedRenewer struct {
	countedMethod
	renewer login.Renewer
}

// Renew implements [login.Renewer].
func (c countedRenewer) Renew(ctx context.Context, identity auth.Identity, l login.Login) (renewed login.Login, err error) {
	c.metrics.tally(c.metrics.renewals, []string{c.store, ofLogin}, func() error {
		renewed, err = c.renewer.Renew(ctx, identity, l)
		return err
	})
	return renewed, err
}

// Revoke implements [login.Renewer].
func (c countedRenewer) Revoke(ctx context.Context, identity auth.Identity, l login.Login) (err error) {
	c.metrics.tally(c.metrics.revocations, []string{c.store, ofLogin}, func() error {
		err = c.renewer.Revoke(ctx, identity, l)
		return err
	})
	return err
}

// tally counts the result of ask. The first of the labels is the store.
func (m *Metrics) tally(counter *prometheus.CounterVec, labels []string, ask func() error) {
	result := resultBug // unless ask returns
	var err error
	defer func() {
		m.answered(labels[0], result, err)
		counter.WithLabelValues(slices.Concat(labels, []string{result})...).Inc()
	}()
	err = ask()
	result = resultOf(err)
}

// The results of asking a store, beside its kinds of error.
const (
	resultOK     = "ok"
	resultBug    = "bug"
	resultSilent = "unavailable"
)

func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	e, _ := errors.AsType[*store.Error](err)
	if e == nil {
		return resultBug
	}
	switch e.Reason {
	case store.NotFound:
		return "not_found"
	case store.Denied, store.Doubt: // which is a policy's denial nearly always; else a login follows
		return "denied"
	case store.Ended:
		return "session_ended"
	case store.Unavailable:
		return resultSilent
	case store.Invalid:
		return "invalid"
	}
	return resultBug
}

// zero makes every result known before it happens.
func zero(counter *prometheus.CounterVec, labels ...string) {
	known := []string{resultOK, resultBug}
	for _, reason := range []store.Reason{store.NotFound, store.Denied, store.Ended, store.Unavailable, store.Invalid} {
		known = append(known, resultOf(&store.Error{Reason: reason}))
	}
	for _, result := range known {
		counter.WithLabelValues(slices.Concat(labels, []string{result})...)
	}
}

// MetricsServer answers GET /metrics, /healthz and /readyz, and nothing else.
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
	mux.HandleFunc(http.MethodGet+" "+livePath, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc(http.MethodGet+" "+readyPath, m.answerReady)
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
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if s.http.Shutdown(late) != nil { // a scrape is too slow
		_ = s.http.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
