package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Check says what a trail is held against, beside itself.
type Check struct {
	Form
	// Nodes are the names that may occur; empty for all.
	Nodes []string
	// Keys verify the begin records; empty where they need no signature.
	Keys []note.Verifier
	// Expect are checkpoints that must be in the trail, since they were in it before.
	Expect []Expected
	// Strict makes a problem of each begin whose predecessor is not known.
	Strict bool
}

// Report is the answer of [Check.Verify].
type Report struct {
	Files []FileReport `json:"files"`
	// Trails are those of the processes, by node and in the order of their checkpoints.
	Trails   []TrailReport `json:"trails"`
	Problems []Problem     `json:"problems"`
	// More is how many problems there are beyond the first thousand.
	More int64 `json:"moreProblems,omitempty"`
	// Notes are no problems, but worth knowing.
	Notes []Problem `json:"notes"`
}

// FileReport is what was in a file.
type FileReport struct {
	Name    string `json:"name"`
	Records int64  `json:"records"`
	// Others are the lines without a record, where such lines may be.
	Others int64 `json:"others,omitempty"`
}

// TrailReport is about the trail of one process.
type TrailReport struct {
	Node string `json:"node"`
	Boot string `json:"boot"`
	// Keymount is the version of the program; empty where the begin is not there.
	Keymount string `json:"keymount,omitempty"`
	// Begin tells what the trail goes on from.
	Begin BeginClass `json:"begin"`
	// First and Last are the records that are there.
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Records are each counted once.
	Records     int64 `json:"records"`
	Checkpoints int64 `json:"checkpoints"`
	// Checkpoint is the number of the last one, and Hash that of its record.
	Checkpoint int64  `json:"checkpoint,omitempty"`
	Hash       string `json:"hash,omitempty"`
	// Unsigned are the records after the last checkpoint.
	Unsigned int64 `json:"unsigned"`
	// Ended says that the process signed its end.
	Ended bool `json:"ended"`
}

// BeginClass is what a trail goes on from.
type BeginClass string

// The classes of begins.
const (
	AfterEnd  BeginClass = "after an end"        // of a process that was stopped
	AfterNone BeginClass = "after no end"        // of a process that was killed
	Unknown   BeginClass = "predecessor unknown" // it names none, or one that is not there
	Absent    BeginClass = "no begin"            // the begin itself is not there
)

// ProblemKind is what was done to a trail.
type ProblemKind string

// The kinds of problems.
const (
	NoRecord   ProblemKind = "no record"  // a line that holds none
	Changed    ProblemKind = "changed"    // a record
	Removed    ProblemKind = "removed"    // records within a file
	Missing    ProblemKind = "missing"    // records between files, or a file
	Cut        ProblemKind = "cut"        // the end of a trail
	Reordered  ProblemKind = "reordered"  // records of a file
	Repeated   ProblemKind = "repeated"   // records of a file
	BadSign    ProblemKind = "signature"  // a checkpoint that its key did not sign
	Forgery    ProblemKind = "forgery"    // two stories of one thing
	NoBegin    ProblemKind = "no begin"   // a trail from its middle on
	OtherNode  ProblemKind = "other node" // one that may not occur
	NotOrigin  ProblemKind = "origin"     // a begin that no given key signed
	NotSigned  ProblemKind = "unsigned"   // more records than a process may leave
	NoPrevious ProblemKind = "unknown"    // a begin without a known predecessor
)

// Problem is what is wrong, and where.
type Problem struct {
	Kind ProblemKind `json:"kind"`
	File string      `json:"file,omitempty"`
	Line int         `json:"line,omitempty"`
	Node string      `json:"node,omitempty"`
	Boot string      `json:"boot,omitempty"`
	// Seq is the record, or the first of those to To.
	Seq  *int64 `json:"seq,omitempty"`
	To   *int64 `json:"to,omitempty"`
	Text string `json:"text"`
}

// Place is file and line, and the record's name: node/boot/seq.
func (p Problem) Place() string {
	var place []string
	if p.File != "" {
		place = append(place, fmt.Sprintf("%s:%d", p.File, p.Line))
	}
	if p.Boot != "" {
		name := p.Node + "/" + p.Boot
		if p.Seq != nil {
			name += fmt.Sprintf("/%d", *p.Seq)
		}
		if p.To != nil && *p.To != *p.Seq {
			name += fmt.Sprintf("-%d", *p.To)
		}
		place = append(place, name)
	}
	return strings.Join(place, ": ")
}

// Verify reads files in any order and holds their records against each other. Each is read
// once, and once more where records are in several. Its error is about reading alone. The memory that it takes grows with files, processes and
// problems, and by 32 bytes with each checkpoint.
func (c *Check) Verify(ctx context.Context, files []Source) (*Report, error) {
	v := &verifier{check: c, trails: map[string]*trail{}, settled: settled{}, report: &Report{Problems: []Problem{}, Notes: []Problem{}}}
	for i, file := range files {
		v.report.Files = append(v.report.Files, FileReport{Name: file.Name})
		if err := v.file(ctx, i, file); err != nil {
			return nil, err
		}
	}
	if err := v.settle(ctx, files); err != nil {
		return nil, err
	}
	v.join()
	return v.report, nil
}

// verifier holds the records of all files against each other.
type verifier struct {
	check   *Check
	report  *Report
	trails  map[string]*trail // by boot
	settled settled
	last    *trail // of the record before: mostly the next one is of it, too
	half    found  // the line before, where it breaks off within a record
}

// place is a line of a file.
type place struct{ file, line int }

// file reads one of the files.
func (v *verifier) file(ctx context.Context, n int, file Source) error {
	report := &v.report.Files[n]
	for _, t := range v.trails {
		t.current = nil
	}
	v.half = found{}
	count := 0
	err := v.check.records(file, func(f found) bool {
		at := place{n, f.line}
		v.afterHalf(n, f)
		switch {
		case f.half:
			v.half = f
		case f.err != nil && v.check.Others:
			report.Others++
		case f.err != nil:
			v.problem(NoRecord, at, nil, f.err.Error())
		default:
			report.Records++
			v.record(at, f)
		}
		count++
		return count%1024 != 0 || ctx.Err() == nil
	})
	switch at := (place{n, v.half.line}); {
	case v.half.closed:
		v.problem(NoRecord, at, nil, "breaks off within a record")
	case v.half.half:
		v.note(NoRecord, at, nil, "the file ends within a record, which counts as not written")
	}
	return errors.Join(err, ctx.Err())
}

// afterHalf judges a line that breaks off by the record behind it: a process that was killed
// leaves one, and the next process begins.
func (v *verifier) afterHalf(file int, f found) {
	if !v.half.half {
		return
	}
	at := place{file, v.half.line}
	v.half = found{}
	if f.err == nil && !f.half && f.head.kind == KindBegin {
		v.note(NoRecord, at, nil, "the process before ended within a record, which counts as not written")
		return
	}
	if v.check.Others {
		v.report.Files[file].Others++
		return
	}
	v.problem(NoRecord, at, nil, "breaks off within a record, and no process begins behind it")
}

// record takes a record into the trail of its process.
func (v *verifier) record(at place, f found) {
	t := v.last
	if t == nil || t.raw != string(f.head.boot) {
		if t = v.trails[string(f.head.boot)]; t == nil {
			t = v.begin(at, f.head)
		}
		v.last = t
	}
	if string(f.head.node) != t.rawNode {
		v.problem(Changed, at, t, fmt.Sprintf("names the node %q, and the other records of the process %q", plain(f.head.node), t.node), f.head.seq)
	}
	t.add(v, at, f)
}

// begin makes the trail of a process that was not seen before.
func (v *verifier) begin(at place, h head) *trail {
	t := &trail{raw: string(h.boot), rawNode: string(h.node), boot: plain(h.boot), node: plain(h.node)}
	v.trails[t.raw] = t
	if len(v.check.Nodes) > 0 && !slices.Contains(v.check.Nodes, t.node) {
		v.problem(OtherNode, at, t, fmt.Sprintf("records of node %q, which is none of %s", t.node, strings.Join(v.check.Nodes, ", ")), h.seq)
	}
	return t
}

// mostProblems keeps a report, and the memory that it takes, in bounds.
const mostProblems = 1000

// problem notes what is wrong with records from first to last.
func (v *verifier) problem(kind ProblemKind, at place, t *trail, text string, seqs ...int64) {
	if len(v.report.Problems) >= mostProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, v.placed(kind, at, t, text, seqs...))
}

func (v *verifier) note(kind ProblemKind, at place, t *trail, text string, seqs ...int64) {
	if len(v.report.Notes) < mostProblems {
		v.report.Notes = append(v.report.Notes, v.placed(kind, at, t, text, seqs...))
	}
}

func (v *verifier) placed(kind ProblemKind, at place, t *trail, text string, seqs ...int64) Problem {
	p := Problem{Kind: kind, Text: text}
	if at.line > 0 {
		p.File, p.Line = v.report.Files[at.file].Name, at.line
	}
	if t != nil {
		p.Node, p.Boot = t.node, t.boot
	}
	if len(seqs) > 0 {
		p.Seq = new(seqs[0])
	}
	if len(seqs) > 1 {
		p.To = new(seqs[1])
	}
	return p
}

// where is a place in words.
func (v *verifier) where(at place) string {
	return fmt.Sprintf("%s:%d", v.report.Files[at.file].Name, at.line)
}
