package audit

import (
	"fmt"
	"strings"
)

// front tells of a trail without its begin. keymount itself leaves one, when it removes the
// oldest files: the first that is left begins right behind a checkpoint. The key of the next
// checkpoint is in the files that are gone; that checkpoint names the key of the one behind it,
// and so all is verified once there is another one.
func (v *verifier) front(w *walk, all []*walk) {
	s := w.cut
	if s == nil {
		return
	}
	text := fmt.Sprintf("the trail begins with record %d: what is before it is ", s.from)
	if why := w.notRotated(all); why != "" {
		v.problem(NoBegin, s.first, w.t, text+"missing, with the key of the first checkpoint; "+why, s.from)
		return
	}
	text += fmt.Sprintf("not among these files, as where keymount has removed its oldest ones; verified from record %d on. --expect with the checkpoint before it tells whether that is so", s.from)
	if v.check.Strict {
		v.problem(NoBegin, s.first, w.t, text, s.from)
		return
	}
	v.note(NoBegin, s.first, w.t, text, s.from)
}

// notRotated says why keymount has not left the trail as it begins, or why nothing in it can be
// verified; empty where neither is so. A front that was cut at a record like those behind a
// checkpoint looks as one that keymount has left.
func (w *walk) notRotated(all []*walk) string {
	s := w.cut
	switch {
	case !s.opens:
		return "it is not where a file begins"
	case s.within:
		return "the record before is of the same event"
	case w.start() == 0, s.from == 1:
		return "there was no checkpoint before it"
	case s.pending != nil && s.before == 0 && s.pending.Kind == KindCheckpoint:
		return "no checkpoint follows another one at once"
	case s.before > mostUnsigned:
		return fmt.Sprintf("there are %d records before the first checkpoint, and at most %d are between two", s.before, mostUnsigned)
	case w.older(all) != nil:
		return fmt.Sprintf("the older trail of %s is there: a file between the two is missing", w.older(all).t.boot)
	case w.report.Checkpoints < 2 && !w.named:
		return "no other checkpoint follows that one, which could verify it"
	default:
		return ""
	}
}

// older is another trail of the node that was before this one, by its checkpoints and by the
// time of its start: keymount removes older files first. Either alone would not do, since
// numbers begin anew where the state was lost, and clocks step back.
func (w *walk) older(all []*walk) *walk {
	for _, other := range all {
		if other != w && other.t.node == w.t.node && other.number <= w.start() && other.lastHash != "" && startOf(other.t.boot) < startOf(w.t.boot) {
			return other
		}
	}
	return nil
}

// startOf is the time in the name of a process.
func startOf(boot string) string {
	at, _, _ := strings.Cut(boot, "-")
	return at
}
