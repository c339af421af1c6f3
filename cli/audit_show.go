package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/audit"
)

// showing is the command line of audit show.
type showing struct {
	trailFlags

	filter                      audit.Filter
	path, outcome, since, until string
	kinds                       []string
}

func newAuditShow() *cobra.Command {
	var s showing
	command := &cobra.Command{
		Use:   "show FILE...",
		Short: "Show records of the audit trail",
		Long: `Show what is in the audit trail, by time, those of each process in their order: one line for
each secret of a mount, for the mounts of a volume that brought nothing new, and for every other
event. Checkpoints are left out unless --kind asks for them. With -o json the whole records are
printed, one a line. Records are read and not verified: see 'keymount audit verify'.

A secret that was granted has the outcome undelivered where the pod did not get it: another secret
failed the mount, or the mount was withdrawn, as a later record says.

--since and --until take a time, 2026-09-21T14:00:00Z or 2026-09-21, or how long ago: 36h.

--first-seen shows secrets that a pod was granted, where the files have, before that record, no
grant of the same secret to a pod of the same service account, on the same node, or in the same
hour of the day (UTC); it says which of those is new. Give older files, too: what they hold is
known, also where --since leaves it out.`,
		Example: `  keymount audit show --outcome denied --since 24h /var/log/keymount/audit*
  keymount audit show --path 'secret/shop/**' --first-seen --since 24h audit*.jsonl
  keymount audit show --namespace shop -o json audit.jsonl | jq .`,
		Args:              fileArgs(),
		ValidArgsFunction: byFiles(),
		RunE:              s.run,
	}
	s.addFlags(command)
	flags := command.Flags()
	flags.StringVar(&s.filter.Namespace, "namespace", "", "of pods in this namespace")
	flags.StringVar(&s.filter.Pod, "pod", "", "of pods with this name")
	flags.StringVar(&s.path, "path", "", "of paths that this pattern fits, written as in the rules of keymount.yaml")
	flags.StringVar(&s.outcome, "outcome", "", "with this outcome: "+strings.Join(outcomes(), ", "))
	flags.StringVar(&s.filter.Rule, "rule", "", "that this rule decided, such as stores[0].access[2]")
	flags.StringSliceVar(&s.kinds, "kind", nil, "of these kinds: "+strings.Join(kinds(), ", "))
	flags.StringVar(&s.since, "since", "", "not before this time, or as long ago")
	flags.StringVar(&s.until, "until", "", "before this time, or longer ago")
	flags.BoolVar(&s.filter.FirstSeen, "first-seen", false, "secrets that went to a service account, to a node, or in an hour, for the first time")
	complete(command, "outcome", outcomes())
	complete(command, "kind", kinds())
	return command
}

func outcomes() []string {
	return []string{string(audit.Granted), string(audit.Denied), string(audit.NotFound), string(audit.Failed), string(audit.Undelivered)}
}

func kinds() []string {
	var all []string
	for _, kind := range audit.Kinds() {
		all = append(all, string(kind))
	}
	return all
}

func (s *showing) run(cmd *cobra.Command, args []string) error {
	if err := s.parse(time.Now()); err != nil {
		return err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	printer := recordPrinter{w: out, style: styleOf(cmd.OutOrStdout()), news: s.filter.FirstSeen}
	known := audit.NewNovelty()
	err := walkTrail(cmd, s.form, args, func(e audit.Entry) error {
		found := s.filter.Apply(e, known)
		if len(found) == 0 {
			return nil
		}
		if isJSON(cmd) {
			_, err := out.Write(append(e.Text, '\n'))
			return err
		}
		return printer.print(e, found)
	})
	return errors.Join(err, out.Flush())
}

// parse reads the flags that are more than a text.
func (s *showing) parse(now time.Time) error {
	var err error
	if s.path != "" {
		pattern, err := audit.ParsePattern(s.path)
		if err != nil {
			return usagef("--path: %w", err)
		}
		s.filter.Path = &pattern
	}
	if s.filter.Outcome = audit.Outcome(s.outcome); s.outcome != "" && !slices.Contains(outcomes(), s.outcome) {
		return usagef("--outcome is %q; it is one of %s", s.outcome, strings.Join(outcomes(), ", "))
	}
	for _, kind := range s.kinds {
		if !slices.Contains(kinds(), kind) {
			return usagef("--kind is %q; it is one of %s", kind, strings.Join(kinds(), ", "))
		}
		s.filter.Kinds = append(s.filter.Kinds, audit.Kind(kind))
	}
	if len(s.kinds) == 0 {
		for _, kind := range audit.Kinds() {
			if kind != audit.KindCheckpoint {
				s.filter.Kinds = append(s.filter.Kinds, kind)
			}
		}
	}
	if s.filter.Since, err = parseTime(s.since, now); err != nil {
		return usagef("--since %w", err)
	}
	if s.filter.Until, err = parseTime(s.until, now); err != nil {
		return usagef("--until %w", err)
	}
	return nil
}

// parseTime is a time, or one as long ago; zero for an empty text.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("is %q; write a time, such as 2026-09-21T14:00:00Z or 2026-09-21, or how long ago, such as 36h", text)
}

// walkTrail calls each with the records of the files, and tells of lines without one.
func walkTrail(cmd *cobra.Command, form audit.Form, args []string, each func(audit.Entry) error) error {
	files, progress := trailFiles(cmd, args)
	skipped, err := form.Walk(cmd.Context(), files, each)
	progress.end()
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		return err
	case skipped > 0 && !form.Others:
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "warning: %d lines hold no record; see 'keymount audit verify'\n", skipped)
	}
	return err
}

// recordPrinter prints a table, line by line, 100 columns wide.
type recordPrinter struct {
	w     io.Writer
	style style
	begun bool
	news  bool // the last column is what is new, and not the rule
}

// The widths of the columns; two spaces are between them.
const (
	widthTime   = 19
	widthEvent  = 12
	widthPod    = 20
	widthSecret = 22
	widthRule   = 19
)

func (p *recordPrinter) print(e audit.Entry, found []audit.Shown) error {
	if !p.begun {
		p.begun = true
		last := "RULE"
		if p.news {
			last = "NEW"
		}
		if err := p.row("TIME", "EVENT", "POD", "SECRET", last, ""); err != nil {
			return err
		}
	}
	for _, one := range found {
		if err := p.event(e, one); err != nil {
			return err
		}
	}
	return nil
}

func (p *recordPrinter) event(e audit.Entry, one audit.Shown) error {
	r := e.Record
	pod, event, what, last := r.Pod, string(one.Outcome), "", ""
	switch {
	case one.Secret != nil:
		s := one.Secret
		event, what, last = cmp.Or(event, "undecided"), s.Store+" "+s.Path, s.Rule
		if s.Write {
			what = s.Store + " write " + s.Path
		}
		if p.news {
			last = strings.Join(one.New, ", ")
		}
		if r.Kind != audit.KindMount {
			event, _ = describe(r)
		}
	case one.Count != nil:
		pod, event, what = &one.Count.Pod, fmt.Sprintf("same, %d x", one.Count.Count), "class "+one.Count.Class
	case e.TakesBack != nil:
		pod, event = e.TakesBack.Pod, string(r.Kind)
		what, last = "mount of "+clockTime(e.TakesBack.At), fmt.Sprintf("record %d", e.TakesBack.Seq)
	case r.Kind == audit.KindMount: // it failed before its secrets were known
		what = "class " + r.Class
	default:
		event, what = describe(r)
	}
	name := ""
	if pod != nil {
		name = pod.Namespace + "/" + pod.Name
	}
	return p.row(shortTime(r.At), event, name, what, last, r.Outcome)
}

// describe is what a record says that is about no single secret.
func describe(r *audit.Record) (event, what string) {
	event = string(r.Kind)
	switch {
	case r.Begin != nil:
		what = r.Node + ", " + r.Begin.Keymount
	case r.Checkpoint != nil:
		what = fmt.Sprintf("%s, %d", r.Node, r.Checkpoint.Number)
	case r.Login != nil:
		what = strings.TrimSpace(r.Login.Store + " " + r.Login.Role)
	case r.Lease != nil:
		event, what = event+" "+r.Lease.Change, strings.TrimSpace(r.Lease.Store+" "+r.Lease.Path)
	case r.Stale != nil:
		event, what = event+" "+r.Stale.State, r.Stale.Store
	case r.Config != nil:
		what = r.Config.File
	case r.Lost != nil:
		what = fmt.Sprintf("%d records", r.Lost.Count)
	case r.Withdrawn != nil:
		what = fmt.Sprintf("record %d", r.Withdrawn.Seq)
	}
	if r.Outcome != "" && r.Outcome != audit.Granted {
		event += " " + string(r.Outcome)
	}
	return event, what
}

func (p *recordPrinter) row(at, event, pod, secret, last string, outcome audit.Outcome) error {
	event = fmt.Sprintf("%-*s", widthEvent, fit(event, widthEvent))
	switch {
	case strings.HasPrefix(event, string(audit.Denied)), outcome == audit.Denied:
		event = p.style.red(event)
	case strings.HasPrefix(event, string(audit.Granted)):
		event = p.style.green(event)
	}
	line := fmt.Sprintf("%-*s  %s  %-*s  %-*s  %s", widthTime, at, event, widthPod, fit(pod, widthPod), widthSecret, fit(secret, widthSecret), fit(last, widthRule))
	_, err := fmt.Fprintln(p.w, strings.TrimRight(line, " "))
	return err
}

// fit cuts a text in its middle, since the ends of a path say most.
func fit(text string, width int) string {
	if text != "" {
		text = shown(text)
	}
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	front := (width - 1) / 2
	return string(runes[:front]) + "…" + string(runes[len(runes)-(width-1-front):])
}

// clockTime is shortTime without the date.
func clockTime(at string) string {
	text := shortTime(at)
	return text[max(0, len(text)-len(time.TimeOnly)):]
}

// shortTime is the time of a record without what a person does not read.
func shortTime(at string) string {
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return fit(at, widthTime)
	}
	return t.UTC().Format(time.DateTime)
}
