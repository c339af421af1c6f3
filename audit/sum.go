package audit

import (
	"cmp"
	"maps"
	"slices"

	"github.com/keymount/keymount/record"
)

// count adds a mount that delivered the same as before to the sum of its volume.
func (t *Trail) count(key volume, m *record.Mount) {
	now := timeText(m.Began.Add(m.Took))
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := t.counts[key]
	if sum == nil {
		if len(t.counts) >= maxVolumes {
			t.sumLocked()
		}
		sum = &Count{
			Class: key.class, First: now, ServiceAccount: cut(m.Pod.ServiceAccount, maxID), Pod: *mountedPod(m),
		}
		t.counts[key] = sum
	}
	sum.Count++
	sum.Last = now
}

// sumLocked puts the sums so far into the trail.
func (t *Trail) sumLocked() {
	t.summed = t.o.Now()
	if len(t.counts) == 0 {
		return
	}
	r := Record{Kind: KindCount}
	for _, sum := range slices.SortedFunc(maps.Values(t.counts), func(a, b *Count) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Pod.UID, b.Pod.UID), cmp.Compare(a.Class, b.Class))
	}) {
		r.Counts = append(r.Counts, *sum)
	}
	if _, _, err := t.putLocked(r); err == nil { // or the next interval has them, too
		clear(t.counts)
	}
}

// sumOneLocked puts the sum of a volume into the trail, before another delivery to it: the
// order of records tells what was delivered so often.
func (t *Trail) sumOneLocked(key volume) {
	if sum := t.counts[key]; sum != nil {
		if _, _, err := t.putLocked(Record{Kind: KindCount, Counts: []Count{*sum}}); err == nil {
			delete(t.counts, key)
		}
	}
}

// tellStale records where old values begin or end to stand in for a store.
func (t *Trail) tellStale(m *record.Mount, before *delivered, now map[string]string) {
	var known map[string]string
	if before != nil {
		known = before.stale
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, already := known[name]; !already {
			t.putStale(m, &Stale{State: "begin", Store: name, Cause: cut(now[name], maxText)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if _, still := now[name]; !still {
			t.putStale(m, &Stale{State: "end", Store: name})
		}
	}
}

func (t *Trail) putStale(m *record.Mount, s *Stale) {
	r := Record{Kind: KindStale, Class: cut(m.Class, maxID), Stale: s}
	ownedBy(&r, m)
	for i := range m.Reads {
		if read := &m.Reads[i]; read.Secret.Store == s.Store && (read.Source == record.Stale || s.State == "end") {
			r.Secrets = append(r.Secrets, secretOf(read, ""))
		}
	}
	_ = t.put(r) // what is not written is counted
}
