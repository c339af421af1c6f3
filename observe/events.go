package observe

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/record"
)

// The reasons of events. The driver answers the kubelet with OK when a later mount of a
// running pod fails, and keeps the old files: only keymount can report the failure.
const (
	reasonFailed    = "SecretMountFailed"    // a mount of a pod not served yet by this process
	reasonStale     = "SecretRotationFailed" // a pod keeps the files it has
	reasonRecovered = "SecretMountRecovered"
	reasonWarning   = "SecretMountWarning"
	reasonOff       = "SecretRotationOff" // a pod's value ends, and the driver mounts nothing again
)

// maxTold bounds the remembered volumes: some thousand pods come and go before any is
// forgotten, and a forgotten one gets its event once more.
const maxTold = 4096

// EventWriter writes events onto pods. Those of one pod, class and reason may replace
// each other. It must not wait.
type EventWriter interface {
	Warning(pod auth.Pod, class, reason, message string)
	Normal(pod auth.Pod, class, reason, message string)
}

// Events inform a pod's owner of failed mounts, of their recovery, and once of the
// warnings about a class. They are safe for concurrent use.
type Events struct {
	writer  EventWriter
	mu      sync.Mutex
	volumes map[volume]told
}

// Tell makes Events to be written by w.
func Tell(w EventWriter) *Events { return &Events{writer: w, volumes: map[volume]told{}} }

// told is the state of a volume as its owner knows it.
type told struct {
	served   bool
	failing  bool
	warnings string
}

// Record tells of a mount.
func (e *Events) Record(_ context.Context, m *record.Mount) error {
	if m.Pod.Name == "" || m.Pod.Namespace == "" { // the request was not even readable
		return nil
	}
	name := class.Shorten(m.Class)
	before := e.next(volume{m.Pod.UID, name}, m)
	subject := "class " + name
	switch {
	case m.Code != codes.OK && before.served:
		e.writer.Warning(m.Pod, name, reasonStale, "the files stay as they are: "+subject+": "+m.Message)
	case m.Code != codes.OK:
		e.writer.Warning(m.Pod, name, reasonFailed, subject+": "+m.Message)
	case before.failing && before.served:
		e.writer.Normal(m.Pod, name, reasonRecovered, subject+" is mounted again")
	case before.failing:
		e.writer.Normal(m.Pod, name, reasonRecovered, subject+" is mounted")
	}
	if m.Code == codes.OK && len(m.Warnings) > 0 && before.warnings != m.Warning() {
		e.writer.Warning(m.Pod, name, reasonWarning, subject+": "+m.Warning())
	}
	return nil
}

// next remembers the owner's knowledge after m, and returns the knowledge before.
func (e *Events) next(key volume, m *record.Mount) told {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, known := e.volumes[key]
	if !known {
		makeRoom(e.volumes, maxTold)
	}
	after := told{served: before.served || m.Code == codes.OK, failing: m.Code != codes.OK, warnings: before.warnings}
	if m.Code == codes.OK {
		after.warnings = m.Warning()
	}
	e.volumes[key] = after
	return before
}
