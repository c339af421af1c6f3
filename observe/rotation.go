package observe

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store/keep"
)

// Rotation checks that the driver mounts volumes again and again. If it does not, no value
// can be replaced in a running pod. To keymount such a pod looks like one that is gone,
// and its values are forgotten. Rotation is safe for concurrent use.
type Rotation struct {
	Metrics *Metrics
	Events  EventWriter // nil writes no events

	volumes volumes
}

// Record notes a mount.
func (r *Rotation) Record(_ context.Context, m *record.Mount) error {
	one := volume{m.Pod.UID, class.Shorten(m.Class)}
	r.volumes.asked(one, m.Began)
	if m.Err == nil {
		r.volumes.add(one, m.Began.Add(m.Took))
	}
	return nil
}

// Forgotten returns the hook Forgotten of [keep.Options], for the store called name. For a
// value about to end in a pod without a second mount, it writes an event, a line and a
// metric. A short job alone on its node looks the same as a driver without rotation, so
// the message reports the observation and not a cause.
func (r *Rotation) Forgotten(name string, log *slog.Logger) func(context.Context, keep.Forgotten) {
	return func(ctx context.Context, f keep.Forgotten) {
		className := class.Shorten(f.Class)
		quiet, yes := r.volumes.unattended(volume{f.Pod.UID, className})
		if !yes {
			return
		}
		message := fmt.Sprintf("secret %q of store %q %s, and no replacement can reach the pod: "+
			"no volume of this node was mounted a second time in %s; set enableSecretRotation=true (requiresRepublish of its CSIDriver) "+
			"and rotationPollInterval=0s in the driver's chart; driver.check of keymount's chart looks for both",
			f.Path, name, endOf(f), quiet.Truncate(time.Second))
		log.LogAttrs(ctx, slog.LevelWarn, "the driver does not rotate", slog.String("namespace", f.Pod.Namespace),
			slog.String("service_account", f.Pod.ServiceAccount), slog.String("pod", f.Pod.Name), slog.String("class", className), slog.String("warning", message))
		r.Metrics.unreplaced(name)
		if r.Events != nil {
			r.Events.Warning(f.Pod, className, reasonOff, "class "+className+": "+message)
		}
	}
}

func endOf(f keep.Forgotten) string {
	if f.Ends.After(time.Now()) {
		return "ends at " + f.Ends.UTC().Format(time.RFC3339)
	}
	return "has ended"
}
