package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/audit"
)

// verification is the command line of audit verify.
type verification struct {
	trailFlags

	nodes, keys, expect []string
	strict              bool
}

func newAuditVerify() *cobra.Command {
	var v verification
	command := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Tell whether the audit trail is as it was written",
		Long: `Hold the records of the trail against each other and against their signatures, and say where
one was changed, removed, repeated or moved, where the end was cut, and where a file is missing.
Files may be given in any order, and twice. Where keymount has removed its oldest files, the first
that is left begins behind a checkpoint: that is said, and --expect with a file that ends with the
very checkpoint tells whether it is so. Another trail of which the begin is not there is a problem.

Records that were cut off the end of the trail are missed by what came later: the next process
names the last checkpoint before it; otherwise give a checkpoint that has left the node in time,
as NODE:NUMBER:HASH, as NUMBER:HASH of any node, or as a file whose last checkpoint is meant. A
trail that root of a node has written anew is told from the true one by such a checkpoint, or by a
copy given beside it.

Each process begins after the end of another one, or after no end: that one was killed, and its
last records, 256 or a second of them, are not signed. Where a process names none before it, or
one that is not in the files, that is said, and is a problem with --strict, as are oldest files
that are not there. The last checkpoint of each node is printed for a later --expect.

The exit code is 0 when all is verified, 3 when there are problems, 1 when a file cannot be read.`,
		Example: `  keymount audit verify /var/log/keymount/audit*
  keymount audit verify --expect worker-1:1234:6tU8...xk audit.jsonl
  kubectl logs -n kube-system keymount-x7x2k | keymount audit verify --skip-others -`,
		Args:              fileArgs(),
		ValidArgsFunction: byFiles(),
		RunE:              v.run,
	}
	v.addFlags(command)
	flags := command.Flags()
	flags.StringArrayVar(&v.nodes, "node", nil, "a node that may occur; may be repeated (default: any)")
	flags.StringArrayVar(&v.keys, "key", nil, "the public half of audit.keyFile, as 'keymount audit keygen' prints it, which begins of processes must be signed with; may be repeated")
	flags.StringArrayVar(&v.expect, "expect", nil, "a checkpoint that must be there: NODE:NUMBER:HASH, NUMBER:HASH, or a file that ends with it; may be repeated")
	completeFile(command, "expect")
	flags.BoolVar(&v.strict, "strict", false, "take a process without a known one before it, or without its begin, for a problem")
	return command
}

func (v *verification) run(cmd *cobra.Command, args []string) error {
	check := audit.Check{Form: v.form, Nodes: v.nodes, Strict: v.strict}
	var err error
	if check.Keys, err = audit.ParseKeys(v.keys); err != nil {
		return usagef("--key: %w", err)
	}
	for _, text := range v.expect {
		expected, err := v.expected(text)
		if err != nil {
			return err
		}
		check.Expect = append(check.Expect, expected)
	}
	files, progress := trailFiles(cmd, args)
	report, err := check.Verify(cmd.Context(), files)
	progress.end()
	if err != nil {
		return err
	}
	if err := printResult(cmd, report, func(w io.Writer) { printReport(w, report, styleOf(cmd.OutOrStdout())) }); err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return exitError{code: exitFound}
	}
	return nil
}

// expected is a checkpoint by number and hash, or the last one in a file.
func (v *verification) expected(text string) (audit.Expected, error) {
	e, err := audit.ParseExpected(text)
	if err == nil {
		return e, nil
	}
	_, isFile := os.Stat(text)
	if errors.Is(isFile, fs.ErrNotExist) {
		return e, usagef("--expect: %w; and there is no such file", err)
	}
	e, err = audit.ReadExpected(audit.Source{Name: text, Open: func() (io.ReadCloser, error) { return os.Open(text) }}, v.form)
	if err != nil {
		return e, fmt.Errorf("--expect: %w", err)
	}
	return e, nil
}

func printReport(w io.Writer, r *audit.Report, s style) {
	rows := [][]string{{"NODE", "PROCESS", "BEGIN", "RECORDS", "CHECKPOINTS", "UNSIGNED", "END"}}
	for _, t := range r.Trails {
		end := "none"
		if t.Ended {
			end = "signed"
		}
		rows = append(rows, []string{
			shown(t.Node), shown(t.Boot), string(t.Begin), strconv.FormatInt(t.Records, 10),
			strconv.FormatInt(t.Checkpoints, 10), strconv.FormatInt(t.Unsigned, 10), end,
		})
	}
	printTable(w, rows)
	printNotes(w, "notes", r.Notes, s.dim)
	printNotes(w, "problems", r.Problems, s.red)
	if r.More > 0 {
		_, _ = fmt.Fprintf(w, "  and %d more\n", r.More)
	}
	_, _ = fmt.Fprintln(w)
	for i, t := range r.Trails {
		if t.Hash != "" && (i+1 == len(r.Trails) || r.Trails[i+1].Node != t.Node) {
			_, _ = fmt.Fprintf(w, "last checkpoint: %s:%d:%s\n", shown(t.Node), t.Checkpoint, t.Hash)
		}
	}
	printVerdict(w, r, s)
}

func printNotes(w io.Writer, title string, problems []audit.Problem, paint func(string) string) {
	if len(problems) == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "\n%s:\n", title)
	for _, p := range problems {
		place := p.Place()
		if place != "" {
			place += ": "
		}
		_, _ = fmt.Fprintf(w, "  %s%s\n", place, paint(p.Text))
	}
}

func printVerdict(w io.Writer, r *audit.Report, s style) {
	var records, others, unsigned int64
	for _, f := range r.Files {
		others += f.Others
	}
	for _, t := range r.Trails {
		records, unsigned = records+t.Records, unsigned+t.Unsigned
	}
	verdict := s.green("all verified")
	if n := int64(len(r.Problems)) + r.More; n > 0 {
		verdict = s.red(fmt.Sprintf("problems: %d", n))
	}
	_, _ = fmt.Fprintf(w, "files: %d, records: %d, unsigned: %d, other lines: %d; %s\n", len(r.Files), records, unsigned, others, verdict)
}
