package audit

import "slices"

// mostAhead is how many records are read before one is handed out, to see whether it is
// withdrawn: that is said within seconds, and the records of other nodes come in between.
const mostAhead = 8192

// ahead holds entries back until it is known what became of them.
type ahead struct {
	each    func(Entry) error
	waiting []*Entry
	failed  bool // each wants no more
}

// add takes an entry in, and hands out the one that has waited longest where there are many.
func (a *ahead) add(e Entry) error {
	e.Text = slices.Clone(e.Text)
	if e.Kind == KindWithdrawn && e.Withdrawn != nil {
		a.withdraw(&e)
	}
	a.waiting = append(a.waiting, &e)
	if len(a.waiting) <= mostAhead {
		return nil
	}
	return a.next()
}

// withdraw marks the mount that e takes back, in all its parts.
func (a *ahead) withdraw(e *Entry) {
	for _, m := range slices.Backward(a.waiting) {
		if m.Kind == KindMount && m.Boot == e.Boot && m.Seq-int64(max(0, m.Part-1)) == e.Withdrawn.Seq {
			m.TakenBack, e.TakesBack = true, m.Record
		}
	}
}

func (a *ahead) next() error {
	first := a.waiting[0]
	a.waiting[0] = nil // which the slice would keep
	a.waiting = a.waiting[1:]
	err := a.each(*first)
	a.failed = err != nil
	return err
}

// rest hands out what is held back.
func (a *ahead) rest() error {
	for len(a.waiting) > 0 && !a.failed {
		if err := a.next(); err != nil {
			return err
		}
	}
	return nil
}
