package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/audit"
)

// exitFound ends commands that look for something and found it: problems of a trail, accesses
// with another answer.
const exitFound = 3

func newAudit() *cobra.Command {
	command := &cobra.Command{
		Use:   "audit",
		Short: "Verify and read the audit trail",
		Long: `Verify and read the audit trail: the records of which pod read which secret, when, by which
rule, and what was refused.

FILE is a file of the trail, plain or compressed with gzip, as keymount wrote it or as a
collector or the container runtime has kept it; several are given in any order, of one node or
of many. Where a collector has put each line into an object of its own, --field names the field
with the record. Where the stream has lines of something else, too, --skip-others passes over
them.`,
		Example: `  keymount audit verify /var/log/keymount/audit*
  keymount audit who secret/shop/db /var/log/keymount/audit*`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(newAuditVerify(), newAuditShow(), newAuditWho(), newAuditRules(), newAuditReplay(), newAuditKeygen())
	return command
}

// trailFlags say how a trail is read.
type trailFlags struct{ form audit.Form }

func (f *trailFlags) addFlags(command *cobra.Command) {
	command.Flags().StringVar(&f.form.Field, "field", "", "the field of a collector's object that holds the record, such as log or kubernetes.log")
	command.Flags().BoolVar(&f.form.Others, "skip-others", false, "pass over lines without a record, such as those of the program's log")
}

// fileArgs wants at least one file behind the arguments with these names.
func fileArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		for i, name := range append(names, "FILE") {
			if len(args) <= i || args[i] == "" {
				return usagef("%s is missing", name)
			}
		}
		return nil
	}
}

// behind completes file names behind n arguments that nothing is known of.
func behind(n int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) < n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

// trailFiles are the files of a command line, with a progress bar where they are long and a
// person waits.
func trailFiles(cmd *cobra.Command, names []string) ([]audit.Source, *progress) {
	p := &progress{w: cmd.ErrOrStderr(), silent: !isTerminal(cmd.ErrOrStderr()), began: time.Now()}
	files := make([]audit.Source, len(names))
	for i, name := range names {
		info, err := os.Stat(name)
		regular := err == nil && name != stdinArg && info.Mode().IsRegular()
		if regular {
			p.total += info.Size()
		}
		files[i] = audit.Source{Name: name, Once: !regular, Open: func() (io.ReadCloser, error) {
			if name == stdinArg {
				return p.over(io.NopCloser(cmd.InOrStdin())), nil
			}
			file, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			return p.over(file), nil
		}}
	}
	return files, p
}

// progress draws how much of the files was read.
type progress struct {
	w            io.Writer
	silent       bool
	total, done  int64
	began, drawn time.Time
}

// Progress is drawn so often, and not at all for what takes no time.
const (
	progressEvery = 100 * time.Millisecond
	progressAfter = time.Second
	progressWidth = 40
)

func (p *progress) over(r io.ReadCloser) io.ReadCloser { return &counted{r, p} }

// counted tells a progress how much was read.
type counted struct {
	io.ReadCloser

	p *progress
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.p.add(int64(n), time.Now())
	return n, err
}

func (p *progress) add(n int64, now time.Time) {
	p.done += n
	if p.silent || p.total == 0 || now.Sub(p.began) < progressAfter || now.Sub(p.drawn) < progressEvery {
		return
	}
	p.drawn = now
	part := min(1, float64(p.done)/float64(p.total))
	bar := strings.Repeat("#", int(part*progressWidth))
	_, _ = fmt.Fprintf(p.w, "\r[%-*s] %3.0f %%", progressWidth, bar, part*100)
}

// end takes the bar away.
func (p *progress) end() {
	if !p.drawn.IsZero() {
		_, _ = fmt.Fprintf(p.w, "\r%*s\r", progressWidth+len("[] 100 %"), "")
	}
}
