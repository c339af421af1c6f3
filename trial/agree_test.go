package trial_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/status"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/bundle"
	"github.com/keymount/keymount/trial"
)

const clusterName = "https://cluster.invalid"

// served is a node that serves, with a driver for each dialect, and what a trial and lint
// know of it: keymount.yaml and the secrets of its stores.
type served struct {
	folder  string
	config  []byte
	secrets map[string]map[string]map[string]any // by store and path
	text    []byte                               // them as a file
	issuer  *providertest.Issuer
	drivers map[string]*providertest.Driver // by provider
	host    string                          // of the Vault
}

// serve starts a node with a bundle and a Vault, whose server is another one than the
// stand-in of a trial.
func serve(tb testing.TB) *served {
	tb.Helper()
	s := &served{secrets: madeUpSecrets(), drivers: map[string]*providertest.Driver{}}
	folder, err := os.MkdirTemp("/tmp", "agree-") //nolint:usetesting // the path of a socket is short
	check(tb, err)
	tb.Cleanup(func() { check(tb, os.RemoveAll(folder)) })
	s.folder = folder
	s.text, err = yaml.Marshal(map[string]any{"stores": s.secrets})
	check(tb, err)
	s.issuer, err = providertest.NewIssuer(clusterName, "cluster")
	check(tb, err)
	vault := httptest.NewTLSServer(http.HandlerFunc(s.answer))
	tb.Cleanup(vault.Close)
	s.host = strings.TrimPrefix(vault.URL, "https://")
	s.fill(tb, vault)
	c, err := config.Load(filepath.Join(folder, "keymount.yaml"), all.All())
	check(tb, err)
	opened, err := node.Open(tb.Context(), c, node.Options{Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler)})
	check(tb, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	stopped := make(chan error, 1)
	go func() { stopped <- opened.Run(ctx) }()
	tb.Cleanup(func() { cancel(); check(tb, <-stopped) })
	for _, provider := range []string{"keymount", "vault"} {
		s.drivers[provider], err = providertest.Dial(filepath.Join(folder, provider+".sock"))
		check(tb, err)
		tb.Cleanup(func() { check(tb, s.drivers[provider].Close()) })
	}
	return s
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// fill writes the files of the node.
func (s *served) fill(tb testing.TB, vault *httptest.Server) {
	tb.Helper()
	identity, err := age.GenerateX25519Identity()
	check(tb, err)
	document, err := yaml.Marshal(s.secrets["default"])
	check(tb, err)
	sealed, err := bundle.Encrypt(document, []age.Recipient{identity.Recipient()})
	check(tb, err)
	keys, err := s.issuer.KeySet()
	check(tb, err)
	s.config = fmt.Appendf(nil, `stores:
  - bundle: {file: secrets.age, identityFile: key.txt}
    access: [{namespaces: [shop], serviceAccounts: [api], paths: ["shop/**"]}]
  - name: prod
    vault: {addresses: [%q], caFile: ca.pem, mounts: {secret: kv2, kv: kv1, pki: other}}
    access:
      - {namespaces: [shop], serviceAccounts: [api], roles: [shop], paths: ["secret/shop/**", "kv/shop/**", "pki/**"], writes: ["pki/issue/shop"]}
issuers: [{keys: file, issuer: %q, keysFile: jwks.json}]
sockets: [keymount.sock, vault.sock]
audit: {enabled: false}
`, vault.URL, clusterName)
	for name, content := range map[string][]byte{
		"secrets.age": sealed, "key.txt": []byte(identity.String()), "jwks.json": keys, "keymount.yaml": s.config,
		"ca.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: vault.Certificate().Raw}),
	} {
		check(tb, os.WriteFile(filepath.Join(s.folder, name), content, 0o600))
	}
}

// madeUpSecrets are those of both stores.
func madeUpSecrets() map[string]map[string]map[string]any {
	db := func() map[string]any {
		return map[string]any{
			"password": "fake-1", "user": "shop", "port": 5432, "on": true, "none": nil, "dotted.key": "fake-2", "b64": "ZmFrZQ==",
			"list": []any{"a", "b"}, "deep": map[string]any{"er": "fake-3"},
		}
	}
	return map[string]map[string]map[string]any{
		"default": {"shop/db": db(), "shop/one": {"a": "1"}, "shop/empty": {}, "blog/db": db()},
		"prod":    {"secret/shop/db": db(), "secret/shop/one": {"a": "1"}, "kv/shop/db": db(), "pki/issue/shop": {"certificate": "fake", "serial": "1"}, "secret/blog/db": db()},
	}
}

// answer plays a Vault.
func (s *served) answer(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	envelope := map[string]any{"request_id": "1", "lease_id": "", "renewable": false, "lease_duration": 0, "warnings": nil, "wrap_info": nil, "auth": nil}
	name, isKV2 := strings.CutPrefix(path, "secret/data/")
	secrets := s.secrets["prod"]
	switch data, known := secrets[path]; {
	case strings.HasPrefix(path, "auth/kubernetes/login"):
		envelope["auth"] = map[string]any{"client_token": "fake", "lease_duration": 3600}
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"): // of a mount that keymount.yaml does not list
		mount, _, _ := strings.Cut(strings.TrimPrefix(path, "sys/internal/ui/mounts/"), "/")
		envelope["data"] = map[string]any{"path": mount + "/", "type": "kv", "options": map[string]any{"version": "2"}}
	case isKV2 && secrets["secret/"+name] != nil && r.Method == http.MethodGet:
		version := json.Number("1")
		if text := r.URL.Query().Get("version"); text != "" {
			version = json.Number(text)
			if _, err := version.Int64(); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = w.Write([]byte(`{"errors": ["the version is no number"]}`))
				return
			}
		}
		envelope["data"] = map[string]any{"data": secrets["secret/"+name], "metadata": map[string]any{
			"created_time": "2000-01-01T00:00:00Z", "custom_metadata": nil, "deletion_time": "", "destroyed": false, "version": version,
		}}
	case known && !strings.HasPrefix(path, "secret/"):
		envelope["data"] = data
	default:
		w.WriteHeader(http.StatusNotFound)
		envelope = map[string]any{"errors": []string{}}
	}
	_ = json.NewEncoder(w).Encode(envelope)
}

// outcome is what came of a mount, anywhere.
type outcome struct {
	Files   map[string]string // mode and bytes by path
	Message string
}

// mount asks the node that serves.
func (s *served) mount(tb testing.TB, p trial.Picked) outcome {
	tb.Helper()
	tokens := map[string]string{}
	for _, audience := range []string{"keymount", "vault"} {
		token, err := s.issuer.Sign(s.issuer.ClaimsFor(p.Pod, audience))
		check(tb, err)
		tokens[audience] = token
	}
	attributes, err := providertest.Volume{Pod: p.Pod, Class: p.Class.Name, Parameters: p.Class.Parameters, Tokens: tokens}.Attributes()
	check(tb, err)
	response, err := s.drivers[p.Class.Provider].Call(tb.Context(), attributes)
	if err != nil {
		return outcome{Message: strings.ReplaceAll(status.Convert(err).Message(), s.host, "made-up.invalid")}
	}
	o := outcome{Files: map[string]string{}}
	for _, f := range response.GetFiles() {
		o.Files[f.GetPath()] = fmt.Sprintf("%04o %s", f.GetMode(), f.GetContents())
	}
	return o
}

// try asks a node in memory.
func (s *served) try(tb testing.TB, p trial.Picked) (outcome, string) {
	tb.Helper()
	c, err := config.Parse(s.config, all.All())
	check(tb, err)
	secrets, err := trial.ParseSecrets("made-up.yaml", s.text)
	check(tb, err)
	of, err := secrets.For(c)
	check(tb, err)
	issuer, err := trial.NewIssuer(p.Pod)
	check(tb, err)
	tried, err := trial.Try{Class: p.Class, Pod: p.Pod, Config: c, Secrets: of, Issuer: issuer, Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler)}.Mount(tb.Context())
	check(tb, err)
	o := outcome{Message: tried.Message}
	if tried.Message == "" {
		o.Files = map[string]string{}
	}
	for _, f := range tried.Files {
		o.Files[f.Path] = fmt.Sprintf("%04o %s", f.Mode, f.Contents.Reveal())
	}
	return o, tried.Code
}

// lints are the rules of lint that an error of a mount would be told by.
func (s *served) lints(file *manifest.File) (mistakes, denials []string) {
	found := lint.Check([]*manifest.File{file}, lint.Options{Config: manifest.Parse("keymount.yaml", s.config), Kinds: all.All()})
	for _, f := range found.Findings {
		switch {
		case f.File != file.Name || f.Severity != lint.Error:
		case f.Rule == "denied":
			denials = append(denials, f.Text)
		case slices.Contains([]string{"missing", "unknown-field", "unknown-parameter", "not-a-text", "form", "value", "mode", "conflict", "file-clash", "store"}, f.Rule):
			mistakes = append(mistakes, f.Rule+": "+f.Text)
		}
	}
	return mistakes, denials
}

// agree feeds one class to lint, to a node in memory and to the node that serves.
func (s *served) agree(tb testing.TB, seed uint64) (code string) {
	tb.Helper()
	text := randomClass(rand.New(rand.NewPCG(seed, 0))) //nolint:gosec // the same classes each time
	file := manifest.Parse("class.yaml", []byte(text))
	p, err := trial.Pick([]*manifest.File{file}, trial.Choice{})
	check(tb, err)
	want := s.mount(tb, p)
	got, code := s.try(tb, p)
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("seed %d (-served +tried):\n%s\n%s", seed, diff, text)
	}
	mistakes, denials := s.lints(file)
	if (code == "InvalidArgument") != (len(mistakes) > 0) || code == "PermissionDenied" != (len(denials) > 0) {
		tb.Errorf("seed %d: %s %s\nlint finds mistakes %q and denials %q\n%s", seed, code, got.Message, mistakes, denials, text)
	}
	return code
}

// TestLintRenderAndServeAgree: what lint finds, what a trial makes and what a node serves
// cannot differ.
func TestLintRenderAndServeAgree(t *testing.T) {
	s := serve(t)
	const classes = 600
	codes := map[string]int{}
	for seed := range uint64(classes) {
		codes[s.agree(t, seed)]++
		if t.Failed() {
			return
		}
	}
	t.Logf("%v", codes)
	for _, code := range []string{"OK", "InvalidArgument", "PermissionDenied", "NotFound"} {
		if codes[code] < classes/50 {
			t.Errorf("of %d classes %d ended with %s; too few to tell anything", classes, codes[code], code)
		}
	}
}

func FuzzLintRenderAndServeAgree(f *testing.F) {
	s := serve(f)
	for seed := range uint64(10) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { s.agree(t, seed) })
}
