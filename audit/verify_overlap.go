package audit

import (
	"context"
	"slices"
)

// mostOverlaps bounds how many stretches of a trail are compared with each other.
const mostOverlaps = 1000

// overlap is two stretches of one trail that share records. They share the last one of inner;
// where that is the same in both, all that they share is, since each names the one before.
type overlap struct{ inner, outer *stretch }

// settled are the overlaps that are known to be the same or not.
type settled map[overlap]bool

// settle reads files again, in which the last record of an overlap has to be looked for: only
// the first and the last hash of a stretch are kept.
func (v *verifier) settle(ctx context.Context, files []Source) error {
	asked := map[int][]overlap{}
	for _, t := range v.trails {
		for _, o := range t.overlaps() {
			if !files[o.outer.first.file].Once {
				asked[o.outer.first.file] = append(asked[o.outer.first.file], o)
			}
		}
	}
	for file, overlaps := range asked {
		bySeq := map[int64][]overlap{}
		for _, o := range overlaps {
			bySeq[o.inner.to] = append(bySeq[o.inner.to], o)
		}
		err := v.check.records(files[file], func(f found) bool {
			if f.err == nil && !f.half {
				v.settleBy(f, bySeq[f.head.seq])
			}
			return ctx.Err() == nil
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (v *verifier) settleBy(f found, overlaps []overlap) {
	for _, o := range overlaps {
		if f.line >= o.outer.first.line && f.line <= o.outer.last.line && o.outer.trail.raw == string(f.head.boot) {
			v.settled[o] = Hash(f.text) == string(o.inner.hash[:])
		}
	}
}

// overlaps are those of which the stretches do not tell themselves.
func (t *trail) overlaps() []overlap {
	if len(t.stretches) > mostOverlaps {
		return nil
	}
	var all []overlap
	for i, a := range t.stretches {
		for _, b := range t.stretches[i+1:] {
			o, there := overlapOf(a, b)
			if _, known := o.tell(nil); there && !known {
				all = append(all, o)
			}
		}
	}
	return all
}

// overlapOf is false for stretches without a record in common.
func overlapOf(a, b *stretch) (overlap, bool) {
	if a.to > b.to {
		a, b = b, a
	}
	return overlap{a, b}, a.to >= b.from
}

// tell is whether the two are the same, where that is known.
func (o overlap) tell(all settled) (same, known bool) {
	switch o.inner.to {
	case o.outer.to:
		return o.inner.hash == o.outer.hash, true
	case o.outer.from:
		return o.inner.hash == o.outer.firstHash, true
	}
	same, known = all[o]
	return same, known
}

// likeness is what is known of records that are there twice.
type likeness int

const (
	unclear likeness = iota
	alike
	unlike
)

// compare holds s against the stretches that were seen before: the records in both, and the
// checkpoints with one number.
func (w *walk) compare(s *stretch) likeness {
	like := unclear
	for _, before := range w.seen {
		begins, checkpoints := w.compareBegins(s, before), w.compareCheckpoints(s, before)
		o, there := overlapOf(before, s)
		same, known := o.tell(w.v.settled)
		switch {
		case begins || checkpoints:
			like = unlike
		case there && known && !same:
			w.differ(s, before, min(s.to, before.to))
			like = unlike
		case there && (known || before.shares(s)) && like == unclear:
			like = alike
		}
	}
	return like
}

// shares tells whether there is one checkpoint in both. That says less than their last record:
// it is for a stream that cannot be read again.
func (s *stretch) shares(other *stretch) bool {
	return slices.ContainsFunc(other.checkpoints, func(c sealed) bool {
		mine, found := s.sealed(c.number)
		return found && mine == c
	})
}

// compareBegins tells of two begins, and is true where there are.
func (w *walk) compareBegins(s, before *stretch) bool {
	if s.from > 0 || before.from > 0 || s.firstHash == before.firstHash {
		return false
	}
	text := "there is another begin of this process in " + w.v.where(before.first)
	if s.begin != nil && before.begin != nil && s.begin.Key != before.begin.Key {
		text += ", with another key"
	}
	w.v.problem(Forgery, s.first, w.t, text, 0)
	return true
}

// compareCheckpoints tells of the first checkpoint that is another one in both.
func (w *walk) compareCheckpoints(s, before *stretch) bool {
	i := slices.IndexFunc(s.checkpoints, func(c sealed) bool {
		other, twice := before.sealed(c.number)
		return twice && other.hash != c.hash
	})
	if i >= 0 {
		w.twoCheckpoints(s, before, s.checkpoints[i])
	}
	return i >= 0
}
