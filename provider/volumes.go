package provider

import (
	"sync"
	"time"
)

const (
	// maxServed bounds how many volumes are remembered; a node has some hundred.
	maxServed = 4096
	// soon is how long a volume that is asked for again is no sign of the driver's rotation:
	// the kubelet tries again where the driver fails, and a pod may have a class twice.
	soon = 3 * time.Minute
	// trusted is how long a volume that was mounted again says that others will be, too.
	trusted = 24 * time.Hour
)

// volume is what the driver mounts again and again.
type volume struct{ pod, class string }

func volumeOf(r Request) volume { return volume{r.Pod.UID, r.Class} }

// volumes are those that were mounted. A pod whose volume is none of them cannot start
// until it is: it goes first. It is safe for concurrent use.
type volumes struct {
	mu       sync.Mutex
	served   map[volume]time.Time // when first
	quiet    time.Time            // none was mounted again since
	repeated bool                 // one was, then; or else the first of all was mounted
}

// again tells whether a volume that is asked for was mounted before.
func (v *volumes) again(one volume) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	first, ok := v.served[one]
	if ok && time.Since(first) >= soon {
		v.quiet, v.repeated = time.Now(), true
	}
	return ok
}

// add may forget another volume, which is taken for a new one once.
func (v *volumes) add(one volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.served == nil {
		v.served, v.quiet = map[volume]time.Time{}, time.Now()
	}
	if _, known := v.served[one]; !known {
		makeRoom(v.served, maxServed)
		v.served[one] = time.Now()
	}
}

// unattended tells of a volume that was not mounted for ten minutes whether that is
// because the driver mounts none of this node again, and for how long it has not.
// Where it did within a day, the volume's pod is gone.
func (v *volumes) unattended(one volume) (quiet time.Duration, yes bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, known := v.served[one]
	quiet = time.Since(v.quiet)
	return quiet, known && (!v.repeated || quiet >= trusted)
}

// makeRoom forgets any entries of a map, so that one more makes no more than most.
func makeRoom[K comparable, V any](entries map[K]V, most int) {
	for some := range entries {
		if len(entries) < most {
			return
		}
		delete(entries, some)
	}
}
