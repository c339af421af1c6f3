package keep

import (
	"context"
	"hash/maphash"
	"log/slog"
	"maps"
	"strings"
	"time"
)

const (
	// warnEvery is the least time between two warnings.
	warnEvery = time.Hour
	// goesOn is the number of minutes with values read again that make a warning: a rollout
	// evicts once, a memory that is too small at every poll.
	goesOn = 3
	// mostEvicted bounds the remembered keys of evicted values.
	mostEvicted = 4096
)

// rereads counts values that were read again because they had been evicted for room: what pods
// mount does not fit. Evictions alone do not show that, since values of pods that are gone are
// evicted as well. It is guarded by the lock of its pool.
type rereads struct {
	bytes int64 // of the pool
	now   func() time.Time
	log   *slog.Logger // nil is none
	seed  maphash.Seed

	// keys has the hashes of evicted keys, since a time; of more than mostEvicted a sample,
	// those without a bit of others.
	keys   map[uint64]struct{}
	others uint64
	since  time.Time

	of      map[string]int // values read again, by namespace, since the last warning
	minutes int            // with any of them
	minute  time.Time      // start of the last such minute
	last    time.Time      // time of the last one
	warned  time.Time
}

func newRereads(bytes int64, now func() time.Time, log *slog.Logger) rereads {
	return rereads{bytes: bytes, now: now, log: log, seed: maphash.MakeSeed(), keys: map[uint64]struct{}{}, of: map[string]int{}}
}

func hashOf[K comparable](p *Pool, key K) uint64 { return maphash.Comparable(p.rereads.seed, key) }

// evicted remembers a key.
func (r *rereads) evicted(hash uint64) {
	if now := r.now(); passed(now, r.since, warnEvery) { // a sample of values that never come back finds nothing
		clear(r.keys)
		r.others, r.since = 0, now
	}
	if hash&r.others != 0 {
		return
	}
	r.keys[hash] = struct{}{}
	for len(r.keys) > mostEvicted {
		r.others = r.others<<1 | 1
		maps.DeleteFunc(r.keys, func(hash uint64, _ struct{}) bool { return hash&r.others != 0 })
	}
}

// read counts a value that is read for a namespace, if it was evicted before, and warns when
// that goes on.
func (r *rereads) read(namespace string, hash uint64) {
	if _, evicted := r.keys[hash]; !evicted {
		return
	}
	delete(r.keys, hash)
	now := r.now()
	if passed(now, r.last, warnEvery) {
		r.reset()
	}
	r.of[strings.Clone(namespace)] += int(r.others) + 1 //nolint:gosec // G115: there are not so many values
	r.last = now
	if passed(now, r.minute, time.Minute) {
		r.minute = now
		r.minutes++
	}
	if r.minutes >= goesOn && passed(now, r.warned, warnEvery) {
		r.warned = now
		r.warn()
		r.reset()
	}
}

// reset starts to count anew.
func (r *rereads) reset() {
	clear(r.of)
	r.minutes, r.minute = 0, time.Time{}
}

// passed tells whether so long has passed; so it has when the clock was set back.
func passed(now, since time.Time, d time.Duration) bool {
	age := now.Sub(since)
	return age < 0 || age >= d
}

// warn names the namespace with most values read again.
func (r *rereads) warn() {
	if r.log == nil {
		return
	}
	all, most := sumOfNamespaces(r.of)
	r.log.LogAttrs(context.Background(), slog.LevelWarn,
		"the memory is too small for what pods mount: values are evicted and read again; raise the memory limit of keymount, or memoryMiB if it is set",
		slog.Int64("memory_mib", r.bytes>>20), slog.Int("read_again", all), slog.String("namespace", most), slog.Int("of_namespace", r.of[most]))
}
