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

// add forgets some other volume when there are too many: it is taken for a new one
// once.
func (v *volumes) add(one volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.served == nil {
		v.served = map[volume]struct{}{}
	}
	v.served[one] = struct{}{}
	for some := range v.served {
		if len(v.served) <= maxServed {
			return
		}
		delete(v.served, some)
	}
}
