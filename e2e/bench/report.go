package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// report is all that was measured.
type report struct {
	Options   options    `json:"options"`
	Scenarios []scenario `json:"scenarios"`
}

// todaysBest is what vault-csi-provider 1.7.4 was measured to take for 110 pods of 10
// objects, before the same Vault behind the same delay. Times in parentheses are
// those with its limit of 5 reads of the Kubernetes API per second lifted.
func todaysBest() map[string]string {
	return map[string]string{
		rowLogins: "110 in both", rowColdReads: "1100 in both", rowWarmRequests: "11000 in both", rowRotation: "1100 in both",
		rowColdRate: "5 (112)", rowColdP50: "4000 (175)", rowWarmRate: "5 (128)", rowWarmP50: "- (144)",
		rowIdle: "32", rowCold: "43 to 50", rowChurn: "68 to 82", rowFiles: "up to 1113",
	}
}

// The rows of the comparison.
const (
	rowLogins       = "logins, cold"
	rowColdReads    = "reads, cold"
	rowWarmRequests = "requests, 10 rounds of republishes"
	rowRotation     = "requests, after refresh"
	rowColdRate     = "mounts/s, cold"
	rowColdP50      = "p50 ms, cold"
	rowColdP95      = "p95 ms, cold"
	rowColdCPU      = "CPU ms per mount, cold"
	rowWarmRate     = "mounts/s, republishes"
	rowWarmP50      = "p50 ms, republishes"
	rowWarmP95      = "p95 ms, republishes"
	rowWarmCPU      = "CPU ms per mount, republishes"
	rowIdle         = "resident MiB, started"
	rowCold         = "resident MiB, all pods mounted"
	rowLong         = "resident MiB, after many republishes"
	rowChurn        = "resident MiB, after pods came and went"
	rowSettled      = "resident MiB, a while later"
	rowConnections  = "connections to Vault, at most"
	rowFiles        = "open files, after that"
	rowGoroutines   = "goroutines, after that"
	rowColdRequests = "requests, cold"
	rowRequests     = "requests, republishes"
	rowPeak         = "resident MiB, at most"
)

// compared is a row and what a scenario has there.
func compared() []struct {
	row   string
	value func(scenario) string
} {
	mib := func(name string) func(scenario) string {
		return func(s scenario) string { return fmt.Sprintf("%.1f", s.phase(name).Usage.ResidentMiB) }
	}
	of := func(name string, value func(phase) float64) func(scenario) string {
		return func(s scenario) string { return rounded(value(s.phase(name))) }
	}
	p50, p95 := func(p phase) float64 { return p.P50 }, func(p phase) float64 { return p.P95 }
	cpu := func(p phase) float64 { return p.CPU }
	return []struct {
		row   string
		value func(scenario) string
	}{
		{rowLogins, of(phaseCold, func(p phase) float64 { return float64(p.Requests.Logins) })},
		{rowColdReads, of(phaseCold, func(p phase) float64 { return float64(p.Requests.Reads) })},
		{rowWarmRequests, of(phaseRepublish, phase.requests)},
		{rowRotation, of(phaseRotation, phase.requests)},
		{rowColdRate, of(phaseCold, phase.perSecond)},
		{rowColdP50, of(phaseCold, p50)},
		{rowColdP95, of(phaseCold, p95)},
		{rowColdCPU, of(phaseCold, cpu)},
		{rowWarmRate, of(phaseRepublish, phase.perSecond)},
		{rowWarmP50, of(phaseRepublish, p50)},
		{rowWarmP95, of(phaseRepublish, p95)},
		{rowWarmCPU, of(phaseRepublish, cpu)},
		{rowIdle, mib(phaseIdle)},
		{rowCold, mib(phaseCold)},
		{rowLong, mib(phaseLong)},
		{rowChurn, mib(phaseChurn)},
		{rowSettled, mib(phaseSettled)},
		{rowConnections, func(s scenario) string { return strconv.Itoa(s.connections()) }},
		{rowFiles, of(phaseChurn, func(p phase) float64 { return float64(p.Usage.Files) })},
		{rowGoroutines, of(phaseChurn, func(p phase) float64 { return float64(p.Usage.Goroutines) })},
	}
}

// rounded has two digits where they say something.
func rounded(f float64) string {
	const small, large = 0.005, 10
	switch {
	case f < small:
		return "0"
	case f < large && f != float64(int(f)):
		return fmt.Sprintf("%.2f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

// phase is the one of that name.
func (s scenario) phase(name string) phase {
	for _, p := range s.Phases {
		if p.Name == name {
			return p
		}
	}
	return phase{}
}

// connections are how many there were at most at a time.
func (s scenario) connections() (most int) {
	for _, p := range s.Phases {
		most = max(most, p.Connections)
	}
	return most
}

// print writes a comparison, and all phases.
func (r report) print(w io.Writer) error {
	o := r.Options
	text := fmt.Sprintf("%d pods of %d objects of %d bytes, %d mounts at a time, %s added to each request, refresh %s, ",
		o.Pods, o.Objects, o.Bytes, o.AtOnce, o.Delay, o.Refresh)
	if o.Beside == "" {
		text += fmt.Sprintf("%s of quiet at the end\n\n", o.Settle) + tableOf(r.comparison())
	} else {
		text += fmt.Sprintf("medians of %d turns beside %s\n\n", o.Turns, o.Beside) + tableOf(r.sideBySide())
	}
	text += "\n" + tableOf(r.phases())
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// tableOf has columns as wide as their cells.
func tableOf(rows [][]string) string {
	const padding = 2
	var text strings.Builder // which takes whatever comes
	table := tabwriter.NewWriter(&text, 0, 0, padding, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	_ = table.Flush()
	return text.String()
}

func (r report) comparison() [][]string {
	head := []string{""}
	for _, s := range r.Scenarios {
		head = append(head, fmt.Sprintf("%s: %d accounts", s.Name, s.Accounts))
	}
	rows := [][]string{append(head, "today's best (vault-csi-provider 1.7.4)")}
	best := todaysBest()
	for _, c := range compared() {
		row := []string{c.row}
		for _, s := range r.Scenarios {
			row = append(row, c.value(s))
		}
		rows = append(rows, append(row, cmp.Or(best[c.row], "-")))
	}
	return rows
}

func (r report) phases() [][]string {
	rows := [][]string{{
		"scenario", "program", "turn", "phase", "mounts", "mounts/s", "p50 ms", "p95 ms", "CPU ms/mount", "logins", "reads", "others", "MiB", "at most", "goroutines", "open files", "connections",
	}}
	for _, s := range r.Scenarios {
		for _, p := range s.Phases {
			rows = append(rows, []string{
				s.Name, s.Program, strconv.Itoa(s.Turn), p.Name, strconv.Itoa(p.Mounts), rounded(p.perSecond()), rounded(p.P50), rounded(p.P95), rounded(p.CPU),
				strconv.Itoa(p.Requests.Logins), strconv.Itoa(p.Requests.Reads), strconv.Itoa(p.Requests.Others),
				fmt.Sprintf("%.1f", p.Usage.ResidentMiB), fmt.Sprintf("%.1f", p.Usage.PeakMiB), strconv.Itoa(p.Usage.Goroutines), strconv.Itoa(p.Usage.Files),
				strconv.Itoa(p.Connections),
			})
		}
	}
	return rows
}
