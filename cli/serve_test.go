package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/cli"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/bundle"
)

// From the command line to the file in the volume and back to SIGTERM.
func TestServe(t *testing.T) {
	folder, err := os.MkdirTemp("", "km") //nolint:usetesting // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	metrics := freeAddress(t)
	issuer := fill(t, folder, "metrics: "+metrics)

	ctx, cancel := context.WithCancel(t.Context())
	logs, log := io.Pipe()
	exited := make(chan int, 1)
	var out bytes.Buffer
	go func() {
		exited <- cli.Run(ctx, []string{"serve", "--config", filepath.Join(folder, "keymount.yaml"), "--node-name", "node-1"}, strings.NewReader(""), &out, log)
		_ = log.Close()
	}()
	lines := bufio.NewScanner(logs)
	waitFor(t, lines, "no versionKeyFile: versions hold for this process alone; "+
		"at every restart all files get new versions, and synced Secrets and workloads that watch them are updated")
	waitFor(t, lines, "serving")

	driver, err := providertest.Dial(filepath.Join(folder, "keymount.sock"))
	if err != nil {
		t.Fatal(err)
	}
	pod := auth.Pod{Namespace: "shop", Name: "api-0", UID: "u", ServiceAccount: "api"}
	claims := issuer.ClaimsFor(pod, "keymount")
	claims.Node = providertest.Reference{Name: "node-1", UID: "n"}
	token, err := issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	mounted := make(chan error, 1)
	target := t.TempDir()
	go func() {
		_, err := driver.Mount(t.Context(), providertest.Volume{
			Pod: pod, Class: "app", Tokens: map[string]string{"keymount": token},
			Parameters: map[string]string{"objects": "[{path: shop/db, key: password, file: password}]"},
		}, target)
		mounted <- err
	}()
	waitFor(t, lines, "call")
	if err := <-mounted; err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(target, "password")); string(got) != "obviously-fake" {
		t.Errorf("the pod reads %q, %v", got, err)
	}
	if text := get(t, "http://"+metrics+"/metrics"); !strings.Contains(text, "\nkeymount_mounts_total{code=\"OK\"} 1\n") ||
		!strings.Contains(text, "\nkeymount_store_reads_total{result=\"ok\",store=\"default\"} 1\n") {
		t.Errorf("the mount is not counted:\n%s", text)
	}
	if err := driver.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	waitFor(t, lines, "stopped")
	if code := <-exited; code != 0 {
		t.Errorf("exit code %d", code)
	}
	var kinds []string
	for line := range strings.Lines(out.String()) {
		r, err := audit.Read([]byte(line))
		if err != nil {
			t.Fatalf("serve printed more than the audit trail: %v: %s", err, line)
		}
		kinds = append(kinds, string(r.Kind))
		if r.Kind == audit.KindMount && (r.Outcome != audit.Granted || r.Pod.Name != "api-0" || r.Secrets[0].Path != "shop/db" || r.Secrets[0].Rule != "stores[0].access[0]") {
			t.Errorf("the mount is recorded as %s", line)
		}
	}
	if got := strings.Join(kinds, " "); got != "begin config checkpoint mount end" && got != "begin config checkpoint mount checkpoint end" { // one comes each second
		t.Errorf("the trail has %s", got)
	}
}

// A store that hangs holds up no stop: its mounts are answered, and all has ended soon.
func TestServeStopsBesideAStoreThatHangs(t *testing.T) {
	folder, err := os.MkdirTemp("", "km") //nolint:usetesting // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	asked, release := make(chan struct{}), make(chan struct{})
	login := sync.OnceFunc(func() { close(asked) })
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/auth/") {
			login()
		}
		<-release
	}))
	defer hanging.Close()
	defer close(release)
	issuer := fill(t, folder, "")
	config, err := os.ReadFile(filepath.Join(folder, "keymount.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.Replace(config, []byte("  - bundle:"), []byte("  - name: vault\n    vault: {addresses: [\""+hanging.URL+"\"]}\n"+
		"    access: [{namespaces: [shop], serviceAccounts: [api], roles: [shop], paths: [\"secret/shop/**\"]}]\n  - bundle:"), 1)
	config = append(config, "metrics: "+freeAddress(t)+"\n"...)
	if err := os.WriteFile(filepath.Join(folder, "keymount.yaml"), config, 0o600); err != nil { //nolint:gosec // G703: a folder of this test
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	logs, log := io.Pipe()
	exited := make(chan int, 1)
	go func() {
		exited <- cli.Run(ctx, []string{"serve", "--config", filepath.Join(folder, "keymount.yaml")}, strings.NewReader(""), io.Discard, log)
		_ = log.Close()
	}()
	lines := bufio.NewScanner(logs)
	waitFor(t, lines, "keymount.yaml") // its address is not encrypted
	waitFor(t, lines, "serving")
	go func() { _, _ = io.Copy(io.Discard, logs) }()
	driver, err := providertest.Dial(filepath.Join(folder, "keymount.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = driver.Close() }()
	pod := auth.Pod{Namespace: "shop", Name: "api-0", UID: "u", ServiceAccount: "api"}
	token, err := issuer.Sign(issuer.ClaimsFor(pod, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	target := t.TempDir()
	go func() {
		_, err := driver.Mount(t.Context(), providertest.Volume{
			Pod: pod, Class: "app", Tokens: map[string]string{"vault": token},
			Parameters: map[string]string{"objects": "[{store: vault, path: secret/shop/db, role: shop, key: password, file: password}]"},
		}, target)
		answered <- err
	}()
	<-asked
	began := time.Now()
	cancel()
	if code := <-exited; code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 10*time.Second { // rather than 5 s: the machine may be busy
		t.Errorf("the stop took %s", took)
	}
	if err := <-answered; status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "keymount is stopping") {
		t.Errorf("the mount got %v", err)
	}
}

// A metrics address in use is found at the start, which then
// leaves nothing behind.
func TestServeWithTakenMetrics(t *testing.T) {
	folder := t.TempDir()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	if err := os.Mkdir(filepath.Join(folder, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	fill(t, folder, "metrics: "+taken.Addr().String()+"\nstatusSocket: run/status.sock")
	var out, errOut bytes.Buffer
	code := cli.Run(t.Context(), []string{"serve", "--config", filepath.Join(folder, "keymount.yaml")}, strings.NewReader(""), &out, &errOut)
	want := "keymount: metrics: listen tcp " + taken.Addr().String() + ": bind: address already in use; " +
		"write a free address of this machine under metrics in keymount.yaml, or remove it\n"
	if code != 1 || !strings.HasSuffix(errOut.String(), want) || strings.Contains(errOut.String(), `"msg":"serving"`) {
		t.Errorf("exit code %d\ngot  %swant %s", code, errOut.String(), want)
	}
	for _, socket := range []string{"keymount.sock", "run/status.sock"} {
		if _, err := os.Lstat(filepath.Join(folder, socket)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind: %v", socket, err)
		}
	}
}

// Volumes can be watched in a cluster alone, which is found out at the start.
func TestServeWatchesNoVolumesOutsideACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	folder := t.TempDir()
	fill(t, folder, "watchVolumes: true")
	var out, errOut bytes.Buffer
	code := cli.Run(t.Context(), []string{"serve", "--config", filepath.Join(folder, "keymount.yaml"), "--node-name", "node-1"}, strings.NewReader(""), &out, &errOut)
	const want = "keymount: watchVolumes: works only in a pod: unable to load in-cluster configuration, " +
		"KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined\n"
	if code != 1 || !strings.HasSuffix(errOut.String(), want) {
		t.Errorf("exit code %d\ngot  %swant %s", code, errOut.String(), want)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fill puts what serve needs into folder, except a version key. extra is more of
// its keymount.yaml.
func fill(t *testing.T, folder, extra string) *providertest.Issuer {
	t.Helper()
	const name = "https://cluster.invalid"
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := bundle.Encrypt([]byte("shop/db: {password: obviously-fake}\n"), []age.Recipient{identity.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := providertest.NewIssuer(name, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := issuer.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		"key.txt": identity.String(), "secrets.age": string(sealed), "jwks.json": string(keys),
		"keymount.yaml": `
stores:
  - bundle: {file: secrets.age, identityFile: key.txt}
    access: [{namespaces: [shop], serviceAccounts: [api], paths: ["shop/**"]}]
issuers: [{keys: file, issuer: "` + name + `", keysFile: jwks.json}]
sockets: [keymount.sock]
` + extra + "\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return issuer
}

// waitFor reads log lines until one has this message.
func waitFor(t *testing.T, lines *bufio.Scanner, message string) {
	t.Helper()
	var seen []string
	for lines.Scan() {
		var entry struct{ Msg string }
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			t.Fatalf("%q is no JSON line: %v", lines.Text(), err)
		}
		if entry.Msg == message {
			return
		}
		seen = append(seen, entry.Msg)
	}
	t.Fatalf("the log ended without %q; it has %q", message, seen)
}
