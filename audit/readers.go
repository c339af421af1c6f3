package audit

import (
	"cmp"
	"slices"
)

// Reader is a service account that read a secret.
type Reader struct {
	Store          string `json:"store"`
	Path           string `json:"path"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	Span
	// Undelivered are those of Times after which the pod did not get its files: another secret
	// of the mount failed, or the record of it could not be written in time.
	Undelivered int64     `json:"undelivered,omitempty"`
	Roles       []string  `json:"roles"`
	Rules       []string  `json:"rules"` // the places of those that allowed it
	Files       []string  `json:"files"`
	Pods        []PodRead `json:"pods"`
}

// Span is how often something was, and when.
type Span struct {
	Times int64  `json:"times"`
	First string `json:"first"`
	Last  string `json:"last"`
}

func (s *Span) add(times int64, first, last string) {
	s.Times += times
	if s.First == "" || first < s.First {
		s.First = first
	}
	s.Last = max(s.Last, last)
}

// PodRead is a pod that read a secret.
type PodRead struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
	Node string `json:"node"`
	Span
}

// Attempt is an access without a value.
type Attempt struct {
	Access

	Outcome Outcome `json:"outcome"`
	// By is the rules, or the store's reason.
	By string `json:"by"`
	// Rule is the nearest of the rules, and List the first list of it that does not fit.
	Rule string `json:"rule,omitempty"`
	List string `json:"list,omitempty"`
	Span
	Pods []string `json:"pods"`
}

// ByRules is By of what the rules refused.
const ByRules = "rules"

// Readers finds out what became of the secrets that a pattern fits.
type Readers struct {
	pattern  Pattern
	readers  map[readerKey]*reader
	attempts map[attemptKey]*attempt
	held     holdings[delivery]
}

type readerKey struct{ store, path, namespace, serviceAccount string }

type reader struct {
	Reader

	pods map[podKey]*PodRead
}

type podKey struct{ uid, name, node string }

type attemptKey struct {
	Access

	outcome        Outcome
	by, rule, list string
}

type attempt struct {
	Attempt

	pods map[string]bool
}

// delivery is a secret in a volume.
type delivery struct {
	reader *reader
	pod    *PodRead
}

// NewReaders knows of none yet.
func NewReaders(pattern Pattern) *Readers {
	return &Readers{pattern: pattern, readers: map[readerKey]*reader{}, attempts: map[attemptKey]*attempt{}}
}

// Add takes the record in.
func (w *Readers) Add(e Entry) {
	var delivered []delivery
	var last *reader
	for i := range e.Secrets {
		s := &e.Secrets[i]
		a := accessOf(e.Record, s)
		switch {
		case e.Kind != KindMount || s.Outcome == "" && !s.More || !w.pattern.fits(a):
			last = nil
		case s.More:
			if last == nil { // the entry before is in another part
				last = w.readers[readerKey{a.Store, a.Path, a.Namespace, a.ServiceAccount}]
			}
			last.hasFiles(s.Files)
		case s.Outcome == Granted:
			d := w.read(e, s, a)
			last = d.reader
			delivered = append(delivered, d)
		default:
			w.attempted(e.Record, s, a)
			last = nil
		}
	}
	w.held.mounted(e, delivered)
	for _, c := range e.Counts {
		for _, d := range w.held.of(c) {
			d.reader.add(c.Count, c.First, c.Last)
			d.pod.add(c.Count, c.First, c.Last)
		}
	}
}

// read takes in a secret that the pod was granted.
func (w *Readers) read(e Entry, s *Secret, a Access) delivery {
	key := readerKey{a.Store, a.Path, a.Namespace, a.ServiceAccount}
	one := w.readers[key]
	if one == nil {
		one = &reader{pods: map[podKey]*PodRead{}, Reader: Reader{Store: a.Store, Path: a.Path, Namespace: a.Namespace, ServiceAccount: a.ServiceAccount, Roles: []string{}, Rules: []string{}, Files: []string{}}}
		w.readers[key] = one
	}
	one.add(1, e.At, e.At)
	insert(&one.Roles, a.Role)
	insert(&one.Rules, s.Rule)
	one.hasFiles(s.Files)
	if !e.Delivered() {
		one.Undelivered++
	}
	name := podOf(e.Record)
	pod := one.pods[podKey{name.UID, name.Name, e.Node}]
	if pod == nil {
		pod = &PodRead{Name: name.Name, UID: name.UID, Node: e.Node}
		one.pods[podKey{name.UID, name.Name, e.Node}] = pod
	}
	pod.add(1, e.At, e.At)
	return delivery{one, pod}
}

func podOf(r *Record) Pod {
	if r.Pod == nil {
		return Pod{}
	}
	return *r.Pod
}

func (r *reader) hasFiles(files []string) {
	if r == nil {
		return
	}
	for _, file := range files {
		insert(&r.Files, file)
	}
}

// insert keeps a list sorted, each text once; the empty one is none.
func insert(list *[]string, text string) {
	if i, found := slices.BinarySearch(*list, text); !found && text != "" {
		*list = slices.Insert(*list, i, text)
	}
}

func (w *Readers) attempted(r *Record, s *Secret, a Access) {
	by := s.Reason
	if by == "" && s.Outcome == Denied {
		by = ByRules
	}
	key := attemptKey{a, s.Outcome, by, s.Rule, s.List}
	one := w.attempts[key]
	if one == nil {
		one = &attempt{pods: map[string]bool{}, Attempt: Attempt{Access: a, Outcome: s.Outcome, By: by, Rule: s.Rule, List: s.List}}
		w.attempts[key] = one
	}
	one.add(1, r.At, r.At)
	one.pods[podOf(r).Name] = true
}

// Readers are those of secrets, sorted.
func (w *Readers) Readers() []Reader {
	all := make([]Reader, 0, len(w.readers))
	for _, r := range w.readers {
		for _, pod := range r.pods {
			r.Pods = append(r.Pods, *pod)
		}
		slices.SortFunc(r.Pods, func(a, b PodRead) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Name, b.Name)) })
		all = append(all, r.Reader)
	}
	slices.SortFunc(all, func(a, b Reader) int {
		return cmp.Or(cmp.Compare(a.Store, b.Store), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ServiceAccount, b.ServiceAccount))
	})
	return all
}

// Attempts are accesses without a value, sorted.
func (w *Readers) Attempts() []Attempt {
	all := make([]Attempt, 0, len(w.attempts))
	for _, a := range w.attempts {
		a.Pods = []string{}
		for pod := range a.pods {
			insert(&a.Pods, pod)
		}
		all = append(all, a.Attempt)
	}
	slices.SortFunc(all, func(a, b Attempt) int {
		return cmp.Or(compareAccess(a.Access, b.Access), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.By, b.By), cmp.Compare(a.Rule, b.Rule))
	})
	return all
}
