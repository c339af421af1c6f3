package config_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/bundle"
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
			_, err := config.Load(file, all.All())
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

// besideTheFile ignores the fields that do not come from keymount.yaml.
func besideTheFile() cmp.Option {
	return cmp.Options{cmpopts.IgnoreFields(config.Store{}, "kinds", "named"), cmpopts.IgnoreFields(config.Access{}, "compiled"), cmpopts.IgnoreFields(config.Config{}, "Source")}
}

const minimal = "stores: [{bundle: {file: secrets.age, identityFile: key.txt}}]\n"

func TestDefaults(t *testing.T) {
	got, err := config.Parse([]byte(minimal), all.All())
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Stores: []config.Store{{
			Name: "default",
			Kind: bundle.Kind{}, Settings: &bundle.Settings{File: "secrets.age", IdentityFile: "key.txt", TokenAudience: "keymount"},
		}},
		Issuers: []config.Issuer{{Keys: "cluster"}},
		Sockets: []string{"/var/run/secrets-store-csi-providers/keymount.sock"},
		Audit:   config.Audit{Enabled: new(true), Stdout: new(true), OnFailure: "block", Sync: "interval", Republishes: "sum"},
		Limits:  config.Limits{MountDeadline: 25 * time.Second, ParallelReads: 64, RotationPollInterval: 2 * time.Minute, ReadinessBound: 2 * time.Minute},
	}
	if diff := cmp.Diff(want, got, besideTheFile()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if rules := got.Stores[0].Rules(); !reflect.ValueOf(rules).FieldByName("rules").IsNil() {
		t.Errorf("a store without access has rules: %v", rules)
	}
}

// The default of refreshMax leaves half of stale for an outage, and is no less than refresh.
func TestRefreshMaxByDefault(t *testing.T) {
	for fields, want := range map[string]time.Duration{
		"":                            5 * time.Minute,
		"refresh: 10m":                10 * time.Minute,
		"refresh: 0s":                 0,
		"stale: 0s":                   5 * time.Minute,
		"stale: 4m":                   2 * time.Minute,
		"stale: 1m":                   time.Minute,
		"refresh: 2m, stale: 3m":      2 * time.Minute,
		"stale: 4m, refreshMax: 3m":   3 * time.Minute,
		"refresh: 1h, stale: 1h":      time.Hour,
		"refresh: 1m, stale: 168h":    5 * time.Minute,
		"refresh: 1m, refreshMax: 1m": time.Minute,
	} {
		text := fmt.Sprintf("stores: [{vault: {addresses: [\"https://vault:8200\"]}, access: store, %s}]\n", fields)
		c, err := config.Parse([]byte(text), all.All())
		if err != nil {
			t.Errorf("%s: %v", fields, err)
		} else if got := *c.Stores[0].RefreshMax; got != want {
			t.Errorf("%s: refreshMax is %s, want %s", fields, got, want)
		}
	}
}

// A decision names its rule by the place in the file, of the word store as well.
func TestRulesKnowTheirPlace(t *testing.T) {
	c, err := config.Parse([]byte(`
stores:
  - {name: open, vault: {addresses: ["https://vault:8200"]}, access: store}
  - name: ruled
    vault: {addresses: ["https://vault:8200"]}
    access:
      - {namespaces: [other], serviceAccounts: ["*"], roles: ["*"], paths: ["**"]}
      - {namespaces: [shop], serviceAccounts: ["*"], roles: ["{namespace}_*"], paths: ["**"]}
`), all.All())
	if err != nil {
		t.Fatal(err)
	}
	q := access.Query{Namespace: "shop", ServiceAccount: "api", Role: "shop_api"}
	for i, want := range []string{"stores[0].access: store", "stores[1].access[1]"} {
		if got, err := c.Stores[i].Rules().JudgeLogin(q); err != nil || got != (access.Decision{Allowed: true, Rule: want}) {
			t.Errorf("store %d: got %+v, %v, want %s", i, got, err, want)
		}
	}
}

// Rules may share lists by YAML's own means, and are read as strictly then.
func TestRulesByAliasAndMerge(t *testing.T) {
	c, err := config.Parse([]byte(`
stores:
  - bundle: {file: a.age, identityFile: k.txt}
    access:
      - &shop {namespaces: [shop], serviceAccounts: &all ["*"], paths: ["shop/**"]}
      - {<<: *shop, namespaces: [web]}
  - name: copy
    bundle: {file: b.age, identityFile: k.txt}
    access: [*shop, {namespaces: [mail], serviceAccounts: *all, paths: ["mail/**"]}]
`), all.All())
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"*"}
	shop := config.Rule{Namespaces: []string{"shop"}, ServiceAccounts: all, Paths: []string{"shop/**"}}
	web := config.Rule{Namespaces: []string{"web"}, ServiceAccounts: all, Paths: []string{"shop/**"}}
	mail := config.Rule{Namespaces: []string{"mail"}, ServiceAccounts: all, Paths: []string{"mail/**"}}
	got := [][]config.Rule{c.Stores[0].Access.Rules, c.Stores[1].Access.Rules}
	if diff := cmp.Diff([][]config.Rule{{shop, web}, {shop, mail}}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRulesOfAnUncheckedStore(t *testing.T) {
	if _, err := new(config.Store).Rules().JudgeLogin(access.Query{}); !errors.Is(err, access.ErrDenied) {
		t.Errorf("got %v, want a denial", err)
	}
}

// TestExample holds the example of docs/configuration.md to the promise in it
// that its last part repeats the defaults.
func TestExample(t *testing.T) {
	example, err := config.Load("testdata/example.yaml", all.All())
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := config.Parse([]byte(minimal), all.All())
	if err != nil {
		t.Fatal(err)
	}
	defaults.Stores, defaults.VersionKeyFile = example.Stores, example.VersionKeyFile
	if diff := cmp.Diff(defaults, example, besideTheFile()); diff != "" {
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
	c, err := config.Load(file, all.All())
	if err != nil {
		t.Fatal(err)
	}
	files := c.Stores[0].Settings.Files()
	got := []string{
		*files[0], *files[1], c.VersionKeyFile,
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
	if _, err := config.Load(file, all.All()); err == nil || !strings.Contains(err.Error(), "sockets[0]: ") {
		t.Errorf("got %v, want the socket refused for its length", err)
	}
}

func TestMissingFile(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "keymount.yaml"), all.All())
	if err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("got %v, want an error that names --config", err)
	}
}

func TestTooLarge(t *testing.T) {
	_, err := config.Parse([]byte(minimal+strings.Repeat("#", 1<<20)), all.All())
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
		first, err := config.Parse(data, all.All())
		if err != nil {
			if err.Error() == "" {
				t.Error("a mistake without a text")
			}
			return
		}
		again, err := config.Parse(data, all.All())
		if err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("read twice, got %+v and %+v, %v", first, again, err)
		}
		for _, s := range first.Stores {
			if s.Kind == nil || s.Settings.Audience() == "" {
				t.Errorf("accepted, but store %q of kind %v has no audience", s.Name, s.Kind)
			}
			if reflect.ValueOf(s.Access).FieldByName("compiled").IsNil() {
				t.Errorf("accepted, but the rules of store %q are not compiled", s.Name)
			}
		}
	})
}
