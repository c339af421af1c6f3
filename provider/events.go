package provider

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/auth"
)

// The reasons of events. The driver answers the kubelet with OK when a later mount
// of a running pod fails, and keeps the old files: nobody but us can tell.
const (
	reasonFailed    = "SecretMountFailed"    // a mount of a pod that this process has not served yet
	reasonStale     = "SecretRotationFailed" // a pod keeps the files it has
	reasonRecovered = "SecretMountRecovered"
	reasonWarning   = "SecretMountWarning"
	reasonOff       = "SecretRotationOff" // what a pod has ends, and the driver mounts nothing again
)

// maxTold bounds what is remembered of volumes: some thousand pods come and go
// before any is forgotten, and a forgotten one is told of once more.
const maxTold = 4096

// Recorder writes events onto pods. Those of one pod, class and reason may replace
// each other. It must not wait.
type Recorder interface {
	Warning(pod auth.Pod, class, reason, message string)
	Normal(pod auth.Pod, class, reason, message string)
}

// Tell makes an Observer that tells a pod's owner of mounts that fail, of their
// recovery, and once of what a class had better not say.
func Tell(r Recorder) Observer {
	t := &teller{recorder: r, volumes: map[volume]told{}}
	return t.observe
}

// told is what a volume's owner knows.
type told struct {
	served   bool
	failing  bool
	warnings string
}

type teller struct {
	recorder Recorder
	mu       sync.Mutex
	volumes  map[volume]told
}

func (t *teller) observe(_ context.Context, c Call) {
	if c.Pod.Name == "" || c.Pod.Namespace == "" { // the request was not even readable
		return
	}
	c.Class = short(c.Class)
	before := t.next(c)
	class := "class " + c.Class
	switch {
	case c.Code != codes.OK && before.served:
		t.recorder.Warning(c.Pod, c.Class, reasonStale, "the files stay as they are: "+class+": "+c.Message)
	case c.Code != codes.OK:
		t.recorder.Warning(c.Pod, c.Class, reasonFailed, class+": "+c.Message)
	case before.failing && before.served:
		t.recorder.Normal(c.Pod, c.Class, reasonRecovered, class+" is mounted again")
	case before.failing:
		t.recorder.Normal(c.Pod, c.Class, reasonRecovered, class+" is mounted")
	}
	if c.Code == codes.OK && len(c.Warnings) > 0 && before.warnings != warningsOf(c) {
		t.recorder.Warning(c.Pod, c.Class, reasonWarning, class+": "+warningsOf(c))
	}
}

// next remembers what c tells and returns what was known before.
func (t *teller) next(c Call) told {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := volume{c.Pod.UID, c.Class}
	before, known := t.volumes[key]
	if !known {
		makeRoom(t.volumes, maxTold)
	}
	after := told{served: before.served || c.Code == codes.OK, failing: c.Code != codes.OK, warnings: before.warnings}
	if c.Code == codes.OK {
		after.warnings = warningsOf(c)
	}
	t.volumes[key] = after
	return before
}

func warningsOf(c Call) string { return cut(strings.Join(c.Warnings, "; ")) }
