package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/audit"
)

// replayed is the result of audit replay.
type replayed struct {
	Config string `json:"config"`
	audit.Replayed
}

func newAuditReplay() *cobra.Command {
	var f trailFlags
	var file string
	command := &cobra.Command{
		Use:   "replay --config NEW.yaml FILE...",
		Short: "Tell which accesses of the past a changed keymount.yaml would refuse or newly allow",
		Long: `Have the rules of a keymount.yaml that is not in force yet judge the accesses of the audit trail,
and tell those to which the answer would be another one. The judge is that of keymount itself, and a
record holds the whole question; so this is exact for what pods have asked for, and says nothing of
what they have not.

Where a pod was refused before the store was asked what the path is, and its login would be allowed
now, the trail cannot tell.

The exit code is 0 when each answer is the same, 3 when one is not, 1 when a file cannot be read or
has mistakes.`,
		Example:           `  keymount audit replay --config new.yaml /var/log/keymount/audit*`,
		Args:              fileArgs(),
		ValidArgsFunction: byFiles(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flag("config").Changed {
				return usagef("--config is missing; name the keymount.yaml to try")
			}
			stores, uses, err := usesOf(cmd, f.form, file, args)
			if err != nil {
				return err
			}
			result := replayed{file, audit.Replay(uses, stores)}
			if err := printResult(cmd, result, func(w io.Writer) { result.print(w, styleOf(cmd.OutOrStdout())) }); err != nil {
				return err
			}
			if len(result.Changes) > 0 {
				return exitError{code: exitFound}
			}
			return nil
		},
	}
	f.addFlags(command)
	addRulesConfig(command, &file)
	return command
}

func (r replayed) print(w io.Writer, s style) {
	printChanged(w, s.red("refused, and was allowed"), r.Changes, audit.NowRefused)
	printChanged(w, s.green("allowed, and was refused"), r.Changes, audit.NowAllowed)
	printChanged(w, s.bold("refused at login, and cannot be told now"), r.Untold, audit.CannotTell)
	_, _ = fmt.Fprintf(w, "accesses with the same answer: %d, with another one: %d, not to be told: %d\n", r.Same, len(r.Changes), len(r.Untold))
}

func printChanged(w io.Writer, title string, changes []audit.Change, now audit.Answer) {
	changes = slices.DeleteFunc(slices.Clone(changes), func(c audit.Change) bool { return c.Now != now })
	if len(changes) == 0 {
		return
	}
	_, _ = fmt.Fprintln(w, title)
	for _, c := range changes {
		_, _ = fmt.Fprintf(w, "  %s: %s\n    %s\n", accessText(c.Access), spanText(c.Span), c.Why)
	}
	_, _ = fmt.Fprintln(w)
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
