package provider

import "sync"

// maxServed bounds how many volumes are remembered; a node has some hundred.
const maxServed = 4096

// volume is what the driver mounts again and again.
type volume struct{ pod, class string }

func volumeOf(r Request) volume { return volume{r.Pod.UID, r.Class} }

// volumes are those that were mounted. A pod whose volume is none of them cannot start
// until it is: it goes first. It is safe for concurrent use.
type volumes struct {
	mu     sync.Mutex
	served map[volume]struct{}
}

func (v *volumes) has(one volume) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.served[one]
	return ok
}

// add may forget another volume, which is taken for a new one once.
func (v *volumes) add(one volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.served == nil {
		v.served = map[volume]struct{}{}
	}
	if _, known := v.served[one]; !known {
		makeRoom(v.served, maxServed)
	}
	v.served[one] = struct{}{}
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
