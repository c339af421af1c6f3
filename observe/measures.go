package observe

import (
	"sync"
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
func (m *Metrics) answered(store, result string, err error) {
	if result == resultBug { // which says nothing about the store
		return
	}
	now := time.Now()
	m.contacts.note(store, result, err, now)
	up := 1.0
	if result == resultSilent {
		up = 0
	}
	m.up.WithLabelValues(store).Set(up)
	if result == resultOK {
		m.success.WithLabelValues(store).Set(seconds(now))
	}
}

// Contact is what is known of a store.
type Contact struct {
	// Up is false since a request or probe without an answer, and Cause says why that was.
	Up    bool
	Cause string
	// Since is the last change of Up, Answered the last answer, and Succeeded the last one that
	// was what the store was asked for; zero before the first.
	Since, Answered, Succeeded time.Time
}

// contacts are those of all stores. They are safe for concurrent use.
type contacts struct {
	mu  sync.Mutex
	all map[string]Contact
}

func (c *contacts) note(store, result string, err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]Contact{}
	}
	one := c.all[store]
	if up := result != resultSilent; up != one.Up || one.Since.IsZero() {
		one.Up, one.Since, one.Cause = up, now, ""
	}
	switch {
	case !one.Up && err != nil:
		one.Cause = record.Within(err.Error(), maxMessage)
	case one.Up:
		one.Answered = now
	}
	if result == resultOK {
		one.Succeeded = now
	}
	c.all[store] = one
}

// Contact is what is known of a store; the zero Contact before it is asked.
func (m *Metrics) Contact(store string) Contact {
	m.contacts.mu.Lock()
	defer m.contacts.mu.Unlock()
	return m.contacts.all[store]
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
		StateFresh:   func(s States) int { return s.Fresh },
		StateStale:   func(s States) int { return s.Stale },
		StateFailing: func(s States) int { return s.Failing },
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
