package audit

import (
	"cmp"
	"context"
	"iter"
	"slices"
)

// Entry is a record, and where it was.
type Entry struct {
	*Record

	File string
	Line int
	// Text is the canonical line.
	Text []byte
	// TakenBack says of a mount that it is withdrawn: the pod got an error.
	TakenBack bool
	// TakesBack is the mount that a record of the kind withdrawn is about, in its first part; nil
	// where that was not seen.
	TakesBack *Record
}

// Delivered tells whether the entry is a mount that the pod got its files from.
func (e Entry) Delivered() bool {
	return e.Kind == KindMount && e.Outcome == Granted && !e.TakenBack
}

// Walk calls each with the records of files, each once: those of a process in their order, and
// those of several by their times. It reads ahead, for TakenBack. It does not verify them.
// Skipped are lines without a record. It ends with the first error of each.
func (f Form) Walk(ctx context.Context, files []Source, each func(Entry) error) (skipped int64, err error) {
	held := ahead{each: each}
	skipped, err = f.walk(ctx, files, held.add)
	if ctx.Err() != nil {
		return skipped, err
	}
	if failed := held.rest(); err == nil {
		err = failed
	}
	return skipped, err
}

// walk is Walk without a look at what comes behind an entry.
func (f Form) walk(ctx context.Context, files []Source, each func(Entry) error) (skipped int64, err error) {
	m := &merger{form: f, seen: map[string]*ranges{}}
	defer m.stop()
	for _, file := range files {
		if err := m.peek(file); err != nil {
			return 0, err
		}
	}
	m.arrange()
	for ctx.Err() == nil {
		s, err := m.next()
		if s == nil || err != nil {
			return m.skipped, err
		}
		if !m.isNew(s.head) {
			continue
		}
		r, err := Read(s.head.text)
		if err != nil {
			m.skipped++
			continue
		}
		if err := each(Entry{Record: r, File: s.file.Name, Line: s.head.line, Text: s.head.text}); err != nil {
			return m.skipped, err
		}
	}
	return m.skipped, ctx.Err()
}

// merger reads files side by side. One is open from its first record to its last.
type merger struct {
	form    Form
	waiting []*stream // in the order of their first records
	open    []*stream
	seen    map[string]*ranges // by boot
	skipped int64
}

// stream is a file, and its next record.
type stream struct {
	file Source
	head found
	at   string // that of head
	boot string
	pull func() (found, bool)
	stop func()
	used bool // head was handed out
	err  error
}

// peek reads the first record of a file, and closes it where it can be opened again.
func (m *merger) peek(file Source) error {
	s, skipped := &stream{file: file}, m.skipped
	s.start(m.form)
	if ok, err := m.advance(s); err != nil || !ok {
		s.stop()
		return err
	}
	m.waiting = append(m.waiting, s)
	if !file.Once {
		s.head.text = slices.Clone(s.head.text)
		s.stop()
		s.pull, m.skipped = nil, skipped // what was skipped is read again
	}
	return nil
}

func (s *stream) start(form Form) {
	s.pull, s.stop = iter.Pull(func(yield func(found) bool) {
		s.err = form.records(s.file, func(f found) bool { return yield(f) })
	})
}

// advance goes to the next record of s; false at its end.
func (m *merger) advance(s *stream) (bool, error) {
	for {
		f, ok := s.pull()
		if !ok {
			return false, s.err
		}
		if f.err != nil || f.half {
			m.skipped++
			continue
		}
		s.head, s.at, s.boot, s.used = f, string(f.head.at), string(f.head.boot), false
		return true, nil
	}
}

// arrange sorts the files by their first records: by time, and those that begin with the same
// process by number, since clocks step back.
func (m *merger) arrange() {
	slices.SortStableFunc(m.waiting, func(a, b *stream) int { return cmp.Compare(a.at, b.at) })
	of := map[string][]int{}
	for i, s := range m.waiting {
		of[s.boot] = append(of[s.boot], i)
	}
	for _, places := range of {
		sorted := make([]*stream, len(places))
		for i, place := range places {
			sorted[i] = m.waiting[place]
		}
		slices.SortStableFunc(sorted, func(a, b *stream) int { return cmp.Compare(a.head.head.seq, b.head.head.seq) })
		for i, place := range places {
			m.waiting[place] = sorted[i]
		}
	}
}

// next is the stream with the next record; nil at the end of all.
func (m *merger) next() (*stream, error) {
	for i := 0; i < len(m.open); {
		s := m.open[i]
		ok, err := true, error(nil)
		if s.used {
			ok, err = m.advance(s)
		}
		if err != nil {
			return nil, err
		}
		if ok {
			i++
			continue
		}
		s.stop()
		m.open = slices.Delete(m.open, i, i+1)
	}
	var first *stream
	for _, s := range m.open {
		first = earlier(first, s)
	}
	if len(m.waiting) > 0 {
		first = earlier(first, m.waiting[0])
	}
	for _, s := range m.waiting {
		if s.boot == first.boot {
			first = earlier(first, s)
		}
	}
	if err := m.reopen(first); err != nil {
		return nil, err
	}
	if first != nil {
		first.used = true
	}
	return first, nil
}

// reopen goes to the first record of a file again, unless it is open.
func (m *merger) reopen(s *stream) error {
	i := slices.Index(m.waiting, s)
	if i < 0 {
		return nil
	}
	m.waiting = slices.Delete(m.waiting, i, i+1)
	m.open = append(m.open, s)
	if s.pull != nil {
		return nil
	}
	s.start(m.form)
	_, err := m.advance(s)
	return err
}

// earlier is the stream with the earlier record; the first of two with the same time.
func earlier(a, b *stream) *stream {
	switch {
	case a == nil:
		return b
	case a.boot == b.boot && b.head.head.seq < a.head.head.seq, a.boot != b.boot && b.at < a.at:
		return b
	default:
		return a
	}
}

func (m *merger) stop() {
	for _, s := range slices.Concat(m.open, m.waiting) {
		s.stop()
	}
}

// isNew is false for a record that another file has had already.
func (m *merger) isNew(f found) bool {
	seen := m.seen[string(f.head.boot)]
	if seen == nil {
		seen = new(ranges)
		m.seen[string(f.head.boot)] = seen
	}
	return seen.add(f.head.seq)
}

// ranges are numbers, most of which follow one another.
type ranges struct{ all []span }

type span struct{ from, to int64 }

// add is false for a number that is there.
func (r *ranges) add(n int64) bool {
	i, _ := slices.BinarySearchFunc(r.all, n, func(s span, n int64) int { return cmp.Compare(s.from, n+1) })
	// all[i] is the first that begins behind n
	switch {
	case i > 0 && n <= r.all[i-1].to:
		return false
	case i > 0 && n == r.all[i-1].to+1:
		r.all[i-1].to = n
		if i < len(r.all) && r.all[i].from == n+1 {
			r.all[i-1].to = r.all[i].to
			r.all = slices.Delete(r.all, i, i+1)
		}
	case i < len(r.all) && r.all[i].from == n+1:
		r.all[i].from = n
	default:
		r.all = slices.Insert(r.all, i, span{n, n})
	}
	return true
}
