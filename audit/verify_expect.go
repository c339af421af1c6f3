package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Expected is a checkpoint that was in a trail before, such as one that has left the node.
type Expected struct {
	Number int64
	Hash   string // of its record, as in Prev
	record *Record
}

// ParseExpected reads NUMBER:HASH.
func ParseExpected(text string) (Expected, error) {
	first, hash, _ := strings.Cut(text, ":")
	number, err := strconv.ParseInt(first, 10, 64)
	if _, hashErr := decodeHash(hash); err != nil || hashErr != nil || number < 1 {
		return Expected{}, fmt.Errorf("%q is not of the form NUMBER:HASH, the number of a checkpoint and the hash of its record, as verify prints them", text)
	}
	return Expected{Number: number, Hash: hash}, nil
}

// decodeHash is the front of a hash, as it is kept of checkpoints.
func decodeHash(text string) (front [16]byte, err error) {
	hash, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(hash) != 32 {
		return front, errors.New("is no hash of a record")
	}
	return [16]byte(hash), nil
}

// ReadExpected reads the last checkpoint in a file.
func ReadExpected(file Source, form Form) (Expected, error) {
	var e Expected
	err := form.records(file, func(f found) bool {
		if f.err == nil && !f.half && (f.head.kind == KindCheckpoint || f.head.kind == KindEnd) {
			if r, err := Read(f.text); err == nil && r.Checkpoint != nil {
				e = Expected{r.Checkpoint.Number, Hash(f.text), r}
			}
		}
		return true
	})
	if err == nil && e.record == nil {
		err = fmt.Errorf("%s holds no checkpoint, a record of kind checkpoint or end", file.Name)
	}
	return e, err
}

// isExpected tells whether a checkpoint is one of those that were given.
func (v *verifier) isExpected(p Predecessor) bool {
	for _, e := range v.check.Expect {
		if e.Number == p.Number && e.Hash == p.Hash {
			return true
		}
	}
	return false
}

// expect looks for a checkpoint that was in the trail before.
func (v *verifier) expect(e Expected, walks []*walk) {
	want, _ := decodeHash(e.Hash)
	var near *walk
	for _, w := range walks {
		if w.goesOnFrom(e) {
			return
		}
		c, found := w.sealed(e.Number)
		switch {
		case found && c.hash == want:
			return
		case e.record != nil && w.t.boot != e.record.Boot:
		case found:
			v.problem(Forgery, w.at, w.t, fmt.Sprintf("checkpoint %d is another one than expected: the trail was written anew", e.Number), c.seq)
			return
		case near == nil || w.number > near.number:
			near = w
		}
	}
	switch {
	case near == nil:
		v.problem(Missing, place{}, nil, fmt.Sprintf("checkpoint %d is expected, and no record of its process is in the files", e.Number))
	case near.number < e.Number:
		v.problem(Cut, near.at, near.t, fmt.Sprintf("the trail was cut here: checkpoint %d is expected, and the last one that is there is %s", e.Number, near.numbered()), near.seq)
	default:
		v.problem(Missing, place{}, near.t, fmt.Sprintf("checkpoint %d is expected, and not in the files", e.Number))
	}
}

// goesOnFrom tells whether the trail follows on from a checkpoint that is not in it.
func (w *walk) goesOnFrom(e Expected) bool {
	for _, s := range w.t.stretches {
		if p := s.predecessor(); p != nil && p.Number == e.Number && p.Hash == e.Hash {
			return true
		}
		if w.follows(s, e) {
			return true
		}
	}
	return false
}

// follows tells whether the first record of a stretch is the one behind a checkpoint.
func (w *walk) follows(s *stretch, e Expected) bool {
	return string(s.prev) == e.Hash && (e.record == nil || e.record.Boot == w.t.boot && e.record.Seq+1 == s.from)
}

func (s *stretch) predecessor() *Predecessor {
	if s.begin == nil {
		return nil
	}
	return s.begin.Predecessor
}
