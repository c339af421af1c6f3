package audit

import "slices"

// mostHeld is of how many of its last mounts it is known what a volume held.
const mostHeld = 32

// holdings knows what each volume held, and since when: counts name the volume alone.
type holdings[T any] struct{ all map[volumeName][]holding[T] }

type volumeName struct{ uid, class string }

type holding[T any] struct {
	since string // the time of the mount
	what  []T
}

// mounted takes in what a mount has delivered, in all its parts. One that was not answered so
// leaves the volume as it was.
func (h *holdings[T]) mounted(e Entry, what []T) {
	if !e.Delivered() || e.Pod == nil {
		return
	}
	if h.all == nil {
		h.all = map[volumeName][]holding[T]{}
	}
	name := volumeName{e.Pod.UID, e.Class}
	held := h.all[name]
	if n := len(held); e.Part > 1 && n > 0 {
		held[n-1].what = append(held[n-1].what, what...)
		return
	}
	if len(held) == mostHeld {
		held = slices.Delete(held, 0, 1)
	}
	h.all[name] = append(held, holding[T]{e.At, what})
}

// of is what the volume held when the first of these mounts was. A count may be written behind
// a later mount of something else, up to an hour after; none is written again, so what was held
// before is forgotten.
func (h *holdings[T]) of(c Count) []T {
	name := volumeName{c.Pod.UID, c.Class}
	held := h.all[name]
	for i, last := range slices.Backward(held) {
		if last.since <= c.First {
			h.all[name] = slices.Delete(held, 0, i)
			return last.what
		}
	}
	return nil
}
