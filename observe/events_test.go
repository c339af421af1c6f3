package observe_test

import (
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/record"
)

// recorder keeps events as lines.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Warning(pod auth.Pod, class, reason, message string) {
	r.add("Warning", pod, class, reason, message)
}

func (r *recorder) Normal(pod auth.Pod, class, reason, message string) {
	r.add("Normal", pod, class, reason, message)
}

func (r *recorder) add(kind string, pod auth.Pod, class, reason, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, kind+" "+pod.Namespace+"/"+pod.Name+" "+class+" "+reason+": "+message)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

func observed(r *recorder) func(*world, *provider.Options) {
	return func(_ *world, o *provider.Options) { o.Recorders = []provider.Recorder{observe.Tell(r)} }
}

// The story of a pod whose secret comes, goes, and comes back.
func TestEvents(t *testing.T) {
	events := &recorder{}
	w := start(t, observed(events))
	volume := w.volume(pod("shop", "api"), oneKey)
	secret := map[string]any{"password": canary}
	const missing = `objects[0]: secret "shop/db" of store "default": not found: no secret at "shop/db"`
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"not there yet", func() {}, []string{"Warning shop/api-0 app SecretMountFailed: class app: " + missing}},
		{"still not", func() {}, []string{"Warning shop/api-0 app SecretMountFailed: class app: " + missing}},
		{"there", func() { w.memory.Set("shop/db", secret) }, []string{"Normal shop/api-0 app SecretMountRecovered: class app is mounted"}},
		{"still there", func() {}, nil},
		{"removed", func() { w.memory.Remove("shop/db") }, []string{"Warning shop/api-0 app SecretRotationFailed: the files stay as they are: class app: " + missing}},
		{"back", func() { w.memory.Set("shop/db", secret) }, []string{"Normal shop/api-0 app SecretMountRecovered: class app is mounted again"}},
	} {
		step.do()
		_ = w.mount(volume)
		if diff := cmp.Diff(step.want, events.take()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

// Two classes of a pod come and go each for itself, and each event names its own.
func TestEventsOfTwoClasses(t *testing.T) {
	events := &recorder{}
	w := start(t, observed(events))
	w.memory.Set("shop/db", map[string]any{"password": canary})
	app := w.volume(pod("shop", "api"), oneKey)
	tls := w.volume(pod("shop", "api"), "[{path: shop/none, key: a, file: a}]")
	tls.Class = "tls"
	for range 2 {
		_ = w.mount(tls)
		_ = w.mount(app)
	}
	w.memory.Set("shop/none", map[string]any{"a": canary})
	_ = w.mount(app)
	_ = w.mount(tls)
	const failed = `Warning shop/api-0 tls SecretMountFailed: class tls: objects[0]: secret "shop/none" of store "default": not found: no secret at "shop/none"`
	if diff := cmp.Diff([]string{failed, failed, "Normal shop/api-0 tls SecretMountRecovered: class tls is mounted"}, events.take()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// What is remembered of volumes is bounded: beyond it some are told again of what
// they know already, and only some.
func TestEventsForget(t *testing.T) {
	const bound = 4096
	for volumes, most := range map[int]int{bound: 0, bound + 1: bound / 2, 2 * bound: 2 * bound} {
		events := &recorder{}
		told := observe.Tell(events)
		again := func() int {
			for n := range volumes {
				p := auth.Pod{Namespace: "shop", Name: "api-0", UID: strconv.Itoa(n)}
				if err := told.Record(t.Context(), &record.Mount{Pod: p, Class: "app", Warnings: []string{"skips TLS"}}); err != nil {
					t.Fatal(err)
				}
			}
			return len(events.take())
		}
		if got := again(); got != volumes {
			t.Errorf("%d of %d are told", got, volumes)
		}
		if got := again(); got < volumes-bound || got > most {
			t.Errorf("%d of %d are told again", got, volumes)
		}
	}
}

// A denial is told to the pod that was denied, and to no other.
func TestEventsOfDenials(t *testing.T) {
	events := &recorder{}
	w := start(t, observed(events))
	_ = w.mount(w.volume(pod("blog", "web"), oneKey))
	got := events.take()
	if len(got) != 1 || !strings.HasPrefix(got[0], "Warning blog/web-0 app SecretMountFailed: class app: ") || !strings.Contains(got[0], "may not read") {
		t.Errorf("got %q", got)
	}
}

// What a class had better not say is told once, and again when it changes.
func TestEventsOfWarnings(t *testing.T) {
	events := &recorder{}
	told := observe.Tell(events)
	warned := func(warnings ...string) []string {
		if err := told.Record(t.Context(), &record.Mount{Pod: pod("shop", "api"), Class: "app", Warnings: warnings}); err != nil {
			t.Fatal(err)
		}
		return events.take()
	}
	for _, step := range []struct{ warnings, want []string }{
		{[]string{"skips TLS", "no CA"}, []string{"Warning shop/api-0 app SecretMountWarning: class app: skips TLS; no CA"}},
		{[]string{"skips TLS", "no CA"}, nil},
		{[]string{"no CA"}, []string{"Warning shop/api-0 app SecretMountWarning: class app: no CA"}},
		{nil, nil},
		{[]string{"no CA"}, []string{"Warning shop/api-0 app SecretMountWarning: class app: no CA"}},
	} {
		if diff := cmp.Diff(step.want, warned(step.warnings...)); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", step.warnings, diff)
		}
	}
}
