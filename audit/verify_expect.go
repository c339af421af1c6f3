package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Expected is a checkpoint that was in a trail before, such as one that has left the node.
type Expected struct {
	Node   string // empty for any
	Number int64
	Hash   string // of its record, as in Prev
	record *Record
}

// ParseExpected reads NODE:NUMBER:HASH, or NUMBER:HASH for any node.
func ParseExpected(text string) (Expected, error) {
	var e Expected
	front, hash := cutLast(text)
	node, first := cutLast(front)
	number, err := strconv.ParseInt(first, 10, 64)
	if _, hashErr := decodeHash(hash); err != nil || hashErr != nil || number < 1 || node == "" && first != front {
		return e, fmt.Errorf("%q is not of the form NODE:NUMBER:HASH or NUMBER:HASH, the number of a checkpoint and the hash of its record, as verify prints them", text)
	}
	return Expected{Node: node, Number: number, Hash: hash}, nil
}

// cutLast cuts a text at its last colon; before is empty without one.
func cutLast(text string) (before, after string) {
	i := strings.LastIndexByte(text, ':')
	return text[:max(0, i)], text[i+1:]
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
				e = Expected{Node: r.Node, Number: r.Checkpoint.Number, Hash: Hash(f.text), record: r}
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

// expect looks for a checkpoint that was in the trail before. Several trails may have one with
// its number, since numbers begin anew with each node, and where a node has lost its state.
func (v *verifier) expect(e Expected, walks []*walk) {
	want, _ := decodeHash(e.Hash)
	var near *walk
	var others []*walk // with another checkpoint of that number
	for _, w := range walks {
		may := w.mayHave(e)
		if w.goesOnFrom(e) || may && w.holds(e.Number, want) {
			return
		}
		switch _, found := w.sealed(e.Number); {
		case may && found:
			others = append(others, w)
		case may && (near == nil || w.number > near.number):
			near = w
		}
	}
	switch {
	case len(others) > 0:
		v.other(e, others)
	case near == nil:
		v.problem(Missing, place{}, nil, fmt.Sprintf("checkpoint %d is expected, and no record of its process is in the files", e.Number))
	case near.number < e.Number:
		v.problem(Cut, near.at, near.t, fmt.Sprintf("the trail was cut here: checkpoint %d is expected, and the last one that is there is %s", e.Number, near.numbered()), near.seq)
	default:
		v.problem(Missing, place{}, near.t, fmt.Sprintf("checkpoint %d is expected, and not in the files", e.Number))
	}
}

// mayHave tells whether the checkpoint can be of this trail.
func (w *walk) mayHave(e Expected) bool {
	return (e.Node == "" || e.Node == w.t.node) && (e.record == nil || e.record.Boot == w.t.boot)
}

// holds tells whether the checkpoint is in the trail.
func (w *walk) holds(number int64, hash [16]byte) bool {
	return slices.ContainsFunc(w.t.stretches, func(s *stretch) bool {
		c, found := s.sealed(number)
		return found && c.hash == hash
	})
}

// other tells of an expected checkpoint that is in none of the trails with its number.
func (v *verifier) other(e Expected, others []*walk) {
	first := others[0]
	c, _ := first.sealed(e.Number)
	text := fmt.Sprintf("checkpoint %d is another one than expected: the trail was written anew", e.Number)
	if e.record == nil {
		text += ", or that with the expected one is not in the files"
	}
	if len(others) > 1 {
		var boots []string
		for _, w := range others {
			boots = append(boots, w.t.boot)
		}
		text = fmt.Sprintf("the expected checkpoint %d is in no trail, and another one is in those of %s: one of them was written anew, or that with the expected one is not in the files", e.Number, strings.Join(boots, ", "))
	}
	v.problem(Forgery, first.at, first.t, text, c.seq)
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
