package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// result is the part of the bench's JSON that does not depend on the machine.
type result struct {
	Scenarios []struct {
		Name     string
		Accounts int
		Phases   []struct {
			Name        string
			Mounts      int
			Changed     int
			Requests    struct{ Logins, Reads, Others int }
			Usage       struct{ Goroutines, OpenFiles int }
			Connections int
			Open        int `json:"openConnections"`
		}
	}
}

// run plays all scenarios.
func run(t *testing.T, options ...string) (got result) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "bench")
	//nolint:gosec // G204: a go build of our own source
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	command := exec.CommandContext(t.Context(), program, append(options, "-settle", "0s", "-o", "json")...) //nolint:gosec // G204: the program from above
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
