package trial_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/trial"
)

var update = flag.Bool("update", false, "write the texts of mistakes")

// operator is the keymount.yaml that files of secrets are held against.
const operator = `
stores:
  - {name: local, bundle: {file: a.age, identityFile: a.txt}}
  - {name: prod, vault: {addresses: ["https://vault.invalid"]}}
`

// TestMistakes has a file for each mistake, with its text beside it.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := mistakesIn(t, data) + "\n"
			want := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o600); err != nil { //nolint:gosec // a file of testdata
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(text), got); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

// mistakesIn are those of a file of secrets.
func mistakesIn(t *testing.T, data []byte) string {
	t.Helper()
	secrets, err := trial.ParseSecrets("made-up.yaml", data)
	if err != nil {
		return err.Error()
	}
	c, err := config.Parse([]byte(operator), all.All())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = secrets.For(c); err == nil {
		t.Fatal("no mistake")
	}
	return err.Error()
}

// FuzzParseSecrets: no file ends the program, and what is taken fits some store or is told.
func FuzzParseSecrets(f *testing.F) {
	for _, text := range []string{
		"secret/shop/db: {password: fake-1, n: 1.10, on: true, none: null, list: [1, a]}", "stores: {prod: {a/b: {c: d}}}", `{"a": {"b": "\ud83d"}}`,
		"pki/ca_chain: |\n  -----BEGIN CERTIFICATE-----", "a: &x {b: c}\nd: *x", "a: !!binary aGk=", "a: {b: c}\na: {}", "[]", "--- 1", "a: b: c",
	} {
		f.Add([]byte(text))
	}
	c, err := config.Parse([]byte(operator), all.All())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		secrets, err := trial.ParseSecrets("made-up.yaml", data)
		if err != nil {
			return
		}
		of, err := secrets.For(c)
		if err == nil && len(of) != len(c.Stores) {
			t.Errorf("secrets of %d stores", len(of))
		}
	})
}
