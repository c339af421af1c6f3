package observe

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/lru"
	"github.com/keymount/keymount/record"
)

// maxRemembered bounds the memory of what volumes have, in bytes: 110 volumes of a thousand
// files take 3 MiB. A volume beyond it is taken for a new one.
const maxRemembered = 4 << 20

// changes remember what each volume has, so that a change is told from a repetition. They are
// safe for concurrent use.
type changes struct {
	mu      sync.Mutex
	seed    maphash.Seed
	volumes *lru.Cache[volume, had]
}

// had is what a volume has after its last mount.
type had struct {
	pod     auth.Pod
	changed time.Time // the last mount with other files; zero before
	ends    time.Time // the next end of a value; zero for none
	code    codes.Code
	message string            // of a failure
	failed  time.Time         // the first failure in a row
	asked   time.Time         // the last mount
	files   []seen            // in order; nil before the first
	stale   map[string]string // why old values stand in, by store; nil for none
	warning string            // without any stale value
	failing bool
}

// change is what a mount brought.
type change struct {
	first     bool              // of the volume that is remembered
	recovered bool              // the mount before had failed
	files     []string          // that are new or have changed
	removed   int               // how many are gone
	stale     map[string]string // as in had, where other stores give no answer than before; not nil for none
	warned    bool              // of something else than before
}

// none tells a mount that brought nothing.
func (c change) none() bool {
	return !c.first && !c.recovered && len(c.files) == 0 && c.removed == 0 && c.stale == nil && !c.warned
}

func newChanges() *changes {
	return &changes{seed: maphash.MakeSeed(), volumes: lru.New[volume, had](maxServed, maxRemembered)}
}

// note remembers a mount, and tells what it changed. A failed one changes nothing of what the
// volume has.
func (c *changes) note(m *record.Mount) change {
	key := volume{m.Pod.UID, class.Shorten(m.Class)}
	c.mu.Lock()
	defer c.mu.Unlock()
	before, known := c.volumes.Get(key)
	after := before
	after.pod, after.asked = m.Pod, m.Began
	if after.failing = m.Code != codes.OK; after.failing {
		after.code, after.message = m.Code, record.Within(m.Message, maxMessage)
		if !before.failing {
			after.failed = m.Began
		}
		c.add(key, after)
		return change{first: !known}
	}
	after.code, after.message, after.failed, after.ends = codes.OK, "", time.Time{}, nextEnd(m)
	after.files = c.hashes(m.Delivered)
	news := change{first: !known || before.files == nil, recovered: before.failing}
	if !news.first {
		news.files, news.removed = between(before.files, after.files, m.Delivered)
	}
	if news.first || len(news.files) > 0 || news.removed > 0 {
		after.changed = m.Began
	}
	if after.stale = m.Stale(); !sameKeys(before.stale, after.stale) {
		news.stale = maps.Clone(after.stale)
		if news.stale == nil {
			news.stale = map[string]string{}
		}
	}
	if after.stale == nil { // or else the warning is about that, too
		after.warning = m.Warning()
		news.warned = after.warning != before.warning && after.warning != ""
	}
	c.add(key, after)
	return news
}

// maxMessage bounds the text of a failure, in bytes: all of it is in the log.
const maxMessage = 512

func nextEnd(m *record.Mount) (next time.Time) {
	for i := range m.Reads {
		if ends := m.Reads[i].Ends; !ends.IsZero() && (next.IsZero() || ends.Before(next)) {
			next = ends
		}
	}
	return next
}

// Volume is the state of a volume as of its last mount.
type Volume struct {
	Pod     auth.Pod
	Class   string
	State   string    // fresh, stale or failing
	Mounted time.Time // the last mount, whatever came of it
	Changed time.Time // the last mount that brought other files; zero before
	Files   int
	Ends    time.Time         // the next end of a value in it; zero for none
	Stale   map[string]string // why old values stand in, by store
	Code    codes.Code
	Error   string    // of a failure, maybe cut
	Since   time.Time // the first failure in a row; zero for none
}

// The states of a volume.
const (
	StateFresh   = "fresh"
	StateStale   = "stale"
	StateFailing = "failing"
)

func (h had) state() string {
	switch {
	case h.failing:
		return StateFailing
	case h.stale != nil:
		return StateStale
	}
	return StateFresh
}

// list has the volumes with a mount since a time.
func (c *changes) list(since time.Time) (all []Volume) {
	c.each(since, func(key volume, h had) {
		all = append(all, Volume{
			Pod: h.pod, Class: key.class, State: h.state(), Mounted: h.asked, Changed: h.changed, Files: len(h.files), Ends: h.ends,
			Stale: h.stale, Code: h.code, Error: h.message, Since: h.failed,
		})
	})
	return all
}

// each calls f with the lock held, and forgets the volumes without a mount since a time: their
// pods are gone.
func (c *changes) each(since time.Time, f func(volume, had)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.volumes.RemoveFunc(func(key volume, h had) (gone bool) {
		if gone = h.asked.Before(since); !gone {
			f(key, h)
		}
		return gone
	})
}

// States are the numbers of volumes, by what came of their last mounts.
type States struct{ Fresh, Stale, Failing int }

func (c *changes) add(key volume, h had) {
	const own, text = 256, 64
	held := own + 16*len(h.files) + len(h.warning) + len(h.message) + len(key.pod) + len(key.class) + len(h.pod.Namespace) + len(h.pod.Name) + len(h.pod.ServiceAccount)
	for store, cause := range h.stale {
		held += text + len(store) + len(cause)
	}
	c.volumes.Add(key, h, int64(held))
}

// seen is a file as hashes, which tell two apart and betray neither.
type seen struct{ path, version uint64 }

func (c *changes) hashes(files []record.File) []seen {
	all := make([]seen, len(files))
	for i, f := range files {
		all[i] = seen{maphash.String(c.seed, f.Path), maphash.String(c.seed, f.Version)}
	}
	return all
}

// between finds the files that are new or have changed, and how many are gone.
func between(before, after []seen, files []record.File) (changed []string, removed int) {
	if slices.Equal(before, after) {
		return nil, 0
	}
	versions := make(map[uint64]uint64, len(before))
	for _, one := range before {
		versions[one.path] = one.version
	}
	for i, one := range after {
		if version, known := versions[one.path]; !known || version != one.version {
			changed = append(changed, files[i].Path)
		}
		delete(versions, one.path)
	}
	return changed, len(versions)
}

// sameKeys leaves out the causes, which have times in them.
func sameKeys(a, b map[string]string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(slices.Collect(maps.Keys(a)), func(key string) bool { _, ok := b[key]; return !ok })
}
