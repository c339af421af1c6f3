package provider_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/observe"
)

// events keeps the events of pods as lines.
type events struct{ lines []string }

func (e *events) Warning(_ auth.Pod, class, reason, message string) {
	e.lines = append(e.lines, "Warning "+class+" "+reason+": "+message)
}

func (e *events) Normal(_ auth.Pod, class, reason, message string) {
	e.lines = append(e.lines, "Normal "+class+" "+reason+": "+message)
}

// The owner of a pod reads in its events that a parameter of its class has no effect.
func TestWarningOfAClassIsAnEvent(t *testing.T) {
	e := &events{}
	w, _ := startVault(t, "vault.sock", func(s *setup, _ *vaultServer) { heardBy(observe.Tell(e))(nil, s) })
	if _, _, err := w.mount(t, w.vaultVolume(vaultKey, map[string]string{"vaultSkipTLSVerify": "true"})); err != nil {
		t.Fatal(err)
	}
	want := []string{"Warning app SecretMountWarning: class app: vaultSkipTLSVerify: has no effect; the server's certificate is always verified"}
	if diff := cmp.Diff(want, e.lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
