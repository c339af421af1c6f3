package audit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/keymount/keymount/audit"
)

// start is a chain with a clock that stands still, and its first line.
func start(t *testing.T) (*audit.Chain, []byte) {
	t.Helper()
	chain, line, err := audit.NewChain(audit.Start{Node: "worker-1", Keymount: "v1.2.3", Now: func() time.Time { return time.Unix(1_790_000_000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return chain, line
}

func read(t *testing.T, line []byte) *audit.Record {
	t.Helper()
	r, err := audit.Read(line)
	if err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return r
}

// Every line names the hash of the line before, and a checkpoint is signed with the key that
// the record before it has named.
func TestChain(t *testing.T) {
	chain, first := start(t)
	lines := [][]byte{first}
	for range 2 {
		more, _, err := chain.Append(audit.Record{Kind: audit.KindMount, Class: "shop-api"})
		if err != nil {
			t.Fatal(err)
		}
		line, _, err := chain.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, more...), line)
	}
	end, last, err := chain.End()
	if err != nil {
		t.Fatal(err)
	}
	lines = append(lines, end)
	if want := (audit.Predecessor{Boot: chain.Boot(), Hash: audit.Hash(end), Number: 3}); last != want {
		t.Errorf("the last checkpoint is %v, want %v", last, want)
	}

	var prev, key string
	for seq, line := range lines {
		r := read(t, line)
		if r.Seq != int64(seq) || r.Prev != prev || r.Node != "worker-1" || r.Boot != chain.Boot() {
			t.Errorf("line %d is %+v, want prev %q", seq, r, prev)
		}
		prev = audit.Hash(line)
		if r.Begin != nil {
			key = r.Begin.Key
		}
		if r.Checkpoint == nil {
			continue
		}
		verifier, err := note.NewVerifier(key)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := note.Open([]byte(r.Checkpoint.Note), note.VerifierList(verifier))
		if err != nil {
			t.Fatalf("line %d: %v", seq, err)
		}
		if want := fmt.Sprintf("%s\n%s\nworker-1\n%s\n%d\n%d\n%s\n%s\nnext %s\n",
			audit.Origin, r.Kind, chain.Boot(), r.Checkpoint.Number, seq, r.Prev, r.At, r.Checkpoint.Next); signed.Text != want {
			t.Errorf("signed %q\nwant   %q", signed.Text, want)
		}
		key = r.Checkpoint.Next
	}
	if key != "" {
		t.Errorf("the end names another key: %s", key)
	}
}

// A record that is too long becomes several, each short enough for a collector, and nothing
// is lost between them.
func TestLongRecords(t *testing.T) {
	var secrets []audit.Secret
	for i := range 300 {
		s := audit.Secret{Store: "prod", Path: fmt.Sprintf("secret/shop/%d/%s", i, strings.Repeat("\"", 500)), Outcome: audit.Granted, Version: "3"}
		for j := range i * 3 {
			s.Files = append(s.Files, fmt.Sprintf("file-%d-%d", i, j))
		}
		secrets = append(secrets, s)
	}
	chain, _ := start(t)
	lines, seq, err := chain.Append(audit.Record{Kind: audit.KindMount, Class: "shop-api", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	if seq != 1 {
		t.Errorf("it begins with record %d, want 1", seq)
	}
	var paths, files int
	for i, line := range lines {
		r := read(t, line)
		if len(line) > 15<<10 || r.Part != i+1 || r.Parts != len(lines) || r.Class != "shop-api" {
			t.Errorf("line %d has %d bytes, and is part %d of %d of class %q", i, len(line), r.Part, r.Parts, r.Class)
		}
		for _, s := range r.Secrets {
			if !s.More {
				paths++
			}
			for _, f := range s.Files {
				want := fmt.Sprintf("file-%d-", paths-1)
				if !strings.HasPrefix(f, want) {
					t.Fatalf("%s is a file of secret %d", f, paths-1)
				}
				files++
			}
		}
	}
	if want := 3 * 299 * 300 / 2; paths != 300 || files != want {
		t.Errorf("%d secrets with %d files, want 300 with %d", paths, files, want)
	}
}

// A trail that could not be verified does not begin.
func TestHostileNode(t *testing.T) {
	for _, node := range []string{"a\nb", "a\rb", "a\tb", "a\x00b", "a\xffb"} {
		if _, _, err := audit.NewChain(audit.Start{Node: node, Now: time.Now}); err == nil {
			t.Errorf("a trail of node %q begins", node)
		}
	}
}
