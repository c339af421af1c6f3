package store

import (
	"context"
	"time"

	"github.com/keymount/keymount/auth"
)

// Forgotten is something with an end that no mount asked for in ten minutes: nobody
// renews or replaces it any more. Its pod is gone, or is never mounted again.
type Forgotten struct {
	Pod   auth.Pod // that it was read for last
	Class string
	Path  Path      // as the class has it
	Ends  time.Time // which may be over
}

// reader is whom something with an end was read for.
type reader struct {
	pod   auth.Pod
	class string
	path  Path
}

func readerOf(session Session, path Path) *reader {
	i := session.Identity
	return &reader{auth.Pod{Namespace: i.Namespace, Name: i.PodName, UID: i.PodUID, ServiceAccount: i.ServiceAccount}, session.Class, path}
}

// sweep forgets what nobody asked for any more, and tells of what has an end.
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
