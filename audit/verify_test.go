package audit_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"

	"github.com/keymount/keymount/audit"
)

// process is the trail of one process: record 0 begins it, 4, 8, 12 ... are checkpoints.
type process struct {
	boot  string
	lines [][]byte
	last  audit.Predecessor
	// first is checkpoint 1 of it.
	first audit.Predecessor
}

// aProcess makes a trail with three records before each checkpoint.
func aProcess(tb testing.TB, node string, before *audit.Predecessor, checkpoints int, origin note.Signer) (*audit.Chain, *process) {
	tb.Helper()
	chain, begin, err := audit.NewChain(audit.Start{Node: node, Keymount: "v1.2.3", Predecessor: before, Origin: origin, Now: clock()})
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{boot: chain.Boot(), lines: [][]byte{begin}}
	for i := range checkpoints {
		p.mounts(tb, chain, 3)
		p.checkpoint(tb, chain)
		if i == 0 {
			p.first = p.last
		}
	}
	return chain, p
}

func (p *process) mounts(tb testing.TB, chain *audit.Chain, n int) {
	tb.Helper()
	for range n {
		lines, seq, err := chain.Append(audit.Record{Kind: audit.KindMount, Class: "shop-<api>", Secrets: []audit.Secret{{Store: "prod", Path: "shop/\u2028\"db\"/é😀\x01", Outcome: audit.Granted}}})
		if err != nil || seq != int64(len(p.lines)) {
			tb.Fatal(err)
		}
		p.lines = append(p.lines, lines...)
	}
}

func (p *process) checkpoint(tb testing.TB, chain *audit.Chain) {
	tb.Helper()
	line, last, err := chain.Checkpoint()
	if err != nil {
		tb.Fatal(err)
	}
	p.lines, p.last = append(p.lines, line), last
}

// whole is a trail of two checkpoints and an end: records 0 to 9.
func whole(tb testing.TB, node string, before *audit.Predecessor) *process {
	tb.Helper()
	chain, p := aProcess(tb, node, before, 2, nil)
	end, last, err := chain.End()
	if err != nil {
		tb.Fatal(err)
	}
	p.lines, p.last = append(p.lines, end), last
	return p
}

// killed is a trail of two checkpoints and n records: 0 to 8+n.
func killed(tb testing.TB, before *audit.Predecessor, n int) *process {
	tb.Helper()
	chain, p := aProcess(tb, "worker-1", before, 2, nil)
	p.mounts(tb, chain, n)
	return p
}

// clock steps back with each record.
func clock() func() time.Time {
	now := time.Unix(1_790_000_000, 0)
	return func() time.Time { now = now.Add(-time.Second); return now }
}

// files are given to verify in this order, each with its lines.
type files []story

type story [][]byte

func join(parts ...[][]byte) story { return slices.Concat(parts...) }

// with is a line with a text replaced by another one.
func with(line []byte, before, after string) []byte {
	changed := bytes.Replace(line, []byte(before), []byte(after), 1)
	if bytes.Equal(changed, line) {
		panic(fmt.Sprintf("%q is not in %s", before, line))
	}
	return changed
}

// swapped, without, again and changed are copies of lines.
func (l story) swapped(i, k int) story {
	l = slices.Clone(l)
	l[i], l[k] = l[k], l[i]
	return l
}

func (l story) without(i, k int) story         { return slices.Delete(slices.Clone(l), i, k) }
func (l story) insert(i int, more story) story { return slices.Insert(slices.Clone(l), i, more...) }

func (l story) changed(i int, before, after string) story {
	l = slices.Clone(l)
	l[i] = with(l[i], before, after)
	return l
}

// source is a file with these bytes.
func source(name string, data []byte) audit.Source {
	return audit.Source{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// found are the problems of a report, short: kind, place, records.
func found(problems []audit.Problem, linesOfOne int) []string {
	short := []string{}
	for _, p := range problems {
		text := string(p.Kind)
		if p.Line > 0 {
			text += fmt.Sprintf(" %s:%d", p.File, (p.Line+linesOfOne-1)/linesOfOne)
		}
		if p.Seq != nil {
			text += fmt.Sprintf(" %d", *p.Seq)
		}
		if p.To != nil {
			text += fmt.Sprintf("-%d", *p.To)
		}
		short = append(short, text)
	}
	return short
}

// verifyCase is what was done to a trail, and what verify says.
type verifyCase struct {
	files files
	check audit.Check
	want  []string // problems
	text  string   // of the first one, in part
	// begins are the classes of begins, by node and number of the checkpoint.
	begins []audit.BeginClass
	notes  []string
	// unsigned are the records behind the last checkpoint of each process.
	unsigned []int64
	// open says that the last line has no end.
	open bool
}

func verifyCases(t *testing.T) map[string]verifyCase {
	t.Helper()
	p := whole(t, "worker-1", nil)
	l := story(p.lines)
	next := whole(t, "worker-1", &p.last)
	third := whole(t, "worker-1", &next.last)
	other := whole(t, "worker-2", nil)
	dead := killed(t, &p.last, 2)
	heir := whole(t, "worker-1", &dead.last)
	afar := whole(t, "worker-1", &audit.Predecessor{Boot: "20260101T000000Z-abcdefgh", Hash: p.last.Hash, Number: 70})
	rewritten := rewrite(t, p)
	lossy := withLost(t)
	unknown := []audit.BeginClass{audit.Unknown}
	noBegin := []audit.BeginClass{audit.Absent}
	first := []string{"unknown f1:1 0"}
	none := []string{}
	ended := []int64{0}
	three := []audit.BeginClass{audit.Unknown, audit.AfterEnd, audit.AfterEnd}
	quiet := func(text string) []byte { return []byte(text) }

	return map[string]verifyCase{
		"nothing":                     {files: files{l}, want: none, begins: unknown, notes: first, unsigned: ended},
		"nothing, strictly":           {files: files{l}, check: audit.Check{Strict: true}, want: first, text: "names no process before it", begins: unknown, notes: none},
		"three processes":             {files: files{join(l, next.lines, third.lines)}, want: none, begins: three, notes: first, unsigned: []int64{0, 0, 0}},
		"files in another order":      {files: files{third.lines, l[5:], next.lines, l[:5]}, want: none, begins: three, notes: []string{"unknown f4:1 0"}},
		"two nodes, interleaved":      {files: files{interleaved(l, other.lines)}, want: none, begins: []audit.BeginClass{audit.Unknown, audit.Unknown}, notes: []string{"unknown f1:1 0", "unknown f1:2 0"}},
		"a file twice":                {files: files{l, l}, want: none, begins: unknown, notes: []string{"unknown f1:1 0", "repeated f2:1 0-9"}},
		"files that overlap":          {files: files{l[:7], l[3:]}, want: none, begins: unknown, notes: []string{"unknown f1:1 0", "repeated f2:1 3-6"}},
		"files that share a line":     {files: files{l[:3], l[2:]}, want: none, begins: unknown, notes: []string{"unknown f1:1 0", "repeated f2:1 2-2"}},
		"files that overlap blind":    {files: files{l[:3], l[1:]}, want: none, begins: unknown, notes: []string{"unknown f1:1 0", "repeated f2:1 1-2"}},
		"of two nodes, interleaved":   {files: files{interleaved(l, other.lines), l[1:4]}, want: none, notes: []string{"unknown f1:1 0", "unknown f1:2 0", "repeated f2:1 1-3"}},
		"with another one in between": {files: files{join(l[:5], l[3:4].changed(0, "prod", "test"), l[5:]), l[2:4]}, want: []string{"forgery f1:6 3", "forgery f1:6 3"}, begins: unknown, notes: []string{"unknown f1:1 0", "repeated f2:1 2-3"}},
		"and are not the same":        {files: files{l[:3].changed(2, "prod", "test"), l[1:]}, want: []string{"forgery f2:1 1-2"}, text: "records 1 to 2 are in f1:1, too, and are others there", begins: unknown, notes: first},
		"nor behind a checkpoint":     {files: files{l, l[:7].changed(6, "prod", "test")}, want: []string{"forgery f2:1 0-6"}, begins: unknown, notes: first},

		"a record changed":            {files: files{l.changed(2, "prod", "test")}, want: []string{"changed f1:3 2"}, text: "was changed: record 3 in f1:4 names another one", begins: unknown, notes: first},
		"prev changed":                {files: files{l.changed(2, `"prev":"`, `"prev":"A`)}, want: []string{"changed f1:3 2"}, text: "does not name record 1 as it is, and record 3 does not name this one", begins: unknown, notes: first},
		"seq changed":                 {files: files{l.changed(2, `"seq":2`, `"seq":7`)}, want: []string{"changed f1:3 2"}, text: "says that it is record 7", begins: unknown, notes: first},
		"node changed":                {files: files{l.changed(2, "worker-1", "worker-2")}, want: []string{"changed f1:3 2", "changed f1:3 2"}, text: `names the node "worker-2"`, begins: unknown, notes: first},
		"kind changed to begin":       {files: files{l.changed(2, `"mount"`, `"begin"`)}, want: []string{"changed f1:3 2"}, text: "no trail has a record 2 of this kind, begin", begins: unknown, notes: first},
		"boot changed":                {files: files{l.changed(2, p.boot, "20260101T000000Z-abcdefgh")}, want: []string{"no begin f1:3 2", "removed f1:4 2-2"}, begins: []audit.BeginClass{audit.Unknown, audit.Absent}, notes: first},
		"the last but one changed":    {files: files{l[:8].changed(6, "prod", "test")}, want: []string{"changed f1:8 6-7"}, text: "nothing behind them tells which", begins: unknown, notes: first},
		"the one before a checkpoint": {files: files{l[:9].changed(7, "prod", "test")}, want: []string{"changed f1:8 7"}, text: "record 8 in f1:9 names another one", begins: unknown, notes: first},
		"the begin changed":           {files: files{l.changed(0, "v1.2.3", "v1.2.4")}, want: []string{"changed f1:1 0"}, begins: unknown, notes: first},
		"one changed between files":   {files: files{l[:3].changed(2, "prod", "test"), l[3:]}, want: []string{"changed f1:3 2"}, text: "record 3 in f2:1 names another one", begins: unknown, notes: first},
		"one replaced":                {files: files{l.insert(3, story{with(l[2], "prod", "test")})}, want: []string{"forgery f1:4 2"}, begins: unknown, notes: first},
		"one put before":              {files: files{l.insert(2, story{with(l[2], "prod", "test")})}, want: []string{"forgery f1:3 2"}, begins: unknown, notes: first},

		"a record removed":              {files: files{l.without(2, 3)}, want: []string{"removed f1:3 2-2"}, text: "record 2 is removed", begins: unknown, notes: first},
		"records removed":               {files: files{l.without(2, 6)}, want: []string{"removed f1:3 2-5"}, text: "records 2 to 5 are removed", begins: unknown, notes: first},
		"the begin removed":             {files: files{l[1:]}, want: []string{"no begin f1:1 1"}, begins: noBegin, notes: none},
		"a file missing":                {files: files{l[:3], l[6:]}, want: []string{"missing f2:1 3-5"}, text: "missing between f1:3 and here: a file is missing", begins: unknown, notes: first},
		"not written, and said":         {files: files{lossy.without(2, 4)}, want: none, begins: unknown, notes: []string{"unknown f1:1 0", "removed f1:3 2-3"}},
		"more removed than not written": {files: files{lossy.without(1, 4)}, want: []string{"removed f1:2 1-3"}, text: "records 1 to 3 are removed before this line; record 4, a lost record, says that 2 were not written", begins: unknown, notes: first},
		"a checkpoint not written":      {files: files{lossy.without(5, 7)}, want: []string{"removed f1:6 5-6"}, text: "records 5 to 6 are missing; record 7, a lost record, says that 9 were not written, which cannot be proven, since their checkpoints are missing, too", begins: unknown, notes: first},
		"lost, and not signed yet":      {files: files{lossy.without(2, 4)[:3]}, want: []string{"removed f1:3 2-3"}, text: "are missing; record 4, a lost record, says that 2 were not written, which cannot be proven: no checkpoint is behind it", begins: unknown, notes: first},
		"two swapped":                   {files: files{l.swapped(2, 3)}, want: []string{"reordered f1:3 3"}, text: "stands before record 2, which is in line 4", begins: unknown, notes: first},
		"a checkpoint swapped":          {files: files{l.swapped(3, 4)}, want: []string{"reordered f1:4 4"}, begins: unknown, notes: first},
		"begin and second swapped":      {files: files{l.swapped(0, 1)}, want: []string{"reordered f1:1 1"}, begins: unknown, notes: []string{"unknown f1:2 0"}},
		"a record repeated":             {files: files{l.insert(3, l[2:3])}, want: []string{"repeated f1:4 2-2"}, text: "twice in this file", begins: unknown, notes: first},
		"repeated later":                {files: files{l.insert(7, l[2:3])}, want: []string{"repeated f1:8 2-2"}, text: "twice in this file", begins: unknown, notes: first},
		"records repeated":              {files: files{l.insert(7, l[2:5])}, want: []string{"repeated f1:8 2-4"}, text: "twice in this file", begins: unknown, notes: first},

		"tail cut before another begin": {files: files{join(l[:8], next.lines)}, want: []string{"cut f1:8 7"}, text: "f1:9 goes on from its checkpoint 3, and the last one that is there is 1", begins: []audit.BeginClass{audit.Unknown, audit.Unknown}, notes: first},
		"tail cut, expected":            {files: files{l[:6]}, check: audit.Check{Expect: []audit.Expected{expected(t, p.last)}}, want: []string{"cut f1:6 5"}, text: "checkpoint 3 is expected, and the last one that is there is 1", begins: unknown, notes: first},
		"tail cut, expected by file":    {files: files{l[:6]}, check: audit.Check{Expect: []audit.Expected{shipped(t, l[8])}}, want: []string{"cut f1:6 5"}, begins: unknown, notes: first},
		"expected and there":            {files: files{l}, check: audit.Check{Expect: []audit.Expected{expected(t, p.last), shipped(t, l[8])}}, want: none, begins: unknown, notes: first},
		"expected of another process":   {files: files{other.lines}, check: audit.Check{Expect: []audit.Expected{shipped(t, l[8])}}, want: []string{"missing"}, text: "no record of its process is in the files", begins: unknown, notes: first},
		"expected and missing":          {files: files{l[:3], l[6:]}, check: audit.Check{Expect: []audit.Expected{expected(t, p.first)}}, want: []string{"missing", "missing f2:1 3-5"}, begins: unknown, notes: first},
		"from what was shipped on":      {files: files{l[5:]}, check: audit.Check{Expect: []audit.Expected{shipped(t, l[4])}}, want: none, begins: noBegin, notes: none},
		"from a shipped hash on":        {files: files{l[5:]}, check: audit.Check{Strict: true, Expect: []audit.Expected{expected(t, p.first)}}, want: none, begins: noBegin, notes: []string{"no begin f1:1 5"}},
		"from the shipped end on":       {files: files{next.lines}, check: audit.Check{Strict: true, Expect: []audit.Expected{expected(t, p.last)}}, want: none, begins: unknown, notes: first},

		"signed with another key":        {files: files{append(slices.Clone(l[:9]), audit.SignAnew(t, l[9]))}, want: []string{"signature f1:10 9"}, text: "was signed with another key", begins: unknown, notes: first},
		"the same, in another file":      {files: files{l[:6], append(slices.Clone(l[6:8]), audit.SignAnew(t, l[8]))}, want: []string{"signature f2:3 8"}, text: "was signed with another key", begins: unknown, notes: first},
		"its number, in another file":    {files: files{l[:6], l[6:9].changed(2, `"number":2`, `"number":5`)}, want: []string{"forgery f2:3 8"}, text: "checkpoint 5 follows checkpoint 1", begins: unknown, notes: first},
		"the end altered":                {files: files{l.changed(9, `"at":"2`, `"at":"1`)}, want: []string{"signature f1:10 9"}, text: "its signature is about something else", begins: unknown, notes: first},
		"the end lengthened":             {files: files{l.changed(9, `"kind"`, `"error":"x","kind"`)}, want: []string{"signature f1:10 9"}, text: "holds more than its key has signed", begins: unknown, notes: first},
		"the end spelled in another way": {files: files{append(slices.Clone(l[:9]), respelled(l[9]))}, want: []string{"signature f1:10 9"}, text: "spelled in another way", begins: unknown, notes: first},
		"the end signed twice":           {files: files{append(slices.Clone(l[:9]), signedTwice(t, l[9]))}, want: []string{"signature f1:10 9"}, text: "spelled in another way", begins: unknown, notes: first},
		"the end's number changed":       {files: files{l.changed(9, `"number":3`, `"number":4`)}, want: []string{"signature f1:10 9", "forgery f1:10 9"}, begins: unknown, notes: first},
		"a checkpoint altered":           {files: files{l.changed(4, `"number":1`, `"number":2`)}, want: []string{"signature f1:5 4", "forgery f1:5 4", "changed f1:5 4", "forgery f1:6 8"}, begins: unknown, notes: first},
		"a record after the end":         {files: files{append(slices.Clone(l), after(t, l[9]))}, want: []string{"forgery f1:11 10"}, text: "follows record 9, the signed end", begins: unknown, notes: first, unsigned: []int64{1}},
		"another node's file":            {files: files{l, other.lines}, check: audit.Check{Nodes: []string{"worker-1"}}, want: []string{"other node f2:1 0"}, begins: []audit.BeginClass{audit.Unknown, audit.Unknown}, notes: []string{"unknown f1:1 0", "unknown f2:1 0"}},
		"another node's, from within":    {files: files{l, other.lines[3:]}, want: []string{"no begin f2:1 3"}, begins: []audit.BeginClass{audit.Unknown, audit.Absent}, notes: first},
		"both nodes may occur":           {files: files{l, other.lines}, check: audit.Check{Nodes: []string{"worker-1", "worker-2"}}, want: none, begins: []audit.BeginClass{audit.Unknown, audit.Unknown}, notes: []string{"unknown f1:1 0", "unknown f2:1 0"}},
		"a process of another node":      {files: files{join(l, whole(t, "worker-2", &p.last).lines)}, want: []string{"other node f1:11 0"}, begins: []audit.BeginClass{audit.Unknown, audit.Unknown}, notes: first},
		"a process in between missing":   {files: files{join(l, third.lines)}, want: []string{"missing f1:11 0"}, text: "goes on from checkpoint 6 of " + next.boot, begins: []audit.BeginClass{audit.Unknown, audit.Unknown}, notes: first},

		"rewritten before what was shipped": {files: files{rewritten, l[:5]}, want: []string{"forgery f2:1 0", "forgery f2:1 4"}, text: "another begin of this process in f1:1, with another key", begins: unknown, notes: first},
		"rewritten, shipped is longer":      {files: files{rewritten[:6], l}, want: []string{"forgery f1:1 0", "forgery f1:1 4"}, begins: unknown, notes: []string{"unknown f2:1 0"}},
		"rewritten, a checkpoint shipped":   {files: files{rewritten}, check: audit.Check{Expect: []audit.Expected{shipped(t, l[4])}}, want: []string{"forgery f1:10 4"}, text: "checkpoint 1 is another one than expected", begins: unknown, notes: first},
		"rewritten, its number known":       {files: files{rewritten}, check: audit.Check{Expect: []audit.Expected{expected(t, p.first)}}, want: []string{"forgery f1:10 4"}, begins: unknown, notes: first},
		"two go on from one":                {files: files{l, next.lines, whole(t, "worker-1", &p.last).lines}, want: []string{"forgery"}, text: "one of them was made up", begins: three},
		"one that goes on wrote nothing":    {files: files{l, next.lines, whole(t, "worker-1", &p.last).lines[:3]}, want: none, begins: three},
		"goes on from another checkpoint":   {files: files{join(l, whole(t, "worker-1", &audit.Predecessor{Boot: p.boot, Hash: p.first.Hash, Number: 3}).lines)}, want: []string{"forgery f1:11 0"}, text: "goes on from another checkpoint 3", begins: []audit.BeginClass{audit.Unknown, audit.Unknown}, notes: first},

		"killed":                 {files: files{join(l, dead.lines, heir.lines)}, want: none, begins: []audit.BeginClass{audit.Unknown, audit.AfterEnd, audit.AfterNone}, notes: first, unsigned: []int64{0, 2, 0}},
		"killed, much unsigned":  {files: files{muchUnsigned(t)}, want: []string{"unsigned f1:266 265"}, text: "the last 257 records are not signed", begins: []audit.BeginClass{audit.Unknown, audit.AfterNone}, notes: first},
		"predecessor unknown":    {files: files{afar.lines}, want: none, begins: unknown, notes: first},
		"the same, strictly":     {files: files{afar.lines}, check: audit.Check{Strict: true}, want: first, begins: unknown, notes: none},
		"killed within a record": {files: files{join(l, dead.lines, story{dead.lines[5][:60]}, heir.lines)}, want: none, notes: []string{"unknown f1:1 0", "no record f1:22"}, unsigned: []int64{0, 2, 0}},
		"the same in one line":   {files: files{join(l, dead.lines, story{slices.Concat(dead.lines[5][:60], heir.lines[0])}, heir.lines[1:])}, want: none, notes: []string{"unknown f1:1 0", "no record f1:22"}},
		"ends within a record":   {files: files{join(l[:6], story{l[6][:60]})}, open: true, want: none, notes: []string{"unknown f1:1 0", "no record f1:7"}},
		"half a line in between": {files: files{join(l[:6], story{l[6][:60]}, l[6:])}, want: []string{"no record f1:7"}, text: "no process begins behind it", notes: first},
		"a log in between":       {files: files{join(l[:6], story{quiet(`{"level":"INFO","msg":"serving"}`), quiet("panic: x")}, l[6:])}, want: []string{"no record f1:7", "no record f1:8"}, text: "is no record: at, boot", begins: unknown, notes: first},
		"a log, skipped":         {files: files{join(l[:6], story{quiet(`{"level":"INFO","msg":"serving"}`), quiet("panic: x")}, l[6:])}, check: audit.Check{Form: audit.Form{Others: true}}, want: none, begins: unknown, notes: first},
		"another schema":         {files: files{l[:9].changed(5, `"v":1`, `"v":2`)}, want: []string{"no record f1:6", "removed f1:7 5-5"}, text: "has schema version 2", begins: unknown, notes: first},
	}
}

// rewrite is what root of a node makes of a trail with a key of its own: the same process,
// with a record less.
func rewrite(t *testing.T, p *process) story {
	t.Helper()
	forged := whole(t, "worker-1", nil)
	return audit.Resign(t, forged.lines, map[string]string{forged.boot: p.boot})
}

// withLost is a trail of which keymount has not written some records, and says so in records 4
// and 7; 5 is a checkpoint.
func withLost(t *testing.T) story {
	t.Helper()
	chain, p := aProcess(t, "worker-1", nil, 0, nil)
	lost := func(n int64) {
		lines, _, err := chain.Append(audit.Record{Kind: audit.KindLost, Lost: &audit.Lost{Count: n}})
		if err != nil {
			t.Fatal(err)
		}
		p.lines = append(p.lines, lines...)
	}
	p.mounts(t, chain, 3)
	lost(2)
	p.checkpoint(t, chain)
	p.mounts(t, chain, 1)
	lost(9)
	p.checkpoint(t, chain)
	return p.lines
}

func expected(t *testing.T, p audit.Predecessor) audit.Expected {
	t.Helper()
	e, err := audit.ParseExpected(fmt.Sprintf("%d:%s", p.Number, p.Hash))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func shipped(t *testing.T, line []byte) audit.Expected {
	t.Helper()
	e, err := audit.ReadExpected(source("shipped", line), audit.Form{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// after is a record with the right number and hash.
func after(t *testing.T, line []byte) []byte {
	t.Helper()
	r := read(t, line)
	return fmt.Appendf(nil, `{"at":"x","boot":%q,"kind":"mount","node":%q,"prev":%q,"seq":%d,"v":1}`, r.Boot, r.Node, audit.Hash(line), r.Seq+1)
}

// signedTwice is a checkpoint with its signature in two lines.
func signedTwice(t *testing.T, line []byte) []byte {
	t.Helper()
	_, signature, _ := strings.Cut(read(t, line).Checkpoint.Note, "\n\n")
	escaped := strings.Trim(string(must(json.Marshal(signature))), `"`)
	return with(line, escaped, escaped+escaped)
}

// respelled has other bits in the last character of a signature, which mean nothing.
func respelled(line []byte) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	i := bytes.Index(line, []byte(`=\n"`)) - 1
	line = bytes.Clone(line)
	line[i] = alphabet[strings.IndexByte(alphabet, line[i])+1]
	return line
}

func interleaved(a, b story) (all story) {
	for i := range a {
		all = append(all, a[i], b[i])
	}
	return all
}

func muchUnsigned(t *testing.T) story {
	t.Helper()
	p := killed(t, nil, 257)
	return join(p.lines, whole(t, "worker-1", &p.last).lines)
}

// TestVerify does something to a trail, and holds what verify says against it: of the lines as
// they were written, and of what collectors make of them.
func TestVerify(t *testing.T) {
	for name, test := range verifyCases(t) {
		t.Run(name, func(t *testing.T) {
			test.run(t, collector{lines: 1, wrap: func(l []byte) []byte { return l }})
		})
		for by, collector := range collectors() {
			t.Run(name+" in "+by, func(t *testing.T) { test.run(t, collector) })
		}
	}
}

func (c verifyCase) run(t *testing.T, by collector) {
	t.Helper()
	var all []audit.Source
	for i, lines := range c.files {
		var text bytes.Buffer
		for k, line := range lines {
			text.Write(by.wrap(line))
			if i+1 < len(c.files) || k+1 < len(lines) || !c.open {
				text.WriteByte('\n')
			}
		}
		all = append(all, source(fmt.Sprintf("f%d", i+1), text.Bytes()))
	}
	check := c.check
	check.Field = by.field
	report, err := check.Verify(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	// Of two forged trails the order is not known: such a problem is named by its kind alone.
	got := found(report.Problems, by.lines)
	if !slices.EqualFunc(c.want, got, func(want, got string) bool {
		return got == want || strings.HasPrefix(got, want+" ") && !strings.Contains(want, " ")
	}) {
		t.Errorf("problems %q, want %q: %+v", got, c.want, report.Problems)
	}
	if len(report.Problems) > 0 && by.lines == 1 && !strings.Contains(report.Problems[0].Text, c.text) {
		t.Errorf("the first problem is %q, want %q", report.Problems[0].Text, c.text)
	}
	if c.notes != nil && !cmp.Equal(c.notes, found(report.Notes, by.lines)) {
		t.Errorf("notes %v, want %v", report.Notes, c.notes)
	}
	var begins []audit.BeginClass
	var unsigned []int64
	for _, trail := range report.Trails {
		begins, unsigned = append(begins, trail.Begin), append(unsigned, trail.Unsigned)
	}
	if c.begins != nil && !cmp.Equal(c.begins, begins) {
		t.Errorf("the begins are %q, want %q", begins, c.begins)
	}
	if c.unsigned != nil && !cmp.Equal(c.unsigned, unsigned) {
		t.Errorf("unsigned are %d, want %d", unsigned, c.unsigned)
	}
}

// collector is what one makes of a line.
type collector struct {
	field string
	lines int // that a line becomes
	wrap  func(line []byte) []byte
}

func collectors() map[string]collector {
	return map[string]collector{
		"an object": {"", 1, reencoded},
		"a field with a text": {"log", 1, func(line []byte) []byte {
			return must(json.Marshal(map[string]any{"log": string(reencoded(line)) + "\n", "time": "2026-01-01", "kubernetes": map[string]any{"pod": 1.5}}))
		}},
		"a field with an object": {"kubernetes.record", 1, func(line []byte) []byte {
			if line = reencoded(line); !json.Valid(line) {
				line = must(json.Marshal(string(line)))
			}
			return fmt.Appendf(nil, `{ "kubernetes" : {"pod": null, "record": %s}, "@timestamp": 1.5 }`, line)
		}},
		"a dotted name": {"log.record", 1, func(line []byte) []byte {
			return must(json.Marshal(map[string]any{"log.record": string(line)}))
		}},
		"a container runtime": {"", 2, func(line []byte) []byte {
			const front = "2026-11-30T15:11:57.123456789Z stdout "
			half := len(line) / 2
			return slices.Concat([]byte(front+"P "), line[:half], []byte("\n"+front+"F "), line[half:])
		}},
	}
}

// reencoded has the keys of a line in another order, spaces, and each character that can be
// escaped so.
func reencoded(line []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil || d.More() {
		return line
	}
	var out bytes.Buffer
	encode(&out, value)
	return out.Bytes()
}

func encode(out *bytes.Buffer, value any) {
	switch value := value.(type) {
	case map[string]any:
		separator := "{ "
		for name, v := range value { // in any order
			out.WriteString(separator)
			encode(out, name)
			out.WriteString(" :\t")
			encode(out, v)
			separator = " , "
		}
		if len(value) == 0 {
			out.WriteString("{")
		}
		out.WriteString("}")
	case []any:
		out.WriteString("[")
		for i, v := range value {
			out.WriteString(strings.Repeat(",", min(i, 1)) + " ")
			encode(out, v)
		}
		out.WriteString("]")
	case string:
		out.WriteByte('"')
		for _, r := range value {
			if r < 0x10000 && (r < ' ' || r == '"' || r == '\\' || rand.IntN(2) == 0) { //nolint:gosec // G404: any spelling will do
				fmt.Fprintf(out, `\u%04X`, r)
			} else {
				out.WriteRune(r)
			}
		}
		out.WriteByte('"')
	default:
		fmt.Fprint(out, value)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func compressed(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}
