package observe

import (
	"sync"
	"time"
)

const (
	// maxServed bounds the remembered volumes; a node has some hundred.
	maxServed = 4096
	// soon is the time within which another mount of a volume proves nothing about the
	// driver's rotation: the kubelet tries again after a failure, and a pod may have a
	// class twice.
	soon = 3 * time.Minute
	// trusted is the time for which a repeated mount proves that the driver rotates.
	trusted = 24 * time.Hour
)

// volume is a class in a pod, the unit of the driver's mounts.
type volume struct{ pod, class string }

// volumes are the mounted volumes. It is safe for concurrent use.
type volumes struct {
	mu       sync.Mutex
	served   map[volume]time.Time // time of the first mount
	quiet    time.Time            // the last repeated mount, or else the first mount of all
	repeated bool                 // quiet is a repeated mount
}

// asked notes the driver's call for a volume, successful or not.
func (v *volumes) asked(one volume, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	first, ok := v.served[one]
	if ok && at.Sub(first) >= soon {
		v.quiet, v.repeated = at, true
	}
}

// add remembers a mounted volume. It may forget another one, which then counts as new
// once.
func (v *volumes) add(one volume, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.served == nil {
		v.served, v.quiet = map[volume]time.Time{}, at
	}
	if _, known := v.served[one]; !known {
		makeRoom(v.served, maxServed)
		v.served[one] = at
	}
}

// unattended is for a volume without a mount for ten minutes. It is yes if the driver
// mounts no volume of this node again; quiet is the time since a repeated mount, or since
// the first mount of all. After a repeated mount within a day it is no: the volume's own
// pod is gone.
func (v *volumes) unattended(one volume) (quiet time.Duration, yes bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, known := v.served[one]
	quiet = time.Since(v.quiet)
	return quiet, known && (!v.repeated || quiet >= trusted)
}

// makeRoom deletes any entries of a map, to leave room for one more below most.
func makeRoom[K comparable, V any](entries map[K]V, most int) {
	for some := range entries {
		if len(entries) < most {
			return
		}
		delete(entries, some)
	}
}
