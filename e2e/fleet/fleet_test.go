package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// document shows what the command prints.
const document = "../../docs/load.md"

// build makes the command.
func build(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "fleet")
	//nolint:gosec // G204: a go build of our own source
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// run is what the command prints.
func run(t *testing.T, program string, flags ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, flags...) //nolint:gosec // G204: the program from above
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("fleet %s: %v", strings.Join(flags, " "), err)
	}
	return string(out)
}

// The table of the document is what its command prints, to the letter.
func TestTheDocumentShowsWhatIsPrinted(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```\n\\$ go run ./fleet([^\n]*)\n(.*?)```").FindStringSubmatch(string(text))
	if shown == nil {
		t.Fatalf("%s shows no output of go run ./fleet", document)
	}
	got := run(t, build(t), strings.Fields(shown[1])...)
	if diff := cmp.Diff(shown[2], got); diff != "" {
		t.Errorf("%s (-) against the command (+):\n%s", document, diff)
	}
	for line := range strings.Lines(got) {
		if width := len(strings.TrimSuffix(line, "\n")); width > 100 {
			t.Errorf("a line of %d columns: %s", width, line)
		}
	}
}

// Each row of the document's second table is the row that the command prints with the flags
// in it.
func TestTheDocumentsSettingsAreWhatIsPrinted(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile("(?m)^\\| `go run ./fleet ([^`]+)` and \\| (.*) \\|\n\\|[-|]+\\|\n((?:\\|.*\n)+)").FindStringSubmatch(string(text))
	if table == nil {
		t.Fatalf("%s has no table of settings", document)
	}
	program, columns := build(t), strings.Split(table[2], " | ")
	for line := range strings.Lines(table[3]) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		flags, quoted := strings.CutPrefix(strings.TrimSuffix(cells[0], "`"), "`")
		if !quoted { // the usual settings
			flags = ""
		}
		printed := firstRow(t, run(t, program, strings.Fields(table[1]+" "+flags)...))
		for i, column := range columns {
			if cells[i+1] != printed[column] {
				t.Errorf("%s: the document has %s for %s, the command prints %s", cells[0], cells[i+1], column, printed[column])
			}
		}
	}
}

// firstRow is the first one of a table, by column.
func firstRow(t *testing.T, printed string) map[string]string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^(nodes .*)\n(.*)$`).FindStringSubmatch(printed)
	if found == nil {
		t.Fatalf("no table:\n%s", printed)
	}
	columns, cells := regexp.MustCompile(` {2,}`).Split(found[1], -1), regexp.MustCompile(` {2,}`).Split(found[2], -1)
	row := map[string]string{}
	for i, column := range columns {
		row[column] = cells[i]
	}
	return row
}

// The JSON has what the table has, for programs.
func TestJSON(t *testing.T) {
	var got struct {
		Options struct{ Pods int }
		Fleets  []struct {
			Nodes, Simulated, Accounts int
			Provider                   string
			Steady, Day                struct{ Reads, Logins, Renewals float64 }
			Start, SeenMost            float64
		}
	}
	out := run(t, build(t), "-nodes", "2,4", "-sample", "2", "-pods", "6", "-secrets", "2", "-accounts", "6,2", "-shared", "1", "-rotations", "30", "-o", "json")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Options.Pods != 6 || len(got.Fleets) != 6 {
		t.Fatalf("%d pods and %d fleets, want 6 and 6:\n%s", got.Options.Pods, len(got.Fleets), out)
	}
	for i, f := range got.Fleets {
		if f.Simulated != 2 || f.Steady.Reads <= 0 || f.Day.Logins <= 0 || f.Start <= 0 || f.SeenMost <= 0 {
			t.Errorf("fleet %d: %+v", i, f)
		}
		if twice := got.Fleets[i%3]; i >= 3 && f.Day.Reads != 2*twice.Day.Reads {
			t.Errorf("%d nodes read %g times, and %d nodes %g", f.Nodes, f.Day.Reads, twice.Nodes, twice.Day.Reads)
		}
	}
}

// Without numbers of accounts there are two: each pod has its own, or many share one.
func TestAccountsFollowPods(t *testing.T) {
	printed := run(t, build(t), "-nodes", "1", "-pods", "22", "-secrets", "1")
	for _, want := range []string{"keymount 22 accounts", "keymount 2 accounts", "vault-csi-provider"} {
		if !strings.Contains(printed, want) {
			t.Errorf("no row of %s:\n%s", want, printed)
		}
	}
}

// All mistakes of the flags are told at once.
func TestMistakes(t *testing.T) {
	command := exec.CommandContext(t.Context(), build(t), "-nodes", "0", "-accounts", "111", "-shared", "11", "-outage", "90s", "-o", "yaml") //nolint:gosec // G204: our own program
	out, err := command.CombinedOutput()
	if err == nil {
		t.Error("the command takes anything")
	}
	for _, want := range []string{"-nodes 0", "-accounts 111", "-shared 11", "-outage 1m30s", `-o is "yaml"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
