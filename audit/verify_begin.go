package audit

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	// mostUnsigned is how many records a process leaves at most when it is killed.
	mostUnsigned = 256
	// longUnsigned is much more than the second for which records stay unsigned.
	longUnsigned = 10 * time.Second
	// mostLag is how many checkpoints the state file may be behind the trail: the trail is
	// written first.
	mostLag = 1
)

// join holds the trails of all processes against each other.
func (v *verifier) join() {
	walks := map[string]*walk{}
	for _, t := range v.trails {
		walks[t.boot] = v.walk(t)
	}
	order := make([]*walk, 0, len(walks))
	for _, w := range walks {
		order = append(order, w)
	}
	slices.SortFunc(order, func(a, b *walk) int {
		return cmp.Or(cmp.Compare(a.t.node, b.t.node), cmp.Compare(a.start(), b.start()), cmp.Compare(a.t.boot, b.t.boot))
	})
	heirs := map[Predecessor]*walk{}
	for _, w := range order {
		v.predecessor(w, walks, order)
		v.heir(w, heirs)
	}
	for _, e := range v.check.Expect {
		v.expect(e, order)
	}
	if len(order) == 0 {
		v.problem(Missing, place{}, nil, "there is no record in the files")
	}
	for _, w := range order {
		w.sum()
		v.front(w, order)
		v.unsigned(w)
		v.report.Trails = append(v.report.Trails, w.report)
	}
	v.sortProblems()
}

// sortProblems puts the problems into the order of the files.
func (v *verifier) sortProblems() {
	place := map[string]int{}
	for i, f := range v.report.Files {
		place[f.Name] = i
	}
	byPlace := func(a, b Problem) int {
		return cmp.Or(cmp.Compare(place[a.File], place[b.File]), cmp.Compare(a.Line, b.Line))
	}
	slices.SortStableFunc(v.report.Problems, byPlace)
	slices.SortStableFunc(v.report.Notes, byPlace)
}

// begin is the stretch with the begin, or nil.
func (w *walk) begin() *stretch {
	if len(w.t.stretches) == 0 || w.t.stretches[0].begin == nil {
		return nil
	}
	return w.t.stretches[0]
}

// start is the number of the last checkpoint before the trail; beyond all where nothing
// tells.
func (w *walk) start() int64 {
	for _, s := range w.t.stretches {
		switch {
		case s.begin != nil && s.begin.Predecessor != nil:
			return s.begin.Predecessor.Number
		case s.begin != nil:
			return 0
		case len(s.checkpoints) > 0:
			return s.checkpoints[0].number - 1
		}
	}
	return math.MaxInt64
}

// sealed is the checkpoint with a number.
func (w *walk) sealed(number int64) (sealed, bool) {
	for _, s := range w.t.stretches {
		if c, found := s.sealed(number); found {
			return c, true
		}
	}
	return sealed{}, false
}

// predecessor classes the begin of a trail.
func (v *verifier) predecessor(w *walk, walks map[string]*walk, all []*walk) {
	s := w.begin()
	if s == nil {
		return
	}
	p := s.begin.Predecessor
	if p == nil {
		v.unknown(w, s, "names no process before it: the first of a node does not, and one that lost its state")
		return
	}
	before := walks[p.Boot]
	switch {
	case v.isExpected(*p):
		w.report.Begin = AfterNone
		if before == nil {
			w.report.Begin = Unknown
			v.note(NoPrevious, s.first, w.t, fmt.Sprintf("goes on from checkpoint %d of %s, which was given", p.Number, p.Boot), 0)
			return
		}
	case before == nil && slices.ContainsFunc(all, func(other *walk) bool { return other != w && other.t.node == w.t.node && other.start() < p.Number }):
		v.problem(Missing, s.first, w.t, fmt.Sprintf("goes on from checkpoint %d of %s, which is in none of the files: a file is missing", p.Number, p.Boot), 0)
		return
	case before == nil:
		v.unknown(w, s, fmt.Sprintf("goes on from checkpoint %d of %s, which is in none of the files", p.Number, p.Boot))
		return
	}
	v.after(w, s, before, *p)
}

func (v *verifier) unknown(w *walk, s *stretch, text string) {
	if v.check.Strict {
		v.problem(NoPrevious, s.first, w.t, text, 0)
		return
	}
	v.note(NoPrevious, s.first, w.t, text, 0)
}

// after holds the checkpoint that a begin names against the trail that it is of.
func (v *verifier) after(w *walk, s *stretch, before *walk, p Predecessor) {
	c, found := before.sealed(p.Number)
	switch {
	case before.t.node != w.t.node:
		v.problem(OtherNode, s.first, w.t, fmt.Sprintf("goes on from a process of the node %q", before.t.node), 0)
	case !found && p.Number > before.number:
		v.problem(Cut, before.at, before.t, fmt.Sprintf("the trail was cut here: %s goes on from its checkpoint %d, and the last one that is there is %s", v.where(s.first), p.Number, before.numbered()), before.seq)
	case !found:
		v.note(NoPrevious, s.first, w.t, fmt.Sprintf("goes on from checkpoint %d of %s, which is missing", p.Number, p.Boot), 0)
	case p.Hash != before.hashOf(c, p.Hash):
		v.problem(Forgery, s.first, w.t, fmt.Sprintf("goes on from another checkpoint %d than that of %s: one of the trails was written anew", p.Number, p.Boot), 0)
	case before.number-p.Number > mostLag:
		v.problem(Forgery, s.first, w.t, fmt.Sprintf("goes on from checkpoint %d of %s, whose last one is %d: its checkpoints have numbers that are taken; one of the trails was made up, or the process did not find the last file", p.Number, p.Boot, before.number), 0)
	default:
		v.follows(w, s, before, p)
	}
}

// follows classes a begin that names the last checkpoint before it, or nearly so.
func (v *verifier) follows(w *walk, s *stretch, before *walk, p Predecessor) {
	before.named, w.report.Begin = true, AfterNone
	if before.ended {
		w.report.Begin = AfterEnd
	}
	if before.number > p.Number {
		v.note(NoPrevious, s.first, w.t, fmt.Sprintf("goes on from checkpoint %d of %s, and not from its last one, %d, as where that was written and audit.stateFile was not", p.Number, p.Boot, before.number), 0)
	}
}

// unsigned looks at the records behind the last checkpoint.
func (v *verifier) unsigned(w *walk) {
	took := w.tail.took()
	switch {
	case w.unsigned > mostUnsigned:
		v.problem(NotSigned, w.at, w.t, fmt.Sprintf("the last %d records are not signed, and a process leaves %d at most", w.unsigned, mostUnsigned), w.seq)
	case w.unsigned > 0 && took > longUnsigned:
		v.note(NotSigned, w.at, w.t, fmt.Sprintf("the last %d records are not signed and span %s, and a process signs each second: its clock was set, or more has happened to it", w.unsigned, took.Round(time.Second)), w.seq)
	}
}

// hashOf is the hash that a begin should name: only 16 bytes of it are kept.
func (w *walk) hashOf(c sealed, hash string) string {
	if is, err := decodeHash(hash); err == nil && is == c.hash {
		return hash
	}
	return ""
}

// heir tells of two trails that go on from the same checkpoint. One without a checkpoint
// proves nothing, and is what a process leaves that is killed in its first second.
func (v *verifier) heir(w *walk, heirs map[Predecessor]*walk) {
	s := w.begin()
	if s == nil || s.begin.Predecessor == nil || w.number == s.begin.Predecessor.Number {
		return
	}
	p := *s.begin.Predecessor
	if other := heirs[p]; other != nil {
		v.problem(Forgery, s.first, w.t, fmt.Sprintf("goes on from checkpoint %d of %s, as %s does: one of them was made up", p.Number, p.Boot, other.t.boot), 0)
		return
	}
	heirs[p] = w
}

// numbered is the last checkpoint in words.
func (w *walk) numbered() string {
	if w.lastHash == "" {
		return "none"
	}
	return fmt.Sprint(w.number)
}

// sum fills in the report of a trail.
func (w *walk) sum() {
	r := &w.report
	r.Last, r.Unsigned, r.Ended = w.seq, w.unsigned, w.ended
	seen := map[int64]bool{}
	several := len(w.t.stretches) > 1
	for _, s := range w.t.stretches {
		for _, c := range s.checkpoints {
			if several && seen[c.number] {
				continue
			}
			if several {
				seen[c.number] = true
			}
			r.Checkpoints++
		}
	}
	if r.Checkpoints > 0 {
		r.Checkpoint, r.Hash = w.number, w.lastHash
	}
}
