package provider

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/keymount/keymount/store"
)

// Rotation sees whether the driver mounts volumes again and again. Unless it does,
// nothing that ends can be replaced in a pod that runs, and the pod looks just like one
// that is gone: what it held is forgotten. It is safe for concurrent use.
type Rotation struct {
	Metrics  *Metrics
	Recorder Recorder // nil writes no events

	volumes volumes
}

// Forgotten makes what [store.KeepOptions] of a store take: it tells a pod's owner what
// ends there when no volume of this node is mounted a second time, in an event, in log
// and in a metric. One short job, alone on its node, looks the same: so it is said what
// was seen.
func (r *Rotation) Forgotten(name string, log *slog.Logger) func(context.Context, store.Forgotten) {
	return func(ctx context.Context, f store.Forgotten) {
		quiet, yes := r.volumes.unattended(volume{f.Pod.UID, f.Class})
		if !yes {
			return
		}
		class := short(f.Class)
		message := fmt.Sprintf("secret %q of store %q %s, and no replacement can reach the pod: "+
			"no volume of this node was mounted a second time in %s; set enableSecretRotation=true (requiresRepublish of its CSIDriver) "+
			"and rotationPollInterval=0s in the driver's chart; driver.check of keymount's chart looks for both",
			f.Path, name, endOf(f), quiet.Truncate(time.Second))
		log.LogAttrs(ctx, slog.LevelWarn, "the driver does not rotate", slog.String("namespace", f.Pod.Namespace),
			slog.String("service_account", f.Pod.ServiceAccount), slog.String("pod", f.Pod.Name), slog.String("class", class), slog.String("warning", message))
		r.Metrics.unreplaced(name)
		if r.Recorder != nil {
			r.Recorder.Warning(f.Pod, class, reasonOff, "class "+class+": "+message)
		}
	}
}

func endOf(f store.Forgotten) string {
	if f.Ends.After(time.Now()) {
		return "ends at " + f.Ends.UTC().Format(time.RFC3339)
	}
	return "has ended"
}
