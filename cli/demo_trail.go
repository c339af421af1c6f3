package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/keymount/keymount/audit"
)

// demoTrail is the audit trail in the output of -o json.
type demoTrail struct {
	Records []demoRead `json:"records"`
	// Verified is what keymount audit verify counts in it.
	Verified int64 `json:"verified"`
	// Changed is what it says once a byte is another one.
	Changed string `json:"changed"`
}

// demoRead is a secret in a record of the trail.
type demoRead struct {
	Outcome audit.Outcome `json:"outcome"`
	Pod     string        `json:"pod"`
	Secret  string        `json:"secret"`
	Rule    string        `json:"rule"`
}

// showTrail reads the trail of what happened so far, verifies it, and once more with one byte
// changed.
func (s *scene) showTrail(ctx context.Context) error {
	s.heading("5. The audit trail, audit.jsonl, has each access, and the rule that decided")
	text, err := os.ReadFile(filepath.Join(s.folder, "audit.jsonl"))
	if err != nil {
		return fmt.Errorf("read the trail: %w", err)
	}
	trail := &s.result.Trail
	if trail.Records, err = readsIn(text); err != nil {
		return err
	}
	rows := [][]string{{"OUTCOME", "POD", "SECRET", "RULE"}}
	for _, r := range trail.Records {
		rows = append(rows, []string{string(r.Outcome), r.Pod, r.Secret, r.Rule})
	}
	s.table(rows)
	report, err := verify(ctx, text)
	if err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return fmt.Errorf("the trail does not verify: %s; this must not happen", report.Problems[0].Text)
	}
	trail.Verified = report.Trails[0].Records
	s.say("\n   keymount audit verify: %d records are as they were written\n", trail.Verified)

	changed := bytes.Replace(text, []byte(`"outcome":"granted"`), []byte(`"outcome":"Granted"`), 1)
	if report, err = verify(ctx, changed); err != nil {
		return err
	}
	if len(report.Problems) == 0 {
		return errors.New("the trail verifies with a byte changed; this must not happen")
	}
	trail.Changed = report.Problems[0].Text
	s.say("   and with one byte of it changed: %s\n", s.style.red(trail.Changed))
	return nil
}

// readsIn are the secrets in the records of mounts.
func readsIn(text []byte) ([]demoRead, error) {
	var reads []demoRead
	for line := range bytes.Lines(text) {
		r, err := audit.Read(line)
		if err != nil {
			return nil, fmt.Errorf("read the trail: %w", err)
		}
		for _, secret := range r.Secrets {
			reads = append(reads, demoRead{secret.Outcome, r.Pod.Namespace + "/" + r.Pod.Name, secret.Path, secret.Rule})
		}
	}
	return reads, nil
}

// verify is keymount audit verify of a trail in memory.
func verify(ctx context.Context, text []byte) (*audit.Report, error) {
	check := audit.Check{}
	return check.Verify(ctx, []audit.Source{{Name: "audit.jsonl", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	}}})
}
