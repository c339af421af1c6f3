package trial_test

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/trial"
)

// A node that serves refuses the tokens of a trial: its issuer's name is not among those of
// keymount.yaml, and its key is in no other process.
func TestNodeRefusesTokensOfTrials(t *testing.T) {
	s := serve(t)
	p := auth.Pod{Namespace: "shop", Name: "api-0", UID: "0b6f1d1c-7a5e-4f0e-9a4e-5d2c7f1e8a01", ServiceAccount: "api"}
	issuer, err := trial.NewIssuer(p)
	check(t, err)
	token, err := issuer.Token(t.Context(), "keymount")
	check(t, err)
	name, _, err := issuer.Keys(t.Context())
	check(t, err)
	mount := func(token string) error {
		v := providertest.Volume{Pod: p, Class: "app", Parameters: map[string]string{"objects": "[{path: shop/db, key: password, file: a}]"}, Tokens: map[string]string{"keymount": token}}
		attributes, err := v.Attributes()
		check(t, err)
		_, err = s.drivers["keymount"].Call(t.Context(), attributes)
		return err
	}
	good, err := s.issuer.Sign(s.issuer.ClaimsFor(p, "keymount"))
	check(t, err)
	if err := mount(good); err != nil {
		t.Fatal(err) // or else the refusal below would tell nothing
	}
	err = mount(token)
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), `issuer "`+name+`" is not accepted`) {
		t.Errorf("the node answers %v", err)
	}
}

// Every example makes its files of made-up secrets, with and without the rules of
// examples/values.yaml.
func TestExamples(t *testing.T) {
	folders, err := filepath.Glob("../examples/*/1-namespace.yaml")
	if err != nil || len(folders) == 0 {
		t.Fatalf("%d examples: %v", len(folders), err)
	}
	text, err := os.ReadFile("../examples/values.yaml")
	check(t, err)
	operator, err := config.New("values.yaml", text).Config(all.All())
	check(t, err)
	for _, file := range folders {
		folder := filepath.Dir(file)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			files, err := manifest.Read([]string{folder}, false, nil)
			check(t, err)
			for _, name := range trial.Classes(files) {
				p, err := trial.Pick(files, trial.Choice{Class: name})
				check(t, err)
				for _, c := range []*config.Config{trial.Assume(p.Class, all.All()), operator} {
					if o := madeUp(t, p, c); o.Message != "" || len(o.Files) == 0 {
						t.Errorf("class %s: %d files, %s", name, len(o.Files), o.Message)
					}
				}
			}
		})
	}
}

// madeUp tries a class with secrets made up for it.
func madeUp(t *testing.T, p trial.Picked, c *config.Config) *trial.Outcome {
	t.Helper()
	text, err := trial.Sketch(p, c)
	check(t, err)
	secrets, err := trial.ParseSecrets("made-up.yaml", text)
	check(t, err)
	of, err := secrets.For(c)
	check(t, err)
	issuer, err := trial.NewIssuer(p.Pod)
	check(t, err)
	outcome, err := trial.Try{Class: p.Class, Pod: p.Pod, Config: c, Secrets: of, Issuer: issuer, Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler)}.Mount(t.Context())
	check(t, err)
	return outcome
}

// A node in memory opens nothing that keymount.yaml names: in each place there is a folder,
// or where a folder belongs a file, which it could not open, and it finds all of them as they
// were.
func TestNodeInMemoryTouchesNothing(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"version.key", "keymount.sock", "run/status.sock", "audit.jsonl", "jwks.json", "secrets.age", "key.txt", "ca.pem"} {
		check(t, os.MkdirAll(filepath.Join(folder, name, "inside"), 0o700))
	}
	check(t, os.WriteFile(filepath.Join(folder, "state"), []byte("a file"), 0o600))
	text := `stores:
  - bundle: {file: secrets.age, identityFile: key.txt}
    access: [{namespaces: [shop], serviceAccounts: [api], paths: ["shop/**"]}]
  - name: prod
    vault: {addresses: ["https://vault.invalid"], caFile: ca.pem}
issuers: [{keys: file, issuer: "https://cluster.invalid", keysFile: jwks.json}]
sockets: [keymount.sock]
statusSocket: run/status.sock
stateFolder: ` + filepath.Join(folder, "state") + `
versionKeyFile: version.key
audit: {file: audit.jsonl}
`
	file := filepath.Join(folder, "keymount.yaml")
	check(t, os.WriteFile(file, []byte(text), 0o600))
	c, err := config.Load(file, all.All())
	check(t, err)
	if _, err := node.Open(t.Context(), c, node.Options{Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Fatal("a node that serves opens these files; the test shows nothing")
	}
	before := listing(t, folder)
	p := trial.Picked{Class: trial.Class{
		Namespace: "shop", Name: "app", Provider: "keymount", Dialect: class.DialectKeymount,
		Parameters: map[string]string{"objects": "[{path: shop/db, key: password, file: a}]"},
	}}
	p.Pod.Namespace, p.Pod.Name, p.Pod.UID, p.Pod.ServiceAccount = "shop", "api-0", "0b6f1d1c-7a5e-4f0e-9a4e-5d2c7f1e8a01", "api"
	if o := madeUp(t, p, c); o.Message != "" || len(o.Files) != 1 {
		t.Errorf("%d files, %s", len(o.Files), o.Message)
	}
	if diff := cmp.Diff(before, listing(t, folder)); diff != "" {
		t.Errorf("the folder (-before +after):\n%s", diff)
	}
}

// listing is what a folder holds, with modes and times.
func listing(t *testing.T, folder string) (all []string) {
	t.Helper()
	check(t, filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		all = append(all, fmt.Sprintf("%s %s %d %s", path, info.Mode(), info.Size(), info.ModTime()))
		return nil
	}))
	return all
}
