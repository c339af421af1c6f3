package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store/keep"
)

// The phases of a volume.
const (
	phaseFirst    = "first"
	phaseRotation = "rotation"
)

// recordPhase counts a mount once for each store that it reads from.
func (m *Metrics) recordPhase(mount *record.Mount) {
	phase := phaseRotation
	if mount.First {
		phase = phaseFirst
	}
	var counted []string
	for i := range mount.Reads {
		store := mount.Reads[i].Secret.Store
		if known := len(counted) > 0 && counted[len(counted)-1] == store; known {
			continue // nearly all, of a class of one store
		}
		counted = append(counted, store)
	}
	for _, store := range distinct(counted) {
		m.phases.WithLabelValues(store, phase, mount.Code.String()).Inc()
	}
}

// unasked shows a store before it is asked for anything.
func (m *Metrics) unasked(store string) {
	m.up.WithLabelValues(store).Set(1)
	m.success.WithLabelValues(store)
	for _, code := range finalCodes() {
		m.phases.WithLabelValues(store, phaseFirst, code.String())
		m.phases.WithLabelValues(store, phaseRotation, code.String())
	}
}

// answered shows what a store did last.
func (m *Metrics) answered(store, result string) {
	switch result {
	case resultBug: // which says nothing about the store
	case resultSilent:
		m.up.WithLabelValues(store).Set(0)
	default:
		m.up.WithLabelValues(store).Set(1)
	}
	if result == resultOK {
		m.success.WithLabelValues(store).Set(seconds(time.Now()))
	}
}

// seconds is a time as Prometheus has it; 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// Sources are where the numbers of one store come from. nil is none.
type Sources struct {
	// Logins is how many there are, and the next end of one.
	Logins func() (count int, next time.Time)
	// Ends are the values that end.
	Ends func() keep.Ends
	// Waiting is how many requests wait for a place.
	Waiting func() int
}

// MeasureStore shows the numbers of a store.
func (m *Metrics) MeasureStore(store string, s Sources) {
	if m == nil {
		return
	}
	if s.Logins != nil {
		m.gauge("keymount_sessions", "Logins to a store that are in use.", store, "", func() float64 { n, _ := s.Logins(); return float64(n) })
		m.expiry(store, "login", func() time.Time { _, next := s.Logins(); return next })
	}
	if s.Ends != nil {
		m.gauge("keymount_leases", "Credentials with a lease that volumes use.", store, "", func() float64 { return float64(s.Ends().Leases) })
		m.expiry(store, "lease", func() time.Time { return s.Ends().Lease })
		m.expiry(store, "value", func() time.Time { return s.Ends().Value })
	}
	if s.Waiting != nil {
		m.gauge("keymount_queue_length", "Requests to a store that wait for a place among those that it gets at a time.", store, "", func() float64 { return float64(s.Waiting()) })
	}
}

func (m *Metrics) expiry(store, of string, next func() time.Time) {
	m.gauge("keymount_next_expiry_timestamp_seconds",
		"The next end of a login, a lease, or a value (a certificate, or a password that the store rotates), in seconds since 1970; 0 for none.",
		store, of, func() float64 { return seconds(next()) })
}

func (m *Metrics) gauge(name, help, store, of string, read func() float64) {
	labels := prometheus.Labels{"store": store}
	if of != "" {
		labels["of"] = of
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// MeasureVolumes shows the states of the volumes.
func (m *Metrics) MeasureVolumes(states func() States) {
	if m == nil {
		return
	}
	for state, count := range map[string]func(States) int{
		"fresh":   func(s States) int { return s.Fresh },
		"stale":   func(s States) int { return s.Stale },
		"failing": func(s States) int { return s.Failing },
	} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "keymount_volumes", ConstLabels: prometheus.Labels{"state": state},
			Help: "Volumes that the driver mounts, by what came of the last time: fresh, stale (the last known values stand in), failing.",
		}, func() float64 { return float64(count(states())) }))
	}
}

// MeasureConfig shows which keymount.yaml is in force.
func (m *Metrics) MeasureConfig(hash string) {
	if m == nil {
		return
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keymount_config_info", Help: "1, with the SHA-256 of the keymount.yaml in force.", ConstLabels: prometheus.Labels{"hash": hash},
	})
	info.Set(1)
	m.registry.MustRegister(info)
}

// MeasureEvents counts the events that were dropped.
func (m *Metrics) MeasureEvents(dropped func() uint64) {
	if m == nil {
		return
	}
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "keymount_events_dropped_total", Help: "Events that were not written: the API server did not keep up, or refused them.",
	}, func() float64 { return float64(dropped()) }))
}
