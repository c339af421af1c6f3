package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/socket"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/queue"
)

// StatusPath is where the status socket answers, over HTTP.
const StatusPath = "/status"

// statusLimit ends a request for the status.
const statusLimit = 5 * time.Second

// Status is what a node says of itself. It has names, times and errors, and no secret.
type Status struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Config  string    `json:"config"` // SHA-256 of the keymount.yaml in force
	Started time.Time `json:"started"`
	Now     time.Time `json:"now"`
	Ready   bool      `json:"ready"`

	Stores []StoreStatus `json:"stores"`
	// InFlight are the mounts that are being answered, the longest first.
	InFlight []MountStatus `json:"inFlight"`
	// Volumes have those that fail first, then the stale ones.
	Volumes []VolumeStatus `json:"volumes"`
	// Memory is what each namespace takes of the memory that stores share, the most first.
	Memory []MemoryStatus `json:"memory"`
}

// StoreStatus is one store of keymount.yaml.
type StoreStatus struct {
	Name string `json:"name"`
	// State is "up", "out of reach", or "not asked".
	State string `json:"state"`
	// Since is the last change of State, Answered the last answer, and Succeeded the last one
	// that was what the store was asked for.
	Since     time.Time `json:"since,omitzero"`
	Answered  time.Time `json:"answered,omitzero"`
	Succeeded time.Time `json:"succeeded,omitzero"`
	Cause     string    `json:"cause,omitempty"` // of a store out of reach
	// Logins and Leases are in use, and Waiting are requests without a place.
	Logins  int `json:"logins"`
	Leases  int `json:"leases"`
	Waiting int `json:"waiting"`
	// The next ends.
	LoginEnds time.Time `json:"loginEnds,omitzero"`
	LeaseEnds time.Time `json:"leaseEnds,omitzero"`
	ValueEnds time.Time `json:"valueEnds,omitzero"`
}

// PodStatus names a pod.
type PodStatus struct {
	Namespace      string `json:"namespace"`
	Pod            string `json:"pod"`
	PodUID         string `json:"podUID"`
	ServiceAccount string `json:"serviceAccount"`
	Class          string `json:"class"`
}

// MountStatus is a mount in flight.
type MountStatus struct {
	PodStatus

	Began  time.Time `json:"began"`
	First  bool      `json:"first"`  // the pod cannot start before
	Awaits string    `json:"awaits"` // what it waits for, or does
	Stores []string  `json:"stores,omitempty"`
}

// VolumeStatus is a volume as of its last mount.
type VolumeStatus struct {
	PodStatus

	State   string            `json:"state"` // fresh, stale or failing
	Mounted time.Time         `json:"mounted"`
	Changed time.Time         `json:"changed,omitzero"`
	Files   int               `json:"files"`
	Ends    time.Time         `json:"ends,omitzero"`   // the next end of a value in it
	Stale   map[string]string `json:"stale,omitempty"` // why old values stand in, by store
	Since   time.Time         `json:"since,omitzero"`  // the first failure in a row
	Code    string            `json:"code,omitempty"`  // of a failure
	Error   string            `json:"error,omitempty"`
}

// MemoryStatus is what a namespace takes.
type MemoryStatus struct {
	Namespace string `json:"namespace"`
	Bytes     int64  `json:"bytes"`
}

// reporter gathers the status.
type reporter struct {
	base     Status // what does not change
	stores   []*storeReport
	metrics  *observe.Metrics
	memory   *keep.Pool
	ready    func() bool
	provider *provider.Provider
	lines    *observe.Log
	within   time.Duration // a volume without a mount for longer is gone
}

// goneAfter is how long, beyond the driver's interval, a volume without a mount counts as one.
const goneAfter = 10 * time.Minute

func newReporter(c *config.Config, o Options, metrics *observe.Metrics, memory *keep.Pool, ready func() bool) *reporter {
	return &reporter{
		base:    Status{Node: o.Node, Version: o.Version, Config: c.Source.SHA256, Started: time.Now()},
		metrics: metrics, memory: memory, ready: ready, lines: observe.NewLog(o.Log), within: c.Limits.RotationPollInterval + goneAfter,
	}
}

// add has the status tell of a store.
func (r *reporter) add(one *storeReport) {
	if r != nil {
		r.stores = append(r.stores, one)
	}
}

// storeReport is where the numbers of a store come from; nil for what it does not have.
type storeReport struct {
	name     string
	sessions *login.Sessions
	kept     *keep.Keeper
	places   *queue.Queue
}

// sources are the same for metrics.
func (s *storeReport) sources() observe.Sources {
	var all observe.Sources
	if s.sessions != nil {
		all.Logins = s.sessions.Live
	}
	if s.kept != nil {
		all.Ends, all.Waiting = s.kept.Ends, s.places.Waiting
	}
	return all
}

func (r *reporter) status() Status {
	s := r.base
	s.Now, s.Ready = time.Now(), r.ready()
	s.InFlight, s.Volumes, s.Memory = []MountStatus{}, []VolumeStatus{}, []MemoryStatus{}
	for _, one := range r.stores {
		s.Stores = append(s.Stores, r.storeStatus(one))
	}
	for _, m := range r.provider.InFlight() {
		s.InFlight = append(s.InFlight, MountStatus{podStatus(m.Pod, m.Class), m.Began, m.First, m.Awaits, m.Stores})
	}
	for _, v := range r.lines.Volumes(s.Now.Add(-r.within)) {
		one := VolumeStatus{
			PodStatus: podStatus(v.Pod, v.Class), State: v.State, Mounted: v.Mounted, Changed: v.Changed, Files: v.Files,
			Ends: v.Ends, Stale: v.Stale, Since: v.Since, Error: v.Error,
		}
		if v.State == observe.StateFailing {
			one.Code = v.Code.String()
		}
		s.Volumes = append(s.Volumes, one)
	}
	slices.SortFunc(s.Volumes, func(a, b VolumeStatus) int {
		return cmp.Or(cmp.Compare(urgency(a.State), urgency(b.State)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Class, b.Class))
	})
	for namespace, bytes := range r.memory.Namespaces() {
		s.Memory = append(s.Memory, MemoryStatus{namespace, bytes})
	}
	slices.SortFunc(s.Memory, func(a, b MemoryStatus) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Namespace, b.Namespace))
	})
	return s
}

func urgency(state string) int {
	return slices.Index([]string{observe.StateFailing, observe.StateStale, observe.StateFresh}, state)
}

func podStatus(pod auth.Pod, class string) PodStatus {
	return PodStatus{pod.Namespace, pod.Name, pod.UID, pod.ServiceAccount, class}
}

func (r *reporter) storeStatus(one *storeReport) StoreStatus {
	contact := r.metrics.Contact(one.name)
	s := StoreStatus{
		Name: one.name, State: "up", Since: contact.Since, Answered: contact.Answered, Succeeded: contact.Succeeded, Cause: contact.Cause,
	}
	switch {
	case contact.Since.IsZero():
		s.State = "not asked"
	case !contact.Up:
		s.State = "out of reach"
	}
	if one.sessions != nil {
		s.Logins, s.LoginEnds = one.sessions.Live()
	}
	if one.kept != nil {
		ends := one.kept.Ends()
		s.Leases, s.LeaseEnds, s.ValueEnds, s.Waiting = ends.Leases, ends.Lease, ends.Value, one.places.Waiting()
	}
	return s
}

// answering serves the status.
type answering struct {
	socket *socket.Socket
	server *http.Server
}

// listen opens the status socket. Its file is for its own user alone.
func (r *reporter) listen(ctx context.Context, path string, log *slog.Logger) (*answering, error) {
	opened, err := socket.Listen(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("statusSocket: %s: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(http.MethodGet+" "+StatusPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.status()) // or the one who asked is gone
	})
	return &answering{opened, &http.Server{
		Handler: mux, ReadTimeout: statusLimit, WriteTimeout: statusLimit, MaxHeaderBytes: 4 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}, nil
}

// run is a [part].
func (a *answering) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = a.server.Close() })()
	err := a.server.Serve(a.socket.Listener())
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, a.socket.Close())
}
