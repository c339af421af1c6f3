package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/config"
)

var update = flag.Bool("update", false, "write what was got into the .txt files of testdata")

// TestMistakes reads one file per mistake. Next to it lies the text an operator
// gets to see, and nothing else of it is promised.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			_, err := config.Load(file)
			if err == nil {
				t.Fatal("no mistake found")
			}
			got := strings.ReplaceAll(err.Error(), file, "keymount.yaml") + "\n"
			compare(t, strings.TrimSuffix(file, ".yaml")+".txt", got)
		})
	}
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got); when the new text is better: go test ./config -update\n%s", file, diff)
	}
}

func TestMistakesHaveOwner(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if _, err := os.Stat(strings.TrimSuffix(file, ".txt") + ".yaml"); err != nil {
			t.Errorf("%s belongs to no mistake: %v", file, err)
		}
	}
}

const minimal = "stores: [{bundle: {file: secrets.age, identityFile: key.txt}}]\n"

func TestDefaults(t *testing.T) {
	got, err := config.Parse([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Stores: []config.Store{{
			Name:   "default",
			Bundle: &config.Bundle{File: "secrets.age", IdentityFile: "key.txt", Audience: "keymount"},
		}},
		Issuers: []config.Issuer{{Keys: "cluster"}},
		Sockets: []string{"/var/run/secrets-store-csi-providers/keymount.sock"},
		Limits:  config.Limits{MountDeadline: 25 * time.Second, ParallelReads: 64, RotationPollInterval: 2 * time.Minute},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	rules, err := got.Stores[0].Rules()
	if err != nil || !reflect.ValueOf(rules).FieldByName("rules").IsNil() {
		t.Errorf("a store without access has rules: %v, %v", rules, err)
	}
}

// TestExample holds the example of docs/configuration.md to the promise in it
// that its last part repeats the defaults.
func TestExample(t *testing.T) {
	example, err := config.Load("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := config.Parse([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	defaults.Stores, defaults.VersionKeyFile = example.Stores, example.VersionKeyFile
	if diff := cmp.Diff(defaults, example); diff != "" {
		t.Errorf("what differs from the defaults (-default +example)\n%s", diff)
	}
}

func TestRelativeFiles(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "keymount.yaml")
	text := `
stores: [{bundle: {file: secrets.age, identityFile: ../key.txt}}]
versionKeyFile: /keys/version.key
sockets: [run/keymount.sock]
issuers:
  - {keys: discovery, issuer: "https://kubernetes.example", caFile: ca.pem}
  - {keys: file, issuer: "https://other.example", keysFile: keys.json}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{
		c.Stores[0].Bundle.File, c.Stores[0].Bundle.IdentityFile, c.VersionKeyFile,
		c.Sockets[0], c.Issuers[0].CAFile, c.Issuers[0].KeysFile, c.Issuers[1].KeysFile,
	}
	want := []string{
		filepath.Join(folder, "secrets.age"), filepath.Join(filepath.Dir(folder), "key.txt"), "/keys/version.key",
		filepath.Join(folder, "run/keymount.sock"), filepath.Join(folder, "ca.pem"), "", filepath.Join(folder, "keys.json"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestRelativeSocketTooLong has a path that is short until the folder is known.
func TestRelativeSocketTooLong(t *testing.T) {
	folder := filepath.Join(t.TempDir(), strings.Repeat("a", 100))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "keymount.yaml")
	if err := os.WriteFile(file, []byte(minimal+"sockets: [keymount.sock]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(file); err == nil || !strings.Contains(err.Error(), "sockets[0]: ") {
		t.Errorf("got %v, want the socket refused for its length", err)
	}
}

func TestMissingFile(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "keymount.yaml"))
	if err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("got %v, want an error that names --config", err)
	}
}

func TestTooLarge(t *testing.T) {
	_, err := config.Parse([]byte(minimal + strings.Repeat("#", 1<<20)))
	if err == nil || !strings.Contains(err.Error(), "more than a configuration may have") {
		t.Errorf("got %v, want the size refused", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "testdata/mistakes/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := config.Parse(data)
		if err != nil {
			if err.Error() == "" {
				t.Error("a mistake without a text")
			}
			return
		}
		again, err := config.Parse(data)
		if err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("read twice, got %+v and %+v, %v", first, again, err)
		}
		for _, s := range first.Stores {
			if _, err := s.Rules(); err != nil || s.Audience() == "" {
				t.Errorf("accepted, but store %q has audience %q and rules that do not compile: %v", s.Name, s.Audience(), err)
			}
		}
	})
}
