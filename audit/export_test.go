package audit

import (
	"encoding/json"
	"strings"
	"testing"
)

// Resign makes a chain of records anew, with keys of its own, in a process of another name:
// what root of a node does to a trail.
func Resign(tb testing.TB, lines [][]byte, boots map[string]string) [][]byte {
	tb.Helper()
	var out [][]byte
	var key *signer
	prev := ""
	for _, line := range lines {
		r := new(Record)
		if err := json.Unmarshal(line, r); err != nil {
			tb.Fatal(err)
		}
		if boot, ok := boots[r.Boot]; ok {
			r.Boot = boot
		}
		r.Prev = prev
		next, err := newSigner(r.Node)
		if err != nil {
			tb.Fatal(err)
		}
		switch {
		case r.Begin != nil:
			r.Begin.Key, key = next.public(), next
		case r.Checkpoint != nil:
			if r.Kind == KindCheckpoint {
				r.Checkpoint.Next = next.public()
			}
			if r.Checkpoint.Note, err = signed(key, noteLines(r)...); err != nil {
				tb.Fatal(err)
			}
			key = next
		}
		text, err := r.line()
		if err != nil {
			tb.Fatal(err)
		}
		prev = Hash(text)
		out = append(out, text)
	}
	return out
}

// SignAnew signs a checkpoint with a key of no trail.
func SignAnew(tb testing.TB, line []byte) []byte {
	tb.Helper()
	r, err := Read(line)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := newSigner(r.Node)
	if err != nil {
		tb.Fatal(err)
	}
	if r.Checkpoint.Note, err = signed(key, noteLines(r)...); err != nil {
		tb.Fatal(err)
	}
	text, err := r.line()
	if err != nil || strings.Contains(string(text), "\n") {
		tb.Fatal(err)
	}
	return text
}

// CanonicalSlow is Canonical without the look that spares it.
func CanonicalSlow(text []byte) ([]byte, error) { return canonicalSlow(text) }
