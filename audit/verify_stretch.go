package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"
)

// trail is the records of one process, wherever they are.
type trail struct {
	raw, rawNode string // as the records spell boot and node
	boot, node   string
	stretches    []*stretch
	current      *stretch // that of the file being read; nil before its first
	lost         bool     // there are more stretches than can be held
}

// mostStretches bounds the memory for a trail that was shuffled.
const mostStretches = 20_000

// hashText is a hash as prev has it: of 32 bytes in base64url, without padding.
type hashText [43]byte

// stretch is records of one process in one file, each of which follows from the one before.
type stretch struct {
	trail       *trail
	first, last place
	from, to    int64 // seq
	prev        []byte
	firstHash   hashText
	hash        hashText // of the last record
	begin       *Begin   // where it is the first
	checkpoints []sealed // in their order
	key         string   // of the next checkpoint; empty where that is not known
	number      int64    // of the last checkpoint, or of the one before the begin; none where not known
	sealedHash  hashText // of the last checkpoint
	unsigned    int64    // records since the last checkpoint, parts of one counted once
	tail        tail     // the times of these
	ended       bool     // nothing may follow
	opens       bool     // its first record is the first of its file
	within      bool     // its first record is a part of an event, and not the first part
	pending     *Record  // the first checkpoint, where its key is not known
	before      int64    // records before pending, parts of one counted once
	pendingAt   place
	pendingLine []byte
	blamed      bool  // the last record was found to be changed
	lost        int64 // what the first record says about those before it that were not written
}

// tail is the times of the first and the last record behind a checkpoint.
type tail struct{ first, last timeField }

// timeField is a time in a record; of a longer text its front.
type timeField [len(timeFormat)]byte

func (t *tail) add(at []byte, first bool) {
	if first {
		copy(t.first[:], at)
	}
	copy(t.last[:], at)
}

// took is the time from the first to the last; 0 where the clock stepped back.
func (t *tail) took() time.Duration {
	first, err := time.Parse(timeFormat, string(t.first[:]))
	if err != nil {
		return 0
	}
	last, err := time.Parse(timeFormat, string(t.last[:]))
	if err != nil {
		return 0
	}
	return max(0, last.Sub(first))
}

// none is the number of no checkpoint.
const none = -1

// sealed is what is kept of each checkpoint. 16 bytes of a hash tell any two apart.
type sealed struct {
	number, seq int64
	hash        [16]byte
}

// add takes the next record of the file.
func (t *trail) add(v *verifier, at place, f found) {
	sum := sha256.Sum256(f.text)
	var hash hashText
	base64.RawURLEncoding.Encode(hash[:], sum[:])
	s, seq, blamed := t.current, f.head.seq, false
	follows := s != nil && string(f.head.prev) == string(s.hash[:])
	if follows && seq != s.to+1 {
		v.problem(Changed, at, t, fmt.Sprintf("was changed: it says that it is record %d, and names record %d as the one before", seq, s.to), s.to+1)
		seq, blamed = s.to+1, true
	}
	if !follows || s.ended {
		if s = t.stretch(at, seq, f.head.prev, hash); s == nil {
			return
		}
		s.opens, s.within = v.report.Files[at.file].Records == 1, f.head.part > 1
	}
	s.last, s.to, s.hash, s.blamed = at, seq, hash, blamed
	if f.head.part <= 1 {
		s.unsigned++
		s.tail.add(f.head.at, s.unsigned == 1)
	}
	t.check(v, at, s, f, sum)
}

// stretch begins a new one, or returns nil where there are too many.
func (t *trail) stretch(at place, seq int64, prev []byte, hash hashText) *stretch {
	if len(t.stretches) >= mostStretches {
		t.lost, t.current = true, nil
		return nil
	}
	t.current = &stretch{trail: t, first: at, from: seq, prev: append([]byte(nil), prev...), firstHash: hash, number: none}
	t.stretches = append(t.stretches, t.current)
	return t.current
}

// check looks into the records that are about the chain itself.
func (t *trail) check(v *verifier, at place, s *stretch, f found, sum [sha256.Size]byte) {
	isFirst, isSeal := f.head.seq == 0, f.head.kind == KindCheckpoint || f.head.kind == KindEnd
	switch {
	case isFirst != (f.head.kind == KindBegin), isSeal != (f.head.is&hasCheckpoint != 0):
		v.problem(Changed, at, t, fmt.Sprintf("was changed: no trail has a record %d of this kind, %s", f.head.seq, f.head.kind), f.head.seq)
		s.blamed = true
	case isFirst:
		t.checkBegin(v, at, s, f)
	case isSeal:
		t.checkSeal(v, at, s, f, sum)
	case f.head.kind == KindLost && s.from == f.head.seq:
		if r, err := Read(f.text); err == nil && r.Lost != nil {
			s.lost = r.Lost.Count
		}
	}
}

func (t *trail) checkBegin(v *verifier, at place, s *stretch, f found) {
	r, err := Read(f.text)
	if err != nil || r.Begin == nil {
		v.problem(NoRecord, at, t, "is no begin: it has no key", f.head.seq)
		return
	}
	s.begin, s.key, s.number = r.Begin, r.Begin.Key, 0
	if r.Begin.Predecessor != nil {
		s.number = r.Begin.Predecessor.Number
	}
	if err := verifyBegin(r, v.check.Keys); err != nil {
		v.problem(NotOrigin, at, t, err.Error(), f.head.seq)
	}
}

func (t *trail) checkSeal(v *verifier, at place, s *stretch, f found, sum [sha256.Size]byte) {
	r, err := Read(f.text)
	if err != nil || r.Checkpoint == nil {
		v.problem(NoRecord, at, t, "is no checkpoint: it has no signature", f.head.seq)
		return
	}
	number := r.Checkpoint.Number
	switch {
	case s.key == "" && len(s.checkpoints) == 0:
		s.pending, s.pendingAt, s.pendingLine, s.before = r, at, bytes.Clone(f.text), s.unsigned-1
	default:
		t.verifySeal(v, at, r, f.text, s.key)
		if s.number != none && number != s.number+1 {
			v.problem(Forgery, at, t, fmt.Sprintf("checkpoint %d follows checkpoint %d", number, s.number), f.head.seq)
		}
	}
	s.checkpoints = append(s.checkpoints, sealed{number, f.head.seq, [16]byte(sum[:16])})
	s.key, s.number, s.unsigned, s.ended, s.sealedHash = r.Checkpoint.Next, number, 0, r.Kind == KindEnd, s.hash
}

// verifySeal tells of a checkpoint that its key has not signed.
func (t *trail) verifySeal(v *verifier, at place, r *Record, line []byte, key string) {
	if err := verifySeal(r, line, key); err != nil {
		v.problem(BadSign, at, t, fmt.Sprintf("checkpoint %d %s", r.Checkpoint.Number, err), r.Seq)
	}
}
