package audit

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// walk goes over the stretches of a trail in the order of their records.
type walk struct {
	v    *verifier
	t    *trail
	seen []*stretch // so far

	at       place // of the last record
	seq      int64 // its number; none before the first
	hash     hashText
	lastHash string // of the last checkpoint
	key      string // of the next checkpoint; empty where that is not known
	number   int64  // of the last checkpoint
	unsigned int64
	tail     tail
	ended    bool
	gapped   bool // there may have been checkpoints behind the last one
	blamed   bool // the last record was found to be changed

	cut   *stretch // the first, where nothing tells what is before it
	named bool     // another trail goes on from a checkpoint of this one

	report TrailReport
}

// walk holds the stretches of a trail against each other.
func (v *verifier) walk(t *trail) *walk {
	w := &walk{v: v, t: t, seq: none, number: none}
	w.report = TrailReport{Node: t.node, Boot: t.boot, Begin: Absent}
	slices.SortStableFunc(t.stretches, func(a, b *stretch) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
	for i, s := range t.stretches {
		var next *stretch
		if i+1 < len(t.stretches) {
			next = t.stretches[i+1]
		}
		w.step(s, next)
	}
	if t.lost {
		v.problem(Reordered, w.at, t, fmt.Sprintf("has more than %d places where a record does not follow from the one before; the rest was not verified", mostStretches))
	}
	return w
}

// step goes on with a stretch. next is the one behind it, or nil.
func (w *walk) step(s, next *stretch) {
	like := w.compare(s)
	switch {
	case w.seq == none:
		w.first(s)
	case s.from > w.seq+1:
		w.gap(s)
	case s.from == w.seq+1:
		w.adjacent(s, next)
	case s.to <= w.seq:
		w.repeated(s, s.to, like)
		w.seen = append(w.seen, s)
		return
	default:
		w.repeated(s, w.seq, like)
	}
	w.advance(s)
}

// first looks at the first records that are there.
func (w *walk) first(s *stretch) {
	w.report.First = s.from
	if s.from == 0 {
		return
	}
	for _, e := range w.v.check.Expect {
		if !w.follows(s, e) {
			continue
		}
		w.number = e.Number
		if e.record != nil {
			w.key = e.record.Checkpoint.Next
			return
		}
		w.v.note(NoBegin, s.first, w.t, fmt.Sprintf("goes on from checkpoint %d, which was given by its hash: that the next one has its key is not verified; give a file that ends with its record", e.Number), s.from)
		return
	}
	w.cut = s // which is judged when all trails are known
}

// gap tells of records that are not there. A lost record behind them may explain that.
func (w *walk) gap(s *stretch) {
	from, to := w.seq+1, s.from-1
	what := fmt.Sprintf("records %d to %d are", from, to)
	if from == to {
		what = fmt.Sprintf("record %d is", from)
	}
	said, explained := "", s.lost > to-from
	if s.lost > 0 {
		said = fmt.Sprintf("; record %d, a lost record, says that %d were not written", s.from, s.lost)
	}
	switch {
	case explained && w.vouched(s):
		w.v.note(Removed, s.first, w.t, what+" missing"+said, from, to)
	case explained:
		w.v.problem(Removed, s.first, w.t, what+" missing"+said+unproven(s), from, to)
	case s.first.file == w.at.file:
		w.v.problem(Removed, s.first, w.t, what+" removed before this line"+said, from, to)
	default:
		w.v.problem(Missing, s.first, w.t, fmt.Sprintf("%s missing between %s and here: a file is missing, or the end of one%s", what, w.v.where(w.at), said), from, to)
	}
	w.order(s)
	w.gapped = true
}

// unproven says why a lost record is not believed.
func unproven(s *stretch) string {
	if s.pending == nil {
		return ", which cannot be proven: no checkpoint is behind it"
	}
	return ", which cannot be proven, since their checkpoints are missing, too"
}

// order tells of records that stand in a file before those that they follow.
func (w *walk) order(s *stretch) {
	if s.first.file == w.at.file && s.first.line < w.at.line {
		w.v.problem(Reordered, s.first, w.t, fmt.Sprintf("stands before record %d, which is in line %d: the two were swapped", w.seq, w.at.line), s.from)
	}
}

// adjacent holds two stretches against each other, the numbers of which follow.
func (w *walk) adjacent(s, next *stretch) {
	if w.ended {
		w.v.problem(Forgery, s.first, w.t, fmt.Sprintf("follows record %d, the signed end of the process", w.seq), s.from)
	}
	w.order(s)
	if string(s.prev) == string(w.hash[:]) || w.blamed {
		return
	}
	single := s.from == s.to
	switch {
	case single && next != nil && next.from == s.to+1 && !bytes.Equal(next.prev, s.hash[:]):
		w.v.problem(Changed, s.first, w.t, fmt.Sprintf("was changed: it does not name record %d as it is, and record %d does not name this one", w.seq, next.from), s.from)
		s.blamed = true
	case !single, next != nil && next.from == s.to+1, w.vouched(s):
		w.v.problem(Changed, w.at, w.t, fmt.Sprintf("was changed: record %d in %s names another one", s.from, w.v.where(s.first)), w.seq)
	default:
		w.v.problem(Changed, s.first, w.t, fmt.Sprintf("record %d or %d was changed: the second does not name the first, and nothing behind them tells which", w.seq, s.from), w.seq, s.from)
	}
}

// vouched tells whether the first checkpoint of a stretch is the next one, as it was signed:
// then all of the stretch before it is what keymount wrote.
func (w *walk) vouched(s *stretch) bool {
	return s.pending != nil && s.pending.Checkpoint.Number == w.number+1 && w.key != "" && verifySeal(s.pending, s.pendingLine, w.key) == nil
}

// differ tells of records up to a number that are others in a stretch seen before. Where they
// are one, the next record names the right one.
func (w *walk) differ(s, before *stretch, to int64) {
	switch {
	case s.from < to:
		w.v.problem(Forgery, s.first, w.t, fmt.Sprintf("records %d to %d are in %s, too, and are others there", s.from, to, w.v.where(before.first)), s.from, to)
	case s.to > to:
		w.v.problem(Forgery, before.last, w.t, fmt.Sprintf("there is another record %d in %s, which the next one names", to, w.v.where(s.first)), to)
	default:
		w.v.problem(Forgery, s.first, w.t, fmt.Sprintf("there is another record %d in the file, or in another one: see %s", to, w.v.where(before.last)), to)
	}
}

// repeated tells of records of s up to a number. In one file they are a problem; a file may be
// there twice, as before and after it was compressed.
func (w *walk) repeated(s *stretch, to int64, like likeness) {
	inFile := slices.ContainsFunc(w.seen, func(before *stretch) bool {
		return before.first.file == s.first.file && before.from <= to && before.to >= s.from
	})
	switch {
	case like == unlike: // which compare has told
	case inFile && like == alike:
		w.v.problem(Repeated, s.first, w.t, "is there twice in this file", s.from, to)
	case like == alike:
		w.v.note(Repeated, s.first, w.t, "is in another file, too, and the same there", s.from, to)
	default:
		w.v.problem(Repeated, s.first, w.t, "is in another file, too, and nothing tells whether it is the same; verify one of them without the other", s.from, to)
	}
}

func (w *walk) twoCheckpoints(s, before *stretch, c sealed) {
	w.v.problem(Forgery, s.first, w.t, fmt.Sprintf("there are two checkpoints %d of this process, here and in the records from %s on: one of the trails was written anew", c.number, w.v.where(before.first)), c.seq)
}

// sealed is the checkpoint with a number.
func (s *stretch) sealed(number int64) (sealed, bool) {
	i, found := slices.BinarySearchFunc(s.checkpoints, number, func(c sealed, number int64) int { return cmp.Compare(c.number, number) })
	if !found {
		return sealed{}, false
	}
	return s.checkpoints[i], true
}

// advance makes the end of s the last record.
func (w *walk) advance(s *stretch) {
	w.verifyPending(s)
	w.report.Records += s.to - max(s.from-1, w.seq)
	if s.begin != nil && w.report.Begin == Absent {
		w.report.Begin, w.report.Keymount = Unknown, s.begin.Keymount
	}
	w.at, w.seq, w.hash, w.ended, w.blamed = s.last, s.to, s.hash, s.ended, s.blamed
	if s.begin != nil || len(s.checkpoints) > 0 {
		w.key, w.number, w.unsigned, w.tail = s.key, s.number, s.unsigned, s.tail
	} else {
		w.tail.last = s.tail.last
		if w.unsigned == 0 {
			w.tail.first = s.tail.first
		}
		w.unsigned += s.unsigned
	}
	if len(s.checkpoints) > 0 {
		w.lastHash, w.gapped = string(s.sealedHash[:]), false
	}
	w.seen = append(w.seen, s)
}

// verifyPending verifies the first checkpoint of s with the key from the records before.
func (w *walk) verifyPending(s *stretch) {
	if s.pending == nil {
		return
	}
	number := s.pending.Checkpoint.Number
	for _, before := range w.seen {
		if slices.ContainsFunc(before.checkpoints, func(c sealed) bool { return c.number == number }) {
			return // compare has seen it
		}
	}
	switch {
	case w.key == "", w.gapped && number != w.number+1: // which was said already: something before it is missing
	case number != w.number+1:
		w.v.problem(Forgery, s.pendingAt, w.t, fmt.Sprintf("checkpoint %d follows checkpoint %d", number, w.number), s.pending.Seq)
	default:
		w.t.verifySeal(w.v, s.pendingAt, s.pending, s.pendingLine, w.key)
	}
}
