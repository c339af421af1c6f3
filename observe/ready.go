package observe

import (
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keymount/keymount/store"
)

// Loaded counts the loads of a bundle that is the store of that name.
func (m *Metrics) Loaded(name string) func(err error) {
	if m == nil {
		return func(error) {}
	}
	return func(err error) {
		zero(m.loads, name)
		loaded := m.loaded.WithLabelValues(name)
		m.loads.WithLabelValues(name, resultOf(err)).Inc()
		if err == nil {
			loaded.Set(float64(time.Now().UnixMilli()) / 1000)
		}
	}
}

// Probed shows what came of asking a store without a pod.
func (m *Metrics) Probed(name string, err error) {
	if m == nil {
		return
	}
	now := resultOf(err)
	m.answered(name, now, err)
	for _, result := range []string{resultOK, resultOf(store.Unavailable.Errorf("")), resultOf(store.Invalid.Errorf("")), now} {
		value := 0.0
		if result == now {
			value = 1
		}
		m.probes.WithLabelValues(name, result).Set(value)
	}
}

// MeasureReady shows what ready says, as a metric and at /readyz. It is called before
// Listen.
func (m *Metrics) MeasureReady(ready func() bool) {
	if m == nil {
		return
	}
	m.ready = ready
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "keymount_ready", Help: "1 while a rollout may go on to the next node, 0 while not; mounts are served either way.",
	}, func() float64 {
		if ready() {
			return 1
		}
		return 0
	}))
}

// answerReady names no store: anybody may ask.
func (m *Metrics) answerReady(w http.ResponseWriter, _ *http.Request) {
	if m.ready == nil || m.ready() {
		answer(w, http.StatusOK, "ready")
		return
	}
	answer(w, http.StatusServiceUnavailable, "not ready")
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // or whoever asked is gone
}
