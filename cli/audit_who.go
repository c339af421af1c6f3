package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/audit"
)

// readBy is the result of audit who.
type readBy struct {
	Path string `json:"path"`
	// Readers were granted the secret, and Attempts got no value.
	Readers  []audit.Reader  `json:"readers"`
	Attempts []audit.Attempt `json:"attempts"`
}

func newAuditWho() *cobra.Command {
	var f trailFlags
	command := &cobra.Command{
		Use:   "who PATH FILE...",
		Short: "Tell which pods read a secret",
		Long: `Tell which service accounts read a secret and in which pods, on which nodes, how often, when
first and last, by which rule, and into which files; then the attempts that got no value: denied by
the rules or the store, absent, or failed. PATH is a path, or a pattern as in the rules of
keymount.yaml; the path of a secret is spelled as there.

A mount that brought the same as the one before is counted in the trail with others of its
volume: it counts for each secret that the volume held when the first of them was. Times are in UTC.`,
		Example: `  keymount audit who secret/shop/db /var/log/keymount/audit*
  keymount audit who 'secret/shop/**' -o json audit.jsonl`,
		Args:              fileArgs("PATH"),
		ValidArgsFunction: behind(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pattern, err := audit.ParsePattern(args[0])
			if err != nil {
				return usagef("PATH: %w", err)
			}
			readers := audit.NewReaders(pattern)
			if err := walkTrail(cmd, f.form, args[1:], func(e audit.Entry) error { readers.Add(e); return nil }); err != nil {
				return err
			}
			result := readBy{args[0], readers.Readers(), readers.Attempts()}
			return printResult(cmd, result, func(w io.Writer) { result.print(w, styleOf(cmd.OutOrStdout())) })
		},
	}
	f.addFlags(command)
	return command
}

func (r readBy) print(w io.Writer, s style) {
	if len(r.Readers) == 0 {
		_, _ = fmt.Fprintf(w, "no pod has read %s\n", shown(r.Path))
	}
	before := ""
	for _, one := range r.Readers {
		if name := one.Store + " " + one.Path; name != before {
			_, _ = fmt.Fprintf(w, "%s was read by\n", s.bold(shown(name)))
			before = name
		}
		printReader(w, one)
	}
	if len(r.Attempts) == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "\n%s\n", s.bold("without a value"))
	for _, one := range r.Attempts {
		printAttempt(w, one, s)
	}
}

// mostPods is how many pods a person wants to see of one service account.
const mostPods = 20

func printReader(w io.Writer, r audit.Reader) {
	_, _ = fmt.Fprintf(w, "  service account %s: %s\n", shown(r.Namespace+"/"+r.ServiceAccount), spanText(r.Span))
	if r.Undelivered > 0 {
		_, _ = fmt.Fprintf(w, "    without files in the pod: %d, since the mount failed\n", r.Undelivered)
	}
	for _, list := range []struct {
		name  string
		texts []string
	}{{"rule", r.Rules}, {"role", r.Roles}, {"file", r.Files}} {
		if len(list.texts) > 0 {
			_, _ = fmt.Fprintf(w, "    %s %s\n", list.name, shownList(list.texts))
		}
	}
	for i, p := range r.Pods {
		if i == mostPods {
			_, _ = fmt.Fprintf(w, "    and %d pods more; -o json lists them\n", len(r.Pods)-i)
			break
		}
		_, _ = fmt.Fprintf(w, "    pod %s on %s: %s\n", shown(p.Name), shown(p.Node), spanText(p.Span))
	}
}

func printAttempt(w io.Writer, a audit.Attempt, s style) {
	verb := "to read"
	if a.Write {
		verb = "to write to"
	}
	_, _ = fmt.Fprintf(w, "  service account %s %s %s: %s\n", shown(a.Namespace+"/"+a.ServiceAccount), verb, shown(a.Store+" "+a.Path), spanText(a.Span))
	reason := cmp.Or(a.By, "the store was not asked")
	if a.By == audit.ByRules {
		reason = "by the rules"
	}
	if a.Rule != "" && a.List != "" {
		reason += fmt.Sprintf("; the nearest is %s, whose %s do not fit", a.Rule, a.List)
	}
	_, _ = fmt.Fprintf(w, "    %s: %s\n    pod %s\n", s.red(string(a.Outcome)), reason, shownList(a.Pods))
}

func shownList(texts []string) string {
	const most = 10
	all := make([]string, 0, len(texts))
	for i, text := range texts {
		if i == most {
			all = append(all, fmt.Sprintf("and %d more", len(texts)-most))
			break
		}
		all = append(all, shown(text))
	}
	return strings.Join(all, ", ")
}

func spanText(s audit.Span) string {
	if s.Times == 1 {
		return "once, " + shortTime(s.First)
	}
	return fmt.Sprintf("%d times, %s to %s", s.Times, shortTime(s.First), shortTime(s.Last))
}
