package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// print writes a table of at most 100 columns.
func (r report) print(w io.Writer) error {
	o := r.Options
	simulated := r.Fleets[len(r.Fleets)-1].Simulated
	text := fmt.Sprintf("A day of %d pods per node with %d secrets each%s; a call every %s.\n", o.Pods, o.Secrets, o.ofThem(), o.Kubelet) +
		fmt.Sprintf("refresh %s, refreshMax %s; %s live %s; changed secrets of a node in an hour: %s.\n",
			short(o.Refresh), short(o.RefreshMax), o.tokens(), short(o.TokenTTL), strconv.FormatFloat(o.Rotations, 'g', -1, 64)) +
		fmt.Sprintf("All pods replaced within %s, the store away for %s. Nodes simulated: %d; more of them\n", short(o.Rollout), short(o.Outage), simulated) +
		`count like these, since nodes share only the store.

Requests to the store a second: reads, logins and renewals of logins in a steady hour; all of
them in the busiest minute of the start of all nodes, of the rollout, without an answer (away), and
after that (back). Seen: from a change to the pod's file, median and longest, in minutes.

`
	text += table(r.rows())
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

func (o options) ofThem() string {
	if o.Shared < 0 || o.Shared == o.Secrets {
		return ""
	}
	return fmt.Sprintf(", %d the same for an account", o.Shared)
}

func (o options) tokens() string {
	if o.Batch {
		return "batch tokens as logins"
	}
	return "logins"
}

// rows are the table: requests a second, and how old a change is when a pod has it.
func (r report) rows() [][]string {
	rows := [][]string{{
		"nodes", "provider", "reads", "logins", "renew", "start", "rollout", "away", "back", "seen",
	}}
	for i, f := range r.Fleets {
		nodes := ""
		if i == 0 || f.Nodes != r.Fleets[i-1].Nodes {
			nodes = rounded(float64(f.Nodes))
		}
		provider := f.Provider
		if provider == nameKeymount {
			provider += fmt.Sprintf(" %d accounts", f.Accounts)
		}
		rows = append(rows, []string{
			nodes, provider, rounded(f.Steady.Reads), rounded(f.Steady.Logins), rounded(f.Steady.Renewals),
			rounded(f.Start), rounded(f.Rollout), rounded(f.Outage), rounded(f.After), f.seen(),
		})
	}
	return rows
}

// seen is the median and the longest time.
func (f fleet) seen() string {
	if f.SeenMost == 0 {
		return "-"
	}
	return clock(f.SeenMedian) + " " + clock(f.SeenMost)
}

// clock is minutes and seconds.
func clock(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// rounded has as many digits as a reader can use.
func rounded(f float64) string {
	const one, ten = 1, 10
	switch {
	case f == 0:
		return "0"
	case f < one:
		return strconv.FormatFloat(f, 'f', 2, 64)
	case f < ten && f != float64(int(f)):
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	digits := strconv.FormatFloat(f, 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// short is a duration without the zeros at its end.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// table has columns as wide as their cells: texts on the left, then numbers.
func table(rows [][]string) string {
	const texts, gap = 2, "  "
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell))
		}
	}
	var text strings.Builder // which takes whatever comes
	for _, row := range rows {
		for i, cell := range row {
			switch blanks := strings.Repeat(" ", widths[i]-len(cell)); {
			case i == 0:
				text.WriteString(cell + blanks)
			case i < texts:
				text.WriteString(gap + cell + blanks)
			default:
				text.WriteString(gap + blanks + cell)
			}
		}
		text.WriteString("\n")
	}
	return text.String()
}
