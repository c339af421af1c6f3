package audit_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/keymount/keymount/audit"
)

// Rotated files are compressed, whatever their names say.
func TestVerifyCompressed(t *testing.T) {
	l := story(whole(t, "worker-1", nil).lines)
	report, err := new(audit.Check).Verify(t.Context(), []audit.Source{
		source("new", text(l[5:])), source("old.gz", compressed(t, text(l[:5]))),
	})
	if err != nil || len(report.Problems) > 0 || report.Trails[0].Records != 10 || report.Trails[0].Hash != audit.Hash(l[9]) || report.Trails[0].Checkpoints != 3 {
		t.Errorf("%v: %+v", err, report)
	}
}

// Of a stream that cannot be read again a shared checkpoint has to do.
func TestVerifyStream(t *testing.T) {
	l := story(whole(t, "worker-1", nil).lines)
	for name, test := range map[string]struct {
		again    story
		problems int
	}{"with a checkpoint": {l[:7], 0}, "without": {l[:4], 1}} {
		stream := source("stream", text(l))
		stream.Once = true
		report, err := new(audit.Check).Verify(t.Context(), []audit.Source{stream, source("f1", text(test.again))})
		if err != nil || len(report.Problems) != test.problems {
			t.Errorf("%s: %v: %+v", name, err, report)
		}
	}
}

// What cannot be read is an error, and no report.
func TestVerifyUnreadable(t *testing.T) {
	l := text(whole(t, "worker-1", nil).lines)
	z := compressed(t, l)
	for name, file := range map[string]audit.Source{
		"absent": {Name: "absent", Open: func() (io.ReadCloser, error) { return nil, errors.New("open absent: no such file") }},
		"cut":    source("cut", z[:len(z)-20]),
		"magic":  source("magic", z[:2]),
	} {
		report, err := new(audit.Check).Verify(t.Context(), []audit.Source{file})
		if err == nil || report != nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, report, err)
		}
	}
}

// A begin can be signed with a key of the operator's.
func TestVerifyOrigin(t *testing.T) {
	key := func() (note.Signer, string) {
		secret, public, err := note.GenerateKey(rand.Reader, "audit")
		if err != nil {
			t.Fatal(err)
		}
		signer, err := note.NewSigner(secret)
		if err != nil {
			t.Fatal(err)
		}
		return signer, public
	}
	signer, public := key()
	_, another := key()
	_, signed := aProcess(t, "worker-1", nil, 1, signer)
	_, bare := aProcess(t, "worker-1", nil, 1, nil)
	altered := story(signed.lines).changed(0, `"key":"worker-1`, `"key":"worker-2`)
	for name, test := range map[string]struct {
		lines story
		keys  []string
		want  string
	}{
		"signed":             {signed.lines, []string{public}, ""},
		"signed by one":      {signed.lines, []string{another, public}, ""},
		"signed, not asked":  {signed.lines, nil, ""},
		"by another":         {signed.lines, []string{another}, "the begin was signed with another key"},
		"about another key":  {altered[:1], []string{public}, "the begin was changed: its signature is about something else"},
		"not signed":         {bare.lines, []string{public}, "the begin is not signed; audit.keyFile names the key for that"},
		"not signed, no ask": {bare.lines, nil, ""},
	} {
		keys, err := audit.ParseKeys(test.keys)
		if err != nil {
			t.Fatal(err)
		}
		report, err := (&audit.Check{Keys: keys}).Verify(t.Context(), []audit.Source{source("f1", text(test.lines))})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, p := range report.Problems {
			got += p.Text
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if _, err := audit.ParseKeys([]string{"audit+1+x"}); err == nil {
		t.Error("it takes a key that is none")
	}
}

// A mount that is too large for one record is one that is not signed.
func TestVerifyParts(t *testing.T) {
	var secrets []audit.Secret
	for i := range 100 {
		secrets = append(secrets, audit.Secret{Path: fmt.Sprint(i, strings.Repeat("x", 1000))})
	}
	lines := written(t, audit.Record{Kind: audit.KindMount, Secrets: secrets})
	report, err := new(audit.Check).Verify(t.Context(), []audit.Source{source("f1", text(lines))})
	if err != nil || len(lines) < 5 || report.Trails[0].Unsigned != 2 || report.Trails[0].Records != int64(len(lines)) {
		t.Errorf("%v: %+v of %d lines", err, report, len(lines))
	}
}

// A line that has its end was written as it is, unless another process begins behind it.
func TestVerifyHalfLine(t *testing.T) {
	l := whole(t, "worker-1", nil).lines
	half := text(append(l[:6:6], l[6][:60]))
	if !isFound(t, half) || isFound(t, half[:len(half)-1]) {
		t.Error("the end of a line does not count")
	}
	part := slices.Concat(text(l[:6]), []byte("2026-11-30T15:11:57Z stdout P "), l[6][:60], []byte("\n"))
	report, err := new(audit.Check).Verify(t.Context(), []audit.Source{source("f1", part)})
	if err != nil || len(report.Problems) > 0 || len(report.Notes) != 2 {
		t.Errorf("a part of a line: %v: %+v", err, report)
	}
}

// What is no trail is not verified.
func TestVerifyNothing(t *testing.T) {
	l := whole(t, "worker-1", nil).lines[0]
	twice := fmt.Sprintf("{\"log\":%s,\"log\":%s}", l, with(l, "v1.2.3", "v1.2.4"))
	for name, test := range map[string]struct{ text, want string }{
		"empty":          {"", "there is no record in the files"},
		"a field twice":  {twice, "has the field log twice"},
		"no field":       {`{"msg":1}`, "has no field log; --field names the one with the record"},
		"an odd field":   {`{"log":[1]}`, "is no object, as a record is"},
		"no text":        {`{"log":"` + "\xff" + `"}`, "is not UTF-8"},
		"no object":      {`12`, "is no JSON object"},
		"several values": {`{"log":{}} {}`, "there is more than one JSON value"},
	} {
		check := audit.Check{Form: audit.Form{Field: "log"}}
		report, err := check.Verify(t.Context(), []audit.Source{source("f1", []byte(test.text))})
		if err != nil || len(report.Problems) == 0 || report.Problems[0].Text != test.want && report.Problems[len(report.Problems)-1].Text != test.want {
			t.Errorf("%s: %v, %+v, want %q", name, err, report.Problems, test.want)
		}
	}
}

func TestParseExpected(t *testing.T) {
	for _, bad := range []string{"", "1", "1:", ":" + strings.Repeat("A", 43), "0:" + strings.Repeat("A", 43), "-1:" + strings.Repeat("A", 43), "1:" + strings.Repeat("A", 42), "1:" + strings.Repeat("A", 42) + "B", "1:" + strings.Repeat("A", 43) + "="} {
		if e, err := audit.ParseExpected(bad); err == nil {
			t.Errorf("it takes %q as %v", bad, e)
		}
	}
	hash := strings.Repeat("A", 43)
	for _, bad := range []string{":1:" + hash, "worker-1::" + hash, "worker-1:x:" + hash, "worker-1:1", "worker-1:" + hash} {
		if e, err := audit.ParseExpected(bad); err == nil {
			t.Errorf("it takes %q as %v", bad, e)
		}
	}
	if e, err := audit.ParseExpected("worker-1:12:" + hash); err != nil || e.Node != "worker-1" || e.Number != 12 || e.Hash != hash {
		t.Errorf("%v, %+v", err, e)
	}
	if _, err := audit.ReadExpected(source("f1", whole(t, "worker-1", nil).lines[1]), audit.Form{}); err == nil {
		t.Error("it takes a file without a checkpoint")
	}
}

func text(lines [][]byte) []byte { return append(bytes.Join(lines, []byte("\n")), '\n') }

// Any byte that is changed is found, unless the line means the same as before: \u001f is
// \u001F.
func TestVerifyEachByte(t *testing.T) {
	l := whole(t, "worker-1", nil).lines
	whole := text(l)
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		if !isFound(t, flipped) && !same(whole, flipped) {
			t.Fatalf("byte %d, %q, is now %q, and that is not found: %s", i, whole[i], flipped[i], flipped[max(0, i-20):min(len(whole), i+20)])
		}
	}
}

// isFound tells whether verify has a problem with a text.
func isFound(tb testing.TB, text []byte) bool {
	tb.Helper()
	report, err := new(audit.Check).Verify(tb.Context(), []audit.Source{source("f1", text)})
	return err != nil || len(report.Problems) > 0
}

// same tells whether the lines of two texts are the same records.
func same(a, b []byte) bool {
	all, others := bytes.Split(bytes.TrimSpace(a), []byte("\n")), bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	for i, line := range all {
		x, err := audit.Canonical(line)
		if i >= len(others) || err != nil {
			return false
		}
		if y, err := audit.Canonical(others[i]); err != nil || !bytes.Equal(x, y) {
			return false
		}
	}
	return len(all) == len(others)
}

// A trail verifies whatever names a pod's author has thought of, and any byte that is
// changed in it is found.
func FuzzVerify(f *testing.F) {
	f.Add("shop/db", "worker-1", "denied", uint32(100), byte(1))
	f.Add("\"\\\u2028\u2029", "a\tb", "\xff\xfe", uint32(300), byte(32))
	f.Add("}\n{\"at\":\"", "é\u0085", "\x00\x7f<>&", uint32(5), byte(0x80))
	f.Add("\ufffd\ud7ff😀", "a+b c", "{\"at\":\"2026\"", uint32(999), byte(7))
	f.Fuzz(func(t *testing.T, path, node, message string, at uint32, flip byte) {
		chain, begin, err := audit.NewChain(audit.Start{Node: node, Keymount: message, Now: clock()})
		if err != nil {
			return
		}
		all := [][]byte{begin}
		record := audit.Record{Kind: audit.KindMount, Error: message, Secrets: []audit.Secret{{Path: path, Files: []string{path, message}}}}
		appended, _, err := chain.Append(record)
		if err != nil {
			t.Fatal(err)
		}
		checkpoint, _, err := chain.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		more, _, err := chain.Append(record)
		if err != nil {
			t.Fatal(err)
		}
		end, _, err := chain.End()
		if err != nil {
			t.Fatal(err)
		}
		whole := text(append(append(append(append(all, appended...), checkpoint), more...), end))
		report, err := new(audit.Check).Verify(t.Context(), []audit.Source{source("f1", whole)})
		if err != nil || len(report.Problems) > 0 {
			t.Fatalf("%v: %+v\n%s", err, report, whole)
		}
		flipped := bytes.Clone(whole)
		flipped[int(at)%len(whole)] ^= flip
		if !bytes.Equal(whole, flipped) && !isFound(t, flipped) && !same(whole, flipped) {
			t.Fatalf("byte %d is changed by %x, and that is not found:\n%s", int(at)%len(whole), flip, flipped)
		}
	})
}

// Whatever is in a file, verify ends and says something.
func FuzzVerifyAny(f *testing.F) {
	l := whole(f, "worker-1", nil).lines
	f.Add(text(l), "")
	f.Add(text(append(l[3:], l[:5]...)), "")
	f.Add([]byte("{\"log\":{\"a\":{}}}\n"), "log.a")
	f.Add([]byte("2026 stdout P {\n2026 stderr F {\n1 stdout F }"), "")
	f.Add([]byte{0x1f, 0x8b}, "")
	f.Add([]byte(`{"at":"","boot":"","kind":"begin","node":"","prev":"","seq":0,"v":1}`), "")
	f.Add([]byte(`{"at":"","begin":{},"boot":"b","kind":"begin","node":"","prev":"","seq":0,"v":1}`+"\n"+`{"at":"","boot":"b","checkpoint":{"number":-9},"kind":"end","node":"","prev":"x","seq":9007199254740991,"v":1}`), "")
	f.Fuzz(func(t *testing.T, text []byte, field string) {
		check := audit.Check{Form: audit.Form{Field: field}}
		report, err := check.Verify(t.Context(), []audit.Source{source("f1", text), source("f2", text)})
		if err == nil {
			for _, p := range append(report.Problems, report.Notes...) {
				_ = p.Place()
			}
		}
	})
}

// BenchmarkVerify verifies records of one secret each.
func BenchmarkVerify(b *testing.B) {
	const records = 100_000
	whole := largeTrail(b, records)
	b.SetBytes(int64(len(whole)))
	b.ReportAllocs()
	for b.Loop() {
		report, err := new(audit.Check).Verify(b.Context(), []audit.Source{source("f1", whole)})
		if err != nil || len(report.Problems) > 0 {
			b.Fatalf("%v: %+v", err, report)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
}

func largeTrail(tb testing.TB, records int) []byte {
	tb.Helper()
	chain, begin, err := audit.NewChain(audit.Start{Node: "worker-1", Keymount: "v1.2.3", Now: clock()})
	if err != nil {
		tb.Fatal(err)
	}
	out := bytes.NewBuffer(append(begin, '\n'))
	for i := range records {
		r := audit.Record{
			Kind: audit.KindMount, Class: "shop-api", Code: "OK", Files: 1, Outcome: audit.Granted, Us: 1234,
			Pod:            &audit.Pod{Name: fmt.Sprintf("api-%d", i), Namespace: "shop", UID: "0b1c5b5a-6d5e-4d0e-9b57-2f3c6f9f3a11"},
			ServiceAccount: &audit.ServiceAccount{Name: "api", UID: "7f1c5b5a-6d5e-4d0e-9b57-2f3c6f9f3a22"},
			Tokens:         []audit.Token{{Audience: "vault", ID: "5c1c5b5a-6d5e-4d0e-9b57-2f3c6f9f3a33", Stores: []string{"prod"}}},
			Secrets: []audit.Secret{{
				Store: "prod", Role: "shop-api", Path: "secret/shop/db", Files: []string{"db/password"}, Outcome: audit.Granted, Version: "3",
				Rule: "stores[0].access[0]", Scope: audit.ScopePath, Source: "store", Request: "9a1c5b5a-6d5e-4d0e-9b57-2f3c6f9f3a44",
			}},
		}
		some, _, err := chain.Append(r)
		if err != nil {
			tb.Fatal(err)
		}
		if chain.Unsigned() >= 255 {
			line, _, err := chain.Checkpoint()
			if err != nil {
				tb.Fatal(err)
			}
			some = append(some, line)
		}
		out.Write(text(some))
	}
	end, _, err := chain.End()
	if err != nil {
		tb.Fatal(err)
	}
	out.Write(append(end, '\n'))
	return out.Bytes()
}

// A number of a checkpoint is that of many: of each node, and of each process that began
// without one before it. All are asked before one is accused.
func TestVerifyExpectedAmongMany(t *testing.T) {
	a, b, gone, away := whole(t, "worker-1", nil), whole(t, "worker-1", nil), whole(t, "worker-1", nil), whole(t, "worker-2", nil)
	for name, expect := range map[string]audit.Predecessor{"the first": a.last, "the second": b.last, "of another node": away.last, "an earlier one": b.first} {
		report := checked(t, audit.Check{Expect: []audit.Expected{expected(t, expect)}}, a.lines, b.lines, away.lines)
		if len(report.Problems) > 0 {
			t.Errorf("%s: %+v", name, report.Problems)
		}
	}
	named := func(node string, p audit.Predecessor) audit.Expected {
		e, err := audit.ParseExpected(fmt.Sprintf("%s:%d:%s", node, p.Number, p.Hash))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for name, test := range map[string]struct {
		expect audit.Expected
		want   []string
	}{
		"of the node":         {named("worker-2", away.last), nil},
		"in none of them":     {expected(t, gone.last), []string{"is in no trail", a.boot, b.boot, away.boot}},
		"of a node with none": {named("worker-2", gone.last), []string{away.boot + "/9: checkpoint 3 is another one than expected: the trail was written anew, or that with the expected one is not in the files"}},
		"of a node not there": {named("worker-3", gone.last), []string{"no record of its process"}},
	} {
		report := checked(t, audit.Check{Expect: []audit.Expected{test.expect}}, a.lines, b.lines, away.lines)
		got := saying(report.Problems)
		for _, want := range test.want {
			if len(report.Problems) != 1 || !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if test.want == nil && got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// A begin hangs on the last checkpoint of the process before; one written with an old one has
// numbers that are taken. A state file may be one behind.
func TestVerifyOlderPredecessor(t *testing.T) {
	a := whole(t, "worker-1", nil) // with checkpoints 1, 2 and 3
	second := audit.Predecessor{Boot: a.boot, Hash: audit.Hash(a.lines[8]), Number: 2}
	b := whole(t, "worker-1", &a.last)
	for name, test := range map[string]struct {
		before        audit.Predecessor
		problem, note string
	}{
		"two behind": {a.first, "goes on from checkpoint 1 of " + a.boot + ", whose last one is 3: its checkpoints have numbers that are taken", ""},
		"one behind": {second, "", "goes on from checkpoint 2 of " + a.boot + ", and not from its last one, 3"},
	} {
		report := checked(t, audit.Check{}, a.lines, b.lines, whole(t, "worker-1", &test.before).lines)
		problems, notes := saying(report.Problems), saying(report.Notes)
		if len(report.Problems) > 1 || problems == "" != (test.problem == "") || !strings.Contains(problems, test.problem) || !strings.Contains(notes, test.note) {
			t.Errorf("%s: problems %q, notes %q", name, problems, notes)
		}
	}
}

// More records without a signature than a process leaves are a problem at the end of each trail.
func TestVerifyUnsignedEnd(t *testing.T) {
	tail := func(n int) story { return killed(t, nil, n).lines }
	chain, fresh := aProcess(t, "worker-1", nil, 0, nil)
	fresh.mounts(t, chain, 256) // and the begin
	cut := tail(400)
	for name, test := range map[string]struct {
		files files
		want  string
	}{
		"as many as there may be":  {files{tail(256)}, ""},
		"one more":                 {files{tail(257)}, "the last 257 records are not signed, and a process leaves 256 at most"},
		"in two files":             {files{cut[:200], cut[200:]}, "the last 400 records are not signed"},
		"with the begin":           {files{fresh.lines}, "the last 257 records are not signed"},
		"without the begin either": {files{cut[9:]}, "the last 400 records are not signed"},
	} {
		report := checked(t, audit.Check{}, test.files...)
		if got := saying(report.Problems); got == "" != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// A process signs each second, so that what it leaves unsigned spans not much more.
func TestVerifyLongEnd(t *testing.T) {
	for pause, want := range map[time.Duration]string{
		time.Second: "", -time.Hour: "", time.Minute: "the last 3 records are not signed and span 2m0s",
	} {
		now := time.Unix(1_790_000_000, 0)
		chain, begin, err := audit.NewChain(audit.Start{Node: "worker-1", Now: func() time.Time { now = now.Add(pause); return now }})
		if err != nil {
			t.Fatal(err)
		}
		p := &process{lines: [][]byte{begin}}
		p.mounts(t, chain, 4)
		p.checkpoint(t, chain)
		p.mounts(t, chain, 3)
		signed := checked(t, audit.Check{}, p.lines[:6])
		if len(signed.Notes) != 1 {
			t.Errorf("%s: of what is signed %+v", pause, signed.Notes)
		}
		report := checked(t, audit.Check{}, p.lines[:7], p.lines[7:])
		if got := saying(report.Notes[1:]); got == "" != (want == "") || !strings.Contains(got, want) || len(report.Problems) > 0 {
			t.Errorf("%s: %q, want %q: %+v", pause, got, want, report.Problems)
		}
	}
}
