package keep

import (
	"context"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// Forgotten is a value with an end, evicted after ten minutes without a mount: it is no
// longer renewed or replaced. Its pod is gone, or never mounted again.
type Forgotten struct {
	Pod   auth.Pod // the last reader
	Class string
	Path  store.Path // as the class spells it
	Ends  time.Time  // may be in the past
}

// reader is the pod and class that read a value with an end last.
type reader struct {
	pod   auth.Pod
	class string
	path  store.Path
}

func readerOf(request login.Request, path store.Path) *reader {
	i := request.Identity
	return &reader{auth.Pod{Namespace: i.Namespace, Name: i.PodName, UID: i.PodUID, ServiceAccount: i.ServiceAccount}, request.Volume.Class, path}
}

// sweep evicts values without recent mounts, and reports those with an end.
func (k *Keeper) sweep(ctx context.Context) {
	for _, v := range k.values.sweep(k.idle()) {
		if v.reader == nil || k.o.Forgotten == nil {
			continue
		}
		ends := v.NotAfter
		if v.credential != nil {
			ends, _ = k.ends(v.credential)
		}
		k.o.Forgotten(ctx, Forgotten{Pod: v.reader.pod, Class: v.reader.class, Path: v.reader.path, Ends: ends})
	}
	k.paths.sweep(k.idle())
}
