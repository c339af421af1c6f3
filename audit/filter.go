package audit

import (
	"slices"
	"time"
)

// Filter says which records to show. Its empty fields ask nothing.
type Filter struct {
	Namespace, Pod string
	Path           *Pattern
	Outcome        Outcome
	Rule           string // its place
	Kinds          []Kind
	Since, Until   time.Time
	// FirstSeen asks for accesses of a sort that the trail before did not have, see [Novelty].
	FirstSeen bool
}

// Shown is an event of a record: a secret of a mount, the mounts of one volume that a count
// sums, or the record itself.
type Shown struct {
	Secret *Secret
	Count  *Count
	// New is what is new about an access.
	New []string
}

// Apply is what the filter lets through of a record.
func (f *Filter) Apply(r *Record, known *Novelty) []Shown {
	var all []Shown
	for i := range r.Secrets {
		if s := &r.Secrets[i]; !s.More {
			one := Shown{Secret: s}
			if r.Kind == KindMount && s.Outcome == Granted && f.FirstSeen {
				one.New = known.Add(r, s)
			}
			all = append(all, one)
		}
	}
	for i := range r.Counts {
		all = append(all, Shown{Count: &r.Counts[i]})
	}
	if len(all) == 0 {
		all = append(all, Shown{})
	}
	if !f.takes(r) {
		return nil
	}
	return slices.DeleteFunc(all, func(s Shown) bool { return !f.shows(r, s) })
}

// takes tells whether a record as a whole can be shown.
func (f *Filter) takes(r *Record) bool {
	if len(f.Kinds) > 0 && !slices.Contains(f.Kinds, r.Kind) {
		return false
	}
	at := r.At
	return (f.Since.IsZero() || at >= timeText(f.Since)) && (f.Until.IsZero() || at < timeText(f.Until))
}

func (f *Filter) shows(r *Record, s Shown) bool {
	pod, outcome, rule := podOf(r), r.Outcome, ""
	switch {
	case s.Secret != nil:
		outcome, rule = s.Secret.Outcome, s.Secret.Rule
	case s.Count != nil:
		pod, outcome = s.Count.Pod, Granted
	}
	return (f.Namespace == "" || pod.Namespace == f.Namespace) && (f.Pod == "" || pod.Name == f.Pod) &&
		(f.Outcome == "" || outcome == f.Outcome) && (f.Rule == "" || rule == f.Rule) && (!f.FirstSeen || len(s.New) > 0) &&
		(f.Path == nil || f.ofPath(r, s))
}

func (f *Filter) ofPath(r *Record, s Shown) bool {
	switch {
	case s.Secret != nil:
		return f.Path.fits(accessOf(r, s.Secret))
	case r.Lease != nil:
		return f.Path.fits(accessOf(r, &Secret{Path: r.Lease.Path}))
	default:
		return false
	}
}

// Novelty knows of each secret that was read: by which service accounts, on which nodes, and in
// which hours of the day, UTC.
type Novelty struct{ seen map[novel]bool }

type novel struct{ store, path, what string }

// The sorts of news about a secret.
const (
	NewServiceAccount = "account"
	NewNode           = "node"
	NewHour           = "hour"
)

// NewNovelty knows nothing: all is new.
func NewNovelty() *Novelty { return &Novelty{seen: map[novel]bool{}} }

// Add is what is new about the access.
func (n *Novelty) Add(r *Record, s *Secret) []string {
	a := accessOf(r, s)
	var news []string
	is := func(sort, what string) {
		key := novel{s.Store, s.Path, sort + " " + what}
		if !n.seen[key] {
			n.seen[key] = true
			news = append(news, sort)
		}
	}
	is(NewServiceAccount, a.Namespace+"/"+a.ServiceAccount)
	is(NewNode, r.Node)
	if len(r.At) >= len("2006-01-02T15") {
		is(NewHour, r.At[11:13])
	}
	return news
}

// Kinds are all kinds of records.
func Kinds() []Kind {
	return []Kind{
		KindBegin, KindCheckpoint, KindEnd, KindMount, KindCount, KindWithdrawn, KindLogin, KindLease, KindStale, KindConfig, KindLost,
	}
}
