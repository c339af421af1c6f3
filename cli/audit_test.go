package cli_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/sumdb/note"

	"github.com/keymount/keymount/audit"
)

// trail makes the audit trail of two processes: the first is stopped, and the second is killed.
// Beside old.jsonl and new.jsonl there is what was done to them, and what others made of them.
func trail(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: trail")
	}
	now := time.Date(2026, 9, 21, 14, 0, 0, 0, time.UTC)
	secret, public, err := note.GenerateKey(rand.Reader, "audit")
	ts.Check(err)
	_, another, err := note.GenerateKey(rand.Reader, "audit")
	ts.Check(err)
	origin, err := note.NewSigner(secret)
	ts.Check(err)
	ts.Setenv("KEY", public)
	ts.Setenv("OTHER", another)
	s := &story{ts: ts, origin: origin, now: func() time.Time { now = now.Add(time.Minute); return now }}
	first := s.process(nil, s.morning)
	second := s.process(&s.last, s.evening)
	write := func(name string, lines ...[]byte) {
		ts.Check(os.WriteFile(ts.MkAbs(name), append(bytes.Join(lines, []byte("\n")), '\n'), 0o600))
	}
	write("old.jsonl", first...)
	write("new.jsonl", second...)
	write("changed.jsonl", replaced(first, 2, "shop/db", "shop/dc")...)
	write("cut.jsonl", first[:5]...)
	write("night.jsonl", s.process(&s.last, s.night)...)
	write("rotated.jsonl", first[6:]...)
	write("before.jsonl", first[5])
	write("shipped.jsonl", first[len(first)-1])
	ts.Setenv("LAST", fmt.Sprintf("%d:%s", s.last.Number, s.last.Hash))
	var wrapped, container [][]byte
	for _, line := range first {
		text, err := json.Marshal(map[string]string{"log": string(line) + "\n", "time": "2026"})
		ts.Check(err)
		wrapped = append(wrapped, text)
		container = append(container, append([]byte("2026-09-21T14:00:00.1Z stdout F "), line...))
	}
	write("wrapped.jsonl", wrapped...)
	write("container.log", slices.Insert(container, 3, []byte(`2026-09-21T14:00:00.1Z stderr F {"level":"INFO","msg":"serving"}`))...)
}

func replaced(lines [][]byte, i int, before, after string) [][]byte {
	lines = slices.Clone(lines)
	lines[i] = bytes.Replace(lines[i], []byte(before), []byte(after), 1)
	return lines
}

// story writes a trail.
type story struct {
	ts     *testscript.TestScript
	now    func() time.Time
	origin note.Signer
	chain  *audit.Chain
	lines  [][]byte
	last   audit.Predecessor
}

// process is the trail of one process, which writes some records.
func (s *story) process(before *audit.Predecessor, write func()) [][]byte {
	chain, line, err := audit.NewChain(audit.Start{Node: "worker-1", Keymount: "v1.2.3", Predecessor: before, Origin: s.origin, Now: s.now})
	s.ts.Check(err)
	s.chain, s.lines = chain, [][]byte{line}
	write()
	return s.lines
}

func (s *story) add(r audit.Record) {
	lines, _, err := s.chain.Append(r)
	s.ts.Check(err)
	s.lines = append(s.lines, lines...)
}

func (s *story) seal(line []byte, last audit.Predecessor, err error) {
	s.ts.Check(err)
	s.lines, s.last = append(s.lines, line), last
}

// mount is one by a pod of service account api.
func mount(namespace, pod string, outcome audit.Outcome, secrets ...audit.Secret) audit.Record {
	return audit.Record{
		Kind: audit.KindMount, Class: "api", Outcome: outcome, Secrets: secrets,
		Pod: &audit.Pod{Name: pod, Namespace: namespace, UID: "uid-" + pod}, ServiceAccount: &audit.ServiceAccount{Name: "api"},
	}
}

// secret is one of the store prod.
func secret(path string, outcome audit.Outcome, rule string) audit.Secret {
	s := audit.Secret{Store: "prod", Role: "api", Path: path, Outcome: outcome, Rule: rule, Scope: audit.ScopePath}
	switch outcome {
	case audit.Granted:
		s.Files = []string{"files/" + path}
	case audit.Denied:
		s.List = "paths"
	case audit.NotFound:
		s.Reason = "not found"
	case audit.Failed, audit.Undelivered:
	}
	return s
}

func (s *story) morning() {
	const rule = "stores[0].access[0]"
	s.add(audit.Record{Kind: audit.KindConfig, Config: &audit.Config{File: "keymount.yaml", SHA256: "00", Stores: 1}})
	s.add(mount("shop", "api-1", audit.Granted, secret("secret/shop/db", audit.Granted, rule), secret("secret/shop/maybe", audit.NotFound, rule)))
	s.add(mount("billing", "job-1", audit.Denied, secret("secret/shop/db", audit.Denied, "stores[0].access[1]")))
	s.add(audit.Record{Kind: audit.KindCount, Counts: []audit.Count{{
		Class: "api", Count: 12, First: "2026-09-21T14:05:00.000000Z", Last: "2026-09-21T14:16:00.000000Z",
		Pod: audit.Pod{Name: "api-1", Namespace: "shop", UID: "uid-api-1"}, ServiceAccount: "api",
	}}})
	s.seal(s.chain.Checkpoint())
	s.add(audit.Record{Kind: audit.KindLease, Lease: &audit.Lease{Change: "issued", Store: "prod", Name: "x", Path: "database/creds/shop"}})
	s.seal(s.chain.End())
}

func (s *story) evening() {
	login := secret("secret/data/shop/db", audit.Denied, "stores[0].access[0]")
	login.Scope, login.List = audit.ScopeLogin, "namespaces"
	pki := secret("pki/issue/shop", audit.Granted, "stores[0].access[0]")
	pki.Write = true
	s.add(mount("shop", "api-2", audit.Granted, secret("secret/shop/db", audit.Granted, "stores[0].access[0]"), pki))
	s.add(mount("test", "api-3", audit.Denied, login))
	s.add(mount("shop", "api-4", audit.Granted, secret("secret/shop/a*b", audit.Granted, "stores[0].access[0]")))
	s.seal(s.chain.Checkpoint())
	s.add(mount("shop", "api-5", audit.Failed, secret("secret/shop/later", audit.Failed, "stores[0].access[0]")))
	s.add(mount("shop", "api-6", audit.Failed))
	s.add(audit.Record{
		Kind: audit.KindStale, Stale: &audit.Stale{State: "begin", Store: "prod", Cause: "store unavailable"},
		Secrets: []audit.Secret{secret("secret/shop/db", audit.Granted, "stores[0].access[0]")},
	})
}

// night has a mount that failed for one of two secrets, and one that was withdrawn.
func (s *story) night() {
	const rule = "stores[0].access[0]"
	s.add(mount("shop", "api-7", audit.Granted, secret("secret/shop/db", audit.Granted, rule)))
	s.add(mount("shop", "api-8", audit.NotFound, secret("secret/shop/db", audit.Granted, rule), secret("secret/shop/gone", audit.NotFound, rule)))
	s.add(mount("shop", "api-7", audit.Granted, secret("secret/shop/new", audit.Granted, rule)))
	s.add(audit.Record{Kind: audit.KindWithdrawn, Withdrawn: &audit.Withdrawn{Seq: 3}})
	s.add(audit.Record{Kind: audit.KindWithdrawn, Withdrawn: &audit.Withdrawn{Seq: 99}})
	s.add(audit.Record{Kind: audit.KindCount, Counts: []audit.Count{{
		Class: "api", Count: 5, First: "2026-09-21T14:25:00.000000Z", Last: "2026-09-21T14:26:00.000000Z",
		Pod: audit.Pod{Name: "api-7", Namespace: "shop", UID: "uid-api-7"}, ServiceAccount: "api",
	}}})
}
