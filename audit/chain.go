package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// Origin is the first line of every signed note of the trail.
const Origin = "keymount audit checkpoint v1"

// beginOrigin is that of a begin record's note.
const beginOrigin = "keymount audit begin v1"

// noNode stands for a node without a name.
const noNode = "unnamed"

// Start is what a process knows when its trail begins.
type Start struct {
	Node string // at the API server; "unnamed" when empty
	// Keymount is the version of the program.
	Keymount string
	// Predecessor is the last checkpoint of the process before; nil where none is known.
	Predecessor *Predecessor
	// Origin signs the begin record; nil for no signature.
	Origin note.Signer
	Now    func() time.Time
}

// Chain makes the lines of the trail of one process, each with the hash of the one before,
// and signs them with keys of which only the newest is held. It does no IO, and is not safe
// for concurrent use.
type Chain struct {
	node, boot string
	now        func() time.Time
	seq        int64  // of the next record
	prev       string // hash of the line before
	number     int64  // of the last checkpoint
	unsigned   int    // records since then
	key        *signer
}

// NewChain begins a trail, and returns its first line.
func NewChain(s Start) (*Chain, []byte, error) {
	if s.Node == "" {
		s.Node = noNode
	}
	if err := signable(s.Node); err != nil {
		return nil, nil, fmt.Errorf("the name of the node: %w", err)
	}
	key, err := newSigner(s.Node)
	if err != nil {
		return nil, nil, err
	}
	c := &Chain{node: s.Node, boot: bootName(s.Now()), now: s.Now, key: key}
	begin := &Begin{Key: key.public(), Keymount: s.Keymount, Predecessor: s.Predecessor}
	if s.Predecessor != nil {
		c.number = s.Predecessor.Number
	}
	if s.Origin != nil {
		if begin.Note, err = signed(s.Origin, beginOrigin, c.node, c.boot, begin.Key); err != nil {
			return nil, nil, err
		}
	}
	line, err := c.one(Record{Kind: KindBegin, Begin: begin})
	return c, line, err
}

// bootName is readable, and no two processes have the same.
func bootName(now time.Time) string {
	return now.UTC().Format("20060102T150405Z") + "-" + strings.ToLower(rand.Text()[:8])
}

// Boot is the name of the process in its records.
func (c *Chain) Boot() string { return c.boot }

// Unsigned is how many records there are since the last checkpoint.
func (c *Chain) Unsigned() int { return c.unsigned }

// Append makes the lines of a record: several if one would be too long. Seq is that of the
// first of them. On an error there is no line, and the chain is as it was.
func (c *Chain) Append(r Record) (lines [][]byte, seq int64, err error) {
	before := *c
	parts := split(r, maxLine-c.headroom())
	for i := range parts {
		if len(parts) > 1 {
			parts[i].Part, parts[i].Parts = i+1, len(parts)
		}
		line, err := c.one(parts[i])
		if err != nil {
			*c = before
			return nil, 0, err
		}
		lines = append(lines, line)
	}
	return lines, before.seq, nil
}

// headroom is what the chain adds to a record, at most.
func (c *Chain) headroom() int { return 512 + len(c.node) + len(c.boot) }

// Checkpoint signs the chain so far and replaces the key. Last is the hash of its line.
func (c *Chain) Checkpoint() (line []byte, p Predecessor, err error) {
	next, err := newSigner(c.node)
	if err != nil {
		return nil, p, err
	}
	line, err = c.sign(KindCheckpoint, next)
	return line, c.last(), err
}

// End is the last checkpoint: no key is left.
func (c *Chain) End() (line []byte, p Predecessor, err error) {
	line, err = c.sign(KindEnd, nil)
	return line, c.last(), err
}

// last is the checkpoint of the line just made, as a successor names it.
func (c *Chain) last() Predecessor { return Predecessor{Boot: c.boot, Hash: c.prev, Number: c.number} }

func (c *Chain) sign(kind Kind, next *signer) ([]byte, error) {
	r := Record{Kind: kind, At: timeText(c.now()), Checkpoint: &Checkpoint{Number: c.number + 1}}
	if next != nil {
		r.Checkpoint.Next = next.public()
	}
	r.Node, r.Boot, r.Seq, r.Prev = c.node, c.boot, c.seq, c.prev
	var err error
	if r.Checkpoint.Note, err = signed(c.key, noteLines(&r)...); err != nil {
		return nil, err
	}
	line, err := c.one(r)
	if err != nil {
		return nil, err
	}
	c.key.erase()
	c.key, c.unsigned = next, 0
	c.number++
	return line, nil
}

// noteLines are the lines that a checkpoint signs: all that is in its record.
func noteLines(r *Record) []string {
	return []string{
		Origin, string(r.Kind), r.Node, r.Boot, strconv.FormatInt(r.Checkpoint.Number, 10), strconv.FormatInt(r.Seq, 10),
		r.Prev, r.At, "next " + r.Checkpoint.Next,
	}
}

// signable tells whether a line can be part of a note. A line break within it, as in a hostile
// name of a node, would let two notes read alike, and note.Open refuses the other characters.
func signable(line string) error {
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("%q has a line break or another character that a signed note cannot hold", line)
	}
	return nil
}

// signed is a signed note of lines.
func signed(key note.Signer, lines ...string) (string, error) {
	for _, line := range lines {
		if err := signable(line); err != nil {
			return "", err
		}
	}
	text, err := note.Sign(&note.Note{Text: strings.Join(lines, "\n") + "\n"}, key)
	if err != nil {
		return "", fmt.Errorf("sign the trail: %w", err)
	}
	return string(text), nil
}

// one makes the next line.
func (c *Chain) one(r Record) ([]byte, error) {
	if r.At == "" {
		r.At = timeText(c.now())
	}
	r.V, r.Node, r.Boot, r.Seq, r.Prev = Version, c.node, c.boot, c.seq, c.prev
	line, err := r.line()
	if err != nil {
		return nil, err
	}
	c.seq++
	c.unsigned++
	c.prev = Hash(line)
	return line, nil
}

// Hash is that of a canonical line, as the next record has it in prev.
func Hash(line []byte) string {
	sum := sha256.Sum256(line)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
