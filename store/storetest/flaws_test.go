package storetest_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestSuites(t *testing.T) { suites(t, "") }

// flaws are ways to break the contract: the suite that finds each, and its words.
func flaws() map[string][2]string {
	return map[string][2]string{
		"a field without a tag":    {"Kind/fields", "field Field of storetest_test.untagged has the yaml tag"},
		"checks that add up":       {"Kind/checks", "a second check"},
		"no audience":              {"Kind/checks", "the audience is empty"},
		"copies of files":          {"Kind/files", "file 0 is not one of the settings"},
		"one fingerprint":          {"Kind/fingerprints", "another store has the same fingerprint"},
		"fingerprints by chance":   {"Kind/fingerprints", "the fingerprint of the same settings was"},
		"paths that remember":      {"Kind/paths", "is spelled again as"},
		"paths that grow":          {"Kind/hostile", "is spelled again as"},
		"a path beside a mistake":  {"Kind/hostile", `"" is no path, and comes with "shelf"`},
		"everywhere":               {"Kind/places", "which is no place"},
		"a nil ability":            {"Kind/layers", "Recaller is a nil pointer"},
		"traits without logins":    {"Kind/traits", "a role is that of a login"},
		"a value beside an error":  {"Read/denied_by_the_store/Read", "a value came with the error"},
		"no reason":                {"Read/invalid/Read", "is no *store.Error"},
		"two reasons":              {"Read/invalid/Read", "want that one"},
		"a secret in an error":     {"Read/not_found/unknown", "the error has a part of a secret"},
		"uncertain of an answer":   {"Read/denied_by_the_store/Read", "has Uncertain true"},
		"a pause after an answer":  {"Read/denied_by_the_store/Read", "RetryAfter 1s"},
		"always unavailable":       {"Read/the_session_has_ended/Read", `want "the session has ended"`},
		"never not found":          {"Read/not_found/Read", `"not found" is in Never`},
		"never unavailable":        {"Read/store_unavailable/Read", `"store unavailable" is in Never`},
		"never silent":             {"Leaser/store_unavailable/Renew", `"store unavailable" is in Never`},
		"never denied":             {"Login/denied_by_the_store/Login", `"denied by the store" is in Never`},
		"spellings that are kept":  {"Resolver/spellings", `"secret/data/db" resolves to "secret/data/db"`},
		"paths that resolve on":    {"Resolver/spellings", "and that to"},
		"a literal elsewhere":      {"Resolver/literals", `which has no segment "other"`},
		"leases that grow":         {"Leaser/renewed", "a lease of 1h0m0s was renewed for 2h0m0s"},
		"leases that live on":      {"Leaser/revoked", "renew a lease that is not there: <nil>"},
		"an end that fails again":  {"Login/renewer/revoked", "ended again: store unavailable"},
		"a token in an error":      {"Login/bad_token", "the error has a part of a secret"},
		"no answer to a bad token": {"Login/bad_token", "want an answer of the store"},
		"logins that have ended":   {"Login/good", "the login ended at"},
		"logins that live on":      {"Login/renewer/revoked", "renewed after its end: <nil>"},
		"renewed into another":     {"Login/renewer/renewed", "the login cannot be used"},
	}
}

// flawed has TestFlaw run, in a process of its own: there the suites fail.
const flawed = "STORETEST_FLAW"

func TestFlaw(t *testing.T) {
	flaw, there := os.LookupEnv(flawed)
	if !there {
		t.Log("has no flaw")
		return
	}
	suites(t, flaw)
}

func TestSuitesFindFlaws(t *testing.T) {
	t.Parallel()
	for flaw, found := range flaws() {
		t.Run(flaw, func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFlaw$", "-test.v") //nolint:gosec // this very test
			command.Env = append(os.Environ(), fmt.Sprintf("%s=%s", flawed, flaw))
			out, err := command.CombinedOutput()
			text := string(out)
			if err == nil || !strings.Contains(text, "--- FAIL: TestFlaw/"+found[0]+" ") || !strings.Contains(text, found[1]) {
				t.Errorf("%v: want a failure of %s with %q in\n%s", err, found[0], found[1], text)
			}
		})
	}
}
