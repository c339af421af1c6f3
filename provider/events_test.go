package provider_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider"
)

// recorder keeps events as lines.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Warning(pod auth.Pod, reason, message string) {
	r.add("Warning", pod, reason, message)
}

func (r *recorder) Normal(pod auth.Pod, reason, message string) {
	r.add("Normal", pod, reason, message)
}

func (r *recorder) add(parts ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pod, _ := parts[1].(auth.Pod)
	r.lines = append(r.lines, parts[0].(string)+" "+pod.Namespace+"/"+pod.Name+" "+parts[2].(string)+": "+parts[3].(string)) //nolint:forcetypeassert // by the two methods above
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

func observed(r *recorder) func(*world, *setup) {
	return func(_ *world, s *setup) { s.options.Observers = []provider.Observer{provider.Tell(r)} }
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
		{"not there yet", func() {}, []string{"Warning shop/api-0 SecretMountFailed: " + missing}},
		{"still not", func() {}, []string{"Warning shop/api-0 SecretMountFailed: " + missing}},
		{"there", func() { w.memory.Set("shop/db", secret) }, []string{"Normal shop/api-0 SecretMountRecovered: class app is mounted again"}},
		{"still there", func() {}, nil},
		{"removed", func() { w.memory.Remove("shop/db") }, []string{"Warning shop/api-0 SecretRotationFailed: the files stay as they are: " + missing}},
		{"back", func() { w.memory.Set("shop/db", secret) }, []string{"Normal shop/api-0 SecretMountRecovered: class app is mounted again"}},
	} {
		step.do()
		_, _, _ = w.mount(t, volume)
		if diff := cmp.Diff(step.want, events.take()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

// A denial is told to the pod that was denied, and to no other.
func TestEventsOfDenials(t *testing.T) {
	events := &recorder{}
	w := start(t, observed(events))
	_, _, _ = w.mount(t, w.volume(pod("blog", "web"), oneKey))
	got := events.take()
	if len(got) != 1 || !strings.HasPrefix(got[0], "Warning blog/web-0 SecretMountFailed: ") || !strings.Contains(got[0], "may not read") {
		t.Errorf("got %q", got)
	}
}

// What a class had better not say is told once, and again when it changes.
func TestEventsOfWarnings(t *testing.T) {
	events := &recorder{}
	w, _ := startVault(t, "vault.sock", func(s *setup, _ *vaultServer) { observed(events)(nil, s) })
	for range 3 {
		_, _, err := w.mount(t, w.vaultVolume(vaultKey, map[string]string{"vaultSkipTLSVerify": "true"}))
		if err != nil {
			t.Fatal(err)
		}
	}
	first := events.take()
	if len(first) != 1 || !strings.HasPrefix(first[0], "Warning shop/api-0 SecretMountWarning: class app: ") {
		t.Errorf("got %q", first)
	}
	if _, _, err := w.mount(t, w.vaultVolume(vaultKey, map[string]string{"vaultCACertPath": "/ca"})); err != nil {
		t.Fatal(err)
	}
	if second := events.take(); len(second) != 1 || second[0] == first[0] {
		t.Errorf("got %q", second)
	}
}
