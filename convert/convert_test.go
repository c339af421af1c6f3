package convert_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/convert"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
	keymount "github.com/keymount/keymount/node"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/storetest"
	"github.com/keymount/keymount/store/vault"
)

var update = flag.Bool("update", false, "rewrite the wanted outputs in testdata")

// truth is what the old tool would have made of an input: made-up values in Vault, and the
// files of them, worked out by hand from the tool's documentation.
type truth struct {
	// Source is the part of the documentation, or of the tool's own code, that says so.
	Source string
	// Values are by path of Vault's API, or "PUT path body" of a write.
	Values map[string]any
	// Files are by namespace/class, or, in pods that had an agent, by "pods" with the whole path.
	Files map[string]map[string]string
	// Modes are those of files that are not readable for all.
	Modes map[string]string
	// Differs says why a file is not what the old tool wrote.
	Differs string
}

// TestInputs converts each input of testdata. What comes out is the wanted output beside
// it, has no mistakes, is allowed by the rules that came with it, and is mounted to the
// files that the old tool would have written.
func TestInputs(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	inputs = slices.DeleteFunc(inputs, func(name string) bool { return strings.HasSuffix(name, ".truth.yaml") })
	if len(inputs) < 40 {
		t.Errorf("%d inputs, want 40", len(inputs))
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".yaml")
		t.Run(name, func(t *testing.T) {
			files, err := manifest.Read([]string{input}, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			result := convert.Convert(files, convert.Options{})
			wants(t, strings.TrimSuffix(input, ".yaml")+".want", outputOf(t, result))
			lints(t, result)
			admits(t, result.Pods)
			readTruth(t, strings.TrimSuffix(input, ".yaml")+".truth.yaml").check(t, result)
		})
	}
}

func outputOf(t *testing.T, r *convert.Result) string {
	t.Helper()
	var out bytes.Buffer
	for _, part := range []struct {
		name  string
		nodes []*yaml.Node
	}{{"classes.yaml", r.Classes}, {"keymount.yaml", r.Stores()}, {"pods.yaml", r.Pods}} {
		if len(part.nodes) == 0 {
			continue
		}
		text, err := convert.YAML(part.nodes...)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "-- %s --\n%s", part.name, text)
	}
	fmt.Fprintln(&out, "-- REPORT.txt --")
	r.Report(&out)
	return out.String()
}

// lints has lint find nothing in what came out.
func lints(t *testing.T, r *convert.Result) {
	t.Helper()
	var files []*manifest.File
	for _, part := range []struct {
		name  string
		nodes []*yaml.Node
	}{{"classes.yaml", r.Classes}, {"keymount.yaml", r.Stores()}, {"pods.yaml", r.Pods}} {
		text, err := convert.YAML(part.nodes...)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 0 {
			files = append(files, manifest.Parse(part.name, text))
		}
	}
	for _, finding := range lint.Check(files, lint.Options{Namespace: "default", Kinds: all.All(), Warn: keymount.Warn}).Findings {
		t.Errorf("%s:%d: %s: %s", finding.File, finding.Line, finding.Rule, finding.Text)
	}
}

// admits holds pods against what an API server would refuse in their volumes, and a container
// runtime in their mounts.
func admits(t *testing.T, pods []*yaml.Node) {
	t.Helper()
	for _, node := range pods {
		pod, ok := manifest.Object{Node: node, Kind: text(node, "kind")}.Pod()
		if !ok {
			t.Error("no pod among the pods")
			continue
		}
		volumes := namesOf(t, manifest.Field(pod.Spec, "volumes"), "name")
		for _, list := range []string{"containers", "initContainers"} {
			if manifest.Field(pod.Spec, list) == nil {
				continue
			}
			for _, container := range manifest.Field(pod.Spec, list).Content {
				mounts := manifest.Field(container, "volumeMounts")
				paths := namesOf(t, mounts, "mountPath")
				for i, at := range paths {
					if name := text(mounts.Content[i], "name"); !slices.Contains(volumes, name) {
						t.Errorf("container %q mounts a volume %q that the pod has not", text(container, "name"), name)
					}
					for k, below := range paths {
						if text(mounts.Content[i], "readOnly") == "true" && k != i && strings.HasPrefix(path.Clean(below), path.Clean(at)+"/") {
							t.Errorf("container %q mounts %s within %s, which is read-only", text(container, "name"), below, at)
						}
					}
				}
			}
		}
	}
}

// namesOf are the values of a field that tells the items of a list apart.
func namesOf(t *testing.T, list *yaml.Node, field string) (names []string) {
	t.Helper()
	if list == nil {
		return nil
	}
	for _, item := range list.Content {
		name := strings.TrimSuffix(text(item, field), "/")
		if slices.Contains(names, name) {
			t.Errorf("%s %q stands there twice", field, name)
		}
		names = append(names, name)
	}
	return names
}

func wants(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func readTruth(t *testing.T, file string) (tr truth) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&tr); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if tr.Source == "" {
		t.Errorf("%s: names no source", file)
	}
	return tr
}

func (tr truth) check(t *testing.T, r *convert.Result) {
	t.Helper()
	got, modes := map[string]map[string]string{}, map[string]string{}
	if r.Rules != nil {
		n := newNode(t, r.Rules, tr)
		for _, written := range r.Classes {
			for name, file := range n.mount(t, written) {
				key := text(written, "metadata", "namespace") + "/" + text(written, "metadata", "name")
				for _, place := range placesOf(r.Pods, text(written, "metadata", "name"), name, key) {
					if got[place[0]] == nil {
						got[place[0]] = map[string]string{}
					}
					got[place[0]][place[1]] = string(file.GetContents())
					if mode := fmt.Sprintf("%04o", file.GetMode()); mode != "0444" && mode != "0644" {
						modes[place[1]] = mode
					}
				}
			}
		}
	}
	if len(tr.Files) == 0 && len(got) == 0 {
		return
	}
	if diff := cmp.Diff(tr.Files, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if len(tr.Modes)+len(modes) > 0 {
		if diff := cmp.Diff(tr.Modes, modes); diff != "" {
			t.Errorf("modes (-want +got):\n%s", diff)
		}
	}
}

// placesOf are the places of a file of a class: in the pods that mount it, or in the class.
func placesOf(pods []*yaml.Node, class, file, key string) (places [][2]string) {
	for _, node := range pods {
		pod, ok := manifest.Object{Node: node, Kind: text(node, "kind")}.Pod()
		if !ok {
			continue
		}
		for _, volume := range manifest.Field(pod.Spec, "volumes").Content {
			if text(volume, "csi", "volumeAttributes", "secretProviderClass") != class {
				continue
			}
			for _, mount := range manifest.Field(manifest.Field(pod.Spec, "containers").Content[0], "volumeMounts").Content {
				if text(mount, "name") == text(volume, "name") {
					places = append(places, [2]string{"pods", path.Join(text(mount, "mountPath"), file)})
				}
			}
		}
	}
	if places == nil {
		return [][2]string{{key, file}}
	}
	return places
}

func text(n *yaml.Node, names ...string) string { return manifest.Text(manifest.Field(n, names...)) }

// node is a provider with the stores and rules of a converted keymount.yaml, in front of a
// server that answers as Vault does.
type node struct {
	stores   *config.Config
	provider *provider.Provider
	issuer   *providertest.Issuer
}

const issuerName = "https://cluster.invalid"

func newNode(t *testing.T, rules *yaml.Node, tr truth) *node {
	t.Helper()
	written, err := convert.YAML(rules)
	if err != nil {
		t.Fatal(err)
	}
	stores, err := config.Parse(written, all.All())
	if err != nil {
		t.Fatalf("the converted keymount.yaml has mistakes: %v\n%s", err, written)
	}
	server := httptest.NewServer(fakeVault{tr.Values, t})
	t.Cleanup(server.Close)
	issuer, err := providertest.NewIssuer(issuerName, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := issuer.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	keysFile := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(keysFile, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	options := provider.Options{
		Version: "v0.0.0-test", Deadline: 10 * time.Second, ParallelReads: 8, VersionKey: secret.New(bytes.Repeat([]byte{7}, 32)),
		Verifier: auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, auth.FileKeys{Issuer: issuerName, File: keysFile}, time.Now)}, "node-1", time.Now),
	}
	for i := range stores.Stores {
		options.Backends = append(options.Backends, backend(t, &stores.Stores[i], server.URL))
	}
	return &node{stores, provider.New(options), issuer}
}

func backend(t *testing.T, s *config.Store, url string) provider.Backend {
	t.Helper()
	settings, ok := s.Settings.(*vault.Settings)
	if !ok {
		t.Fatalf("store %q is no Vault", s.Name)
	}
	conn, err := vault.NewConn(vault.Options{Addresses: []string{url}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	engines := map[string]vault.Engine{}
	for mount, engine := range settings.Mounts {
		engines[mount] = vault.Engine(engine)
	}
	logged, _ := storetest.LoggedIn(storetest.LayersOf(vault.New(conn, settings.Namespace, engines), vault.Method{Conn: conn, Mount: settings.Auth.Mount, Now: time.Now}))
	return provider.Backend{
		Name: s.Name, Audience: s.Settings.Audience(), Rules: s.Rules(), Resolves: true, Store: keep.NewDirect(logged),
		Class: class.Store{Traits: s.Kind.Traits(), Settings: s.Settings},
	}
}

// mount mounts a class in a pod of the first service account that the rules name.
func (n *node) mount(t *testing.T, written *yaml.Node) map[string]*v1alpha1.File {
	t.Helper()
	document, err := convert.YAML(written)
	if err != nil {
		t.Fatal(err)
	}
	read := manifest.Parse("class.yaml", document)
	c, ok := read.Objects[0].Class()
	if !ok || c.Provider != "keymount" || len(read.Mistakes) > 0 {
		t.Fatalf("%v is no class of keymount", read.Mistakes)
	}
	volume := providertest.Volume{Class: c.Name, Parameters: c.Parameters, Tokens: map[string]string{}}
	volume.Pod = auth.Pod{Namespace: "default", Name: "pod-0", UID: "uid-1", ServiceAccount: "anyone"}
	if c.Namespace != "" {
		volume.Pod.Namespace = c.Namespace
	}
	for i := range n.stores.Stores {
		s := &n.stores.Stores[i]
		for _, rule := range s.Access.Rules {
			if rule.Namespaces[0] == volume.Pod.Namespace && rule.ServiceAccounts[0] != "*" && slices.Contains(rule.Roles, c.Parameters["role"]) {
				volume.Pod.ServiceAccount = rule.ServiceAccounts[0]
			}
		}
	}
	for i := range n.stores.Stores {
		audience := n.stores.Stores[i].Settings.Audience()
		if volume.Tokens[audience], err = n.issuer.Sign(n.issuer.ClaimsFor(volume.Pod, audience)); err != nil {
			t.Fatal(err)
		}
	}
	attributes, err := volume.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	response, err := n.provider.Mount(t.Context(), &v1alpha1.MountRequest{Attributes: attributes, Permission: "420", Secrets: "{}", TargetPath: t.TempDir()})
	if err != nil {
		t.Errorf("mount: %v\n%s", err, document)
		return nil
	}
	files := map[string]*v1alpha1.File{}
	for _, f := range response.GetFiles() {
		files[f.GetPath()] = f
	}
	return files
}

// fakeVault answers with made-up values. A path with data/ is of a KV v2 engine.
type fakeVault struct {
	values map[string]any
	t      *testing.T
}

func (v fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	path := strings.TrimPrefix(r.URL.RequestURI(), "/v1/")
	if strings.HasPrefix(path, "auth/") {
		_, _ = fmt.Fprint(w, `{"auth": {"client_token": "hvs.obviously-fake", "lease_duration": 3600}}`)
		return
	}
	if below, ok := strings.CutPrefix(path, "sys/internal/ui/mounts/"); ok {
		_ = json.NewEncoder(w).Encode(map[string]any{"data": v.engine(below)})
		return
	}
	key := path
	if r.Method != http.MethodGet {
		key = strings.TrimSpace(r.Method + " " + path + " " + strings.TrimSpace(string(body)))
	}
	data, ok := v.values[key]
	if !ok {
		v.t.Logf("Vault has no %s", key)
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"errors": []}`)
		return
	}
	if text, isText := data.(string); isText {
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = io.WriteString(w, text)
		return
	}
	if strings.Contains(path, "/data/") {
		data = map[string]any{"data": data, "metadata": map[string]any{"version": 1}}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
}

func (v fakeVault) engine(below string) map[string]any {
	mount, _, _ := strings.Cut(below, "/")
	engine := map[string]any{"path": mount + "/", "type": "other"}
	for path := range v.values {
		if strings.HasPrefix(path, mount+"/data/") {
			engine["type"], engine["options"] = "kv", map[string]string{"version": "2"}
		}
	}
	return engine
}
