package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// result is the part of the bench's JSON that does not depend on the machine.
type result struct {
	Scenarios []struct {
		Name     string
		Accounts int
		Program  string
		Turn     int
		Phases   []struct {
			Name     string
			Mounts   int
			CPU      float64 `json:"cpuMsPerMount"`
			Changed  int
			Requests struct{ Logins, Reads, Others int }
			Usage    struct {
				PeakMiB               float64
				Goroutines, OpenFiles int
			}
			Connections int
			Open        int `json:"openConnections"`
		}
	}
}

// built is a program of the module in a folder.
func built(t *testing.T, name, folder string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	command := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".") //nolint:gosec // G204: a go build of our own source
	command.Dir = folder
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// run plays all scenarios.
func run(t *testing.T, options ...string) (got result) {
	t.Helper()
	return played(t, built(t, "bench", "."), options...)
}

func played(t *testing.T, program string, options ...string) (got result) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, append(options, "-settle", "0s", "-o", "json")...) //nolint:gosec // G204: our own program
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// refused is what the bench says instead of a result.
func refused(t *testing.T, program string, options ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, options...) //nolint:gosec // G204: our own program
	var said strings.Builder
	command.Stderr = &said
	if out, err := command.Output(); err == nil || len(out) > 0 {
		t.Errorf("it ended with %v and wrote %q", err, out)
	}
	return said.String()
}

// Load follows secrets and not pods: there are as many logins as service accounts and
// as many reads in each interval as they have secrets, whatever number of pods and
// mounts there is; and a rotated secret is in its pods with the first mount after
// refresh.
func TestCounts(t *testing.T) {
	got := run(t, "-pods", "6", "-accounts", "2", "-objects", "3", "-rounds", "5", "-refresh", "4s", "-republishes", "6", "-churn", "12")
	type want struct{ mounts, logins, reads, changed int }
	wanted := map[string]map[string]want{
		"a": { // 6 pods of 6 service accounts
			"started":                           {},
			"cold storm":                        {6, 6, 18, 0},
			"republishes within refresh":        {30, 0, 0, 0},
			"after refresh, one secret rotated": {6, 0, 18, 1},
			"pods came and went":                {12, 12, 36, 2},
		},
		"b": { // of 2
			"started":                           {},
			"cold storm":                        {6, 2, 6, 0},
			"republishes within refresh":        {30, 0, 0, 0},
			"after refresh, one secret rotated": {6, 0, 6, 3},
			"pods came and went":                {12, 0, 0, 6},
		},
	}
	if len(got.Scenarios) != len(wanted) {
		t.Fatalf("%d scenarios, want %d", len(got.Scenarios), len(wanted))
	}
	for _, s := range got.Scenarios {
		for _, p := range s.Phases {
			w, ok := wanted[s.Name][p.Name]
			if !ok { // how much of refresh is over by then nobody knows
				continue
			}
			delete(wanted[s.Name], p.Name)
			if g := (want{p.Mounts, p.Requests.Logins, p.Requests.Reads, p.Changed}); g != w {
				t.Errorf("%s, %s: %+v, want %+v", s.Name, p.Name, g, w)
			}
			if p.Requests.Others > 1 { // what is mounted where, asked once
				t.Errorf("%s, %s: %d requests that are neither logins nor reads", s.Name, p.Name, p.Requests.Others)
			}
		}
		for name := range wanted[s.Name] {
			t.Errorf("%s: no phase %q", s.Name, name)
		}
	}
}

// However many pods want something, and however many there have been: connections to
// Vault have a bound, each takes a file and two goroutines, and nothing else grows.
// docs/metrics.md has the list.
func TestBounds(t *testing.T) {
	const most, driver, under = 96, 6, 10 // the driver's own, and what is about to end
	got := run(t, "-pods", "60", "-accounts", "5", "-objects", "10", "-bytes", "64", "-at-once", "60", "-rounds", "2",
		"-refresh", "1s", "-republishes", "300", "-churn", "240")
	for _, s := range got.Scenarios {
		started := s.Phases[0].Usage
		for _, p := range s.Phases {
			if p.Connections > most {
				t.Errorf("%s, %s: %d connections to Vault, want %d at most", s.Name, p.Name, p.Connections, most)
			}
			if grown := p.Usage.OpenFiles - started.OpenFiles - p.Open; grown > driver {
				t.Errorf("%s, %s: %d open files beside %d connections, and %d at the start", s.Name, p.Name, grown+started.OpenFiles, p.Open, started.OpenFiles)
			}
			if grown := p.Usage.Goroutines - started.Goroutines - 2*p.Open; grown > driver+under {
				t.Errorf("%s, %s: %d goroutines beside those of %d connections, and %d at the start", s.Name, p.Name, grown+started.Goroutines, p.Open, started.Goroutines)
			}
		}
	}
}

// Another program goes through the same storms in turns with keymount, told where to listen
// and where Vault is, with classes that it understands; and what it takes is counted with all
// that it has started. Here it is another keymount, whose counts are known, behind a script.
func TestBeside(t *testing.T) {
	script := filepath.Join(t.TempDir(), "wrapped")
	text := "#!/bin/sh\n" + built(t, "other", "../..") + ` serve --config "$1/keymount.yaml" --node-name node-1 & wait`
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil { //nolint:gosec // G306: a script
		t.Fatal(err)
	}
	program := built(t, "bench", ".")
	for _, dialect := range []string{"keymount", "vault"} {
		got := played(t, program, "-beside", script+" {folder}", "-beside-dialect", dialect, "-beside-turns", "2",
			"-pods", "6", "-accounts", "2", "-objects", "11", "-rounds", "2")
		var order []string
		for _, s := range got.Scenarios {
			order = append(order, fmt.Sprintf("%s%d %s", s.Name, s.Turn, s.Program))
			cold, warm := s.Phases[1], s.Phases[2]
			if cold.Requests.Logins != s.Accounts || cold.Requests.Reads != 11*s.Accounts {
				t.Errorf("%s: %s, cold: %+v, want a login and 11 reads for each of %d accounts", dialect, order[len(order)-1], cold.Requests, s.Accounts)
			}
			if warm.Requests.Logins+warm.Requests.Reads != 0 || warm.Mounts != 12 || warm.CPU <= 0 || warm.Usage.PeakMiB < 10 {
				t.Errorf("%s: %s, warm: %+v", dialect, order[len(order)-1], warm)
			}
		}
		const want = "a1 keymount, a1 wrapped, a2 wrapped, a2 keymount, b1 keymount, b1 wrapped, b2 wrapped, b2 keymount"
		if got := strings.Join(order, ", "); got != want {
			t.Errorf("%s: the order is %s, want %s", dialect, got, want)
		}
	}
}

// The table has a line for each figure, with both programs and how many times as much the
// first has.
func TestBesideTable(t *testing.T) {
	other := built(t, "keymount", "../..") + " serve --config {folder}/keymount.yaml --node-name node-1"
	command := exec.CommandContext(t.Context(), built(t, "bench", "."), //nolint:gosec // G204: our own program
		"-beside", other, "-beside-dialect", "keymount", "-beside-turns", "1", "-pods", "2", "-objects", "1", "-rounds", "1")
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(" +").ReplaceAllString(string(out), " ")
	for _, line := range []string{
		"medians of 1 turns beside " + other,
		" a: keymount other keymount times b: keymount other keymount times",
		`mounts/s, cold [0-9.]+ [0-9.]+ [0-9.]+ [0-9.]+ [0-9.]+ [0-9.]+`,
		`CPU ms per mount, cold [0-9.]+ [0-9.]+ [0-9.]+ [0-9.]+ [0-9.]+ [0-9.]+`,
		`requests, republishes [0-9]+ [0-9]+ \S+ [0-9]+ [0-9]+ \S+`,
		`resident MiB, at most [0-9]+ [0-9]+ [0-9.]+ [0-9]+ [0-9]+ [0-9.]+`,
	} {
		if !regexp.MustCompile(line).MatchString(text) {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
}

// What cannot be put beside keymount is told at once, and a program that does not serve with
// what it wrote.
func TestCannotBeBeside(t *testing.T) {
	program := built(t, "bench", ".")
	for options, want := range map[string]string{
		"-beside|true {sockets}":                        "-beside: there is no {sockets}; the places to fill in are {socket}, {folder}, {vault}",
		"-beside|true {vault}":                          "-beside: nothing says where the program has to listen; name {socket} or {folder}",
		"-beside| ":                                     "-beside: there is no program in it",
		"-beside|no-such-program {socket}":              `-beside: find the program: exec: "no-such-program"`,
		"-beside|true {socket}|-beside-dialect|openbao": `-beside-dialect is "openbao"; it is vault or keymount`,
		"-beside|true {socket}|-beside-turns|0":         "-beside-turns is 0; it is 1 at least",
		"-beside|echo at {socket}|-pods|1|-rounds|1":    "it ended before it served; the end of its log:\nat /",
	} {
		if said := refused(t, program, strings.Split(options, "|")...); !strings.Contains(said, want) {
			t.Errorf("%s: it said %q, want %q", options, said, want)
		}
	}
}
