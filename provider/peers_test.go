package provider_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store/storetest"
	"github.com/keymount/keymount/store/vault"
)

// vector is a class of vault-csi-provider or openbao-csi-provider, and what becomes of it.
// Those are the cases of their own tests, by what they check.
type vector struct {
	About      string
	Socket     string
	Parameters map[string]string
	Answers    map[string]any // by method, path and body
	Login      peerLogin
	Files      map[string]peerFile
	Warnings   []string
	Error      string
	// Differs is the row of docs/migration.md that says why the provider's own answer is another.
	Differs string
}

type peerFile struct{ Mode, Text string }

// peerLogin is a login: with which role, where, and for which audience the token was.
type peerLogin struct{ Mount, Namespace, Role, Audience string }

func readVectors(t *testing.T) map[string]vector {
	t.Helper()
	files, err := filepath.Glob("../class/testdata/peers/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, len(files))
	}
	vectors := map[string]vector{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		decoder := yaml.NewDecoder(strings.NewReader(string(data)))
		decoder.KnownFields(true)
		if err := decoder.Decode(&v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		vectors[strings.TrimSuffix(filepath.Base(file), ".yaml")] = v
	}
	return vectors
}

// peerServer answers one vector, and says who logged in.
type peerServer struct {
	vector
	audiences map[string]string // of tokens

	mu     sync.Mutex
	logins []peerLogin
	asked  map[string]int
}

func (s *peerServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	path := strings.TrimPrefix(r.URL.RequestURI(), "/v1/")
	if mount, ok := strings.CutPrefix(path, "auth/"); ok {
		var login struct{ Role, JWT string }
		_ = json.Unmarshal(body, &login)
		s.logins = append(s.logins, peerLogin{strings.TrimSuffix(mount, "/login"), r.Header.Get("X-Vault-Namespace"), login.Role, s.audiences[login.JWT]})
		_, _ = fmt.Fprint(w, `{"auth": {"client_token": "hvs.obviously-fake", "lease_duration": 3600}}`)
		return
	}
	if below, ok := strings.CutPrefix(path, "sys/internal/ui/mounts/"); ok {
		mount, _, _ := strings.Cut(below, "/")
		engine := map[string]any{"path": mount + "/", "type": "other"}
		if mount == "secret" && strings.Contains(below, "/data/") {
			engine["type"], engine["options"] = "kv", map[string]string{"version": "2"}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": engine})
		return
	}
	request := strings.TrimSpace(r.Method + " " + path + " " + strings.TrimSpace(string(body)))
	s.asked[request]++
	answer, ok := s.Answers[request]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"errors": []}`)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// peerStore is a store that is at the addresses of all vectors.
func peerStore(t *testing.T, url, name, namespace, mount, audience string) provider.Backend {
	t.Helper()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{url}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := access.Compile("access", []access.Rule{{
		Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"*"}, Paths: []string{"**"}, Writes: []string{"**"},
	}}, access.Kind{Roles: access.Required, Writes: true})
	if err != nil {
		t.Fatal(err)
	}
	method := vault.Method{Conn: conn, Mount: mount, Namespace: namespace, Now: time.Now}
	return provider.Backend{
		Name: name, Audience: audience, Rules: compiled, Store: direct(storetest.LayersOf(vault.New(conn, namespace, nil), method)), Resolves: true,
		Class: class.Store{Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{
			Addresses: []string{"https://vault:8200", "https://openbao:8200", "http://vault:8200", "http://openbao:8200"},
			Namespace: namespace, Auth: vault.Auth{Mount: mount, Audience: audience},
		}},
	}
}

// The peers' classes mean here what they mean there, byte for byte, or the manual says why not.
func TestPeersVectors(t *testing.T) {
	manual, err := os.ReadFile("../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range readVectors(t) {
		t.Run(name, func(t *testing.T) {
			if v.Differs != "" && !strings.Contains(string(manual), "| "+v.Differs) {
				t.Errorf("the manual does not say: %s", v.Differs)
			}
			v.check(t)
		})
	}
}

func (v vector) check(t *testing.T) {
	t.Helper()
	server := &peerServer{vector: v, audiences: map[string]string{}, asked: map[string]int{}}
	listening := httptest.NewServer(server)
	defer listening.Close()
	usual := strings.TrimSuffix(v.Socket, ".sock")
	w := start(t, func(w *world, s *setup) {
		w.socket = filepath.Join(filepath.Dir(w.socket), v.Socket)
		s.sockets = []string{w.socket}
		s.options.Backends = []provider.Backend{
			peerStore(t, listening.URL, "default", "", "kubernetes", usual), peerStore(t, listening.URL, "custom", "", "kubernetes", "custom-audience"),
			peerStore(t, listening.URL, "acceptance", "acceptance", "kubernetes", usual), peerStore(t, listening.URL, "jwt", "", "jwt", usual),
			peerStore(t, listening.URL, "far", "", "far", "far-audience"),
		}
	})
	volume := w.volume(pod("test", "default"), "")
	volume.Parameters = v.Parameters
	for _, audience := range []string{"vault", "openbao", "custom-audience", "far-audience"} {
		token := w.sign(w.issuer, w.issuer.ClaimsFor(volume.Pod, audience))
		volume.Tokens[audience], server.audiences[token] = token, audience
	}
	attributes, err := volume.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	response, err := w.driver.Call(t.Context(), attributes)
	if v.Error != "" {
		if !strings.Contains(statusText(err), v.Error) {
			t.Errorf("got %v, want %s", err, v.Error)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]peerFile{}
	for _, f := range response.GetFiles() {
		files[f.GetPath()] = peerFile{fmt.Sprintf("%04o", f.GetMode()), string(f.GetContents())}
	}
	if diff := cmp.Diff(v.Files, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(strings.Join(v.Warnings, "; "), w.warning(t)); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]peerLogin{v.Login}, server.logins[:1]); diff != "" {
		t.Errorf("logins (-want +got):\n%s", diff)
	}
	for request, times := range server.asked {
		if times != 1 {
			t.Errorf("%s: %d times", request, times)
		}
	}
}
