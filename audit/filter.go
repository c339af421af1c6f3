package audit

import (
	"cmp"
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

// Undelivered is what the outcome of a secret comes to that was granted, in a mount that failed
// for another reason or was withdrawn. No record has it.
const Undelivered Outcome = "undelivered"

// Shown is an event of a record: a secret of a mount, the mounts of one volume that a count
// sums, or the record itself.
type Shown struct {
	Secret *Secret
	Count  *Count
	// Outcome is that of the event; empty for one without.
	Outcome Outcome
	// New is what is new about an access.
	New []string
}

// Apply is what the filter lets through of a record.
func (f *Filter) Apply(e Entry, known *Novelty) []Shown {
	var all []Shown
	for i := range e.Secrets {
		if s := &e.Secrets[i]; !s.More {
			one := Shown{Secret: s, Outcome: e.outcome(s.Outcome)}
			if e.Kind == KindMount && s.Outcome == Granted && f.FirstSeen {
				one.New = known.Add(e.Record, s)
			}
			all = append(all, one)
		}
	}
	for i := range e.Counts {
		all = append(all, Shown{Count: &e.Counts[i], Outcome: Granted})
	}
	if len(all) == 0 && len(e.Secrets) == 0 { // not of files alone that the record before goes on with
		all = append(all, Shown{Outcome: e.outcome(e.Outcome)})
	}
	if !f.takes(e.Record) {
		return nil
	}
	return slices.DeleteFunc(all, func(s Shown) bool { return !f.shows(e, s) })
}

// outcome is what that of a secret, or of the record, comes to. A record of stale values names
// secrets, and decides about none.
func (e Entry) outcome(of Outcome) Outcome {
	switch {
	case e.Kind == KindStale:
		return ""
	case e.Kind == KindMount && of == Granted && !e.Delivered():
		return Undelivered
	default:
		return of
	}
}

// takes tells whether a record as a whole can be shown.
func (f *Filter) takes(r *Record) bool {
	if len(f.Kinds) > 0 && !slices.Contains(f.Kinds, r.Kind) {
		return false
	}
	at := r.At
	return (f.Since.IsZero() || at >= timeText(f.Since)) && (f.Until.IsZero() || at < timeText(f.Until))
}

func (f *Filter) shows(e Entry, s Shown) bool {
	about := cmp.Or(e.TakesBack, e.Record)
	pod, rule := podOf(about), ""
	switch {
	case s.Secret != nil:
		rule = s.Secret.Rule
	case s.Count != nil:
		pod = s.Count.Pod
	}
	return (f.Namespace == "" || pod.Namespace == f.Namespace) && (f.Pod == "" || pod.Name == f.Pod) &&
		(f.Outcome == "" || s.Outcome == f.Outcome) && (f.Rule == "" || rule == f.Rule) && (!f.FirstSeen || len(s.New) > 0) &&
		(f.Path == nil || f.ofPath(about, s))
}

func (f *Filter) ofPath(r *Record, s Shown) bool {
	switch {
	case s.Secret != nil:
		return f.Path.fits(accessOf(r, s.Secret))
	case r.Lease != nil:
		return f.Path.fits(accessOf(r, &Secret{Path: r.Lease.Path}))
	default: // those of a mount that is taken back
		return slices.ContainsFunc(r.Secrets, func(s Secret) bool { return f.Path.fits(accessOf(r, &s)) })
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
