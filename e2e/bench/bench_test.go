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
			Name     string
			Mounts   int
			Changed  int
			Requests struct{ Logins, Reads, Others int }
		}
	}
}

// Load follows secrets and not pods: there are as many logins as service accounts and
// as many reads in each interval as they have secrets, whatever number of pods and
// mounts there is; and a rotated secret is in its pods with the first mount after
// refresh.
func TestCounts(t *testing.T) {
	program := filepath.Join(t.TempDir(), "bench")
	//nolint:gosec // G204: a go build of our own source
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	//nolint:gosec // G204: the program from above
	command := exec.CommandContext(t.Context(), program, "-pods", "6", "-accounts", "2", "-objects", "3", "-rounds", "5",
		"-refresh", "4s", "-republishes", "6", "-churn", "12", "-o", "json")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got result
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
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
