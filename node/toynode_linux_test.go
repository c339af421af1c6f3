package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/all"
)

// toyNode is a node whose one store is a toy.
type toyNode struct {
	t       *testing.T
	folder  string
	metrics string // address
	issuer  *providertest.Issuer
	kind    toy
	cloud   *cloud // of kind
	driver  *providertest.Driver
}

func newToyNode(t *testing.T) *toyNode {
	t.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "km-") //nolint:usetesting // a state folder is in memory, and a socket's path short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	issuer, err := providertest.NewIssuer("https://cluster.invalid", "key-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := issuer.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"jwks.json": keys, "version.key": bytes.Repeat([]byte("k"), 32)} {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = free.Close() }()
	cloud := newCloud(t, map[string]map[string]any{
		"prod/db": {"password": "one"}, "arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf": {"password": "two"},
	})
	return &toyNode{t: t, folder: folder, metrics: free.Addr().String(), issuer: issuer, kind: toy{cloud: cloud}, cloud: cloud}
}

// serve opens the node and runs it during a story.
func (n *toyNode) serve(story func()) {
	n.t.Helper()
	memory := "refresh: 1h"
	if n.kind.forgetful {
		memory = "" // it may not be there
	}
	c, err := config.Parse([]byte(strings.NewReplacer("DIR", n.folder, "MEMORY", memory).Replace(`
stores:
  - name: toys
    toy: {server: toys.invalid}
    MEMORY
    access:
      - {namespaces: [shop], serviceAccounts: [api], roles: ["", "arn:aws:iam::1:role/{namespace}/*"], paths: ["prod/**", "arn:aws:secretsmanager:*"]}
issuers: [{keys: file, issuer: "https://cluster.invalid", keysFile: DIR/jwks.json}]
sockets: [DIR/keymount.sock]
versionKeyFile: DIR/version.key
stateFolder: DIR/state
`)+"metrics: "+n.metrics), append(all.All(), n.kind))
	if err != nil {
		n.t.Fatal(err)
	}
	opened, err := node.Open(n.t.Context(), c, node.Options{Version: "v1.2.3", Log: slog.New(noBugs{n.t}), Stdout: io.Discard})
	if err != nil {
		n.t.Fatal(err)
	}
	if n.driver, err = providertest.Dial(c.Sockets[0]); err != nil {
		n.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(n.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- opened.Run(ctx) }()
	story()
	stop()
	if err := errors.Join(n.driver.Close(), <-ended); err != nil {
		n.t.Error(err)
	}
}

// mount mounts a class for the pod of a service account, and returns the files in the
// order of their names.
func (n *toyNode) mount(account, role, objects string) (files string, err error) {
	n.t.Helper()
	namespace, account, _ := strings.Cut(account, "/")
	pod := auth.Pod{Namespace: namespace, Name: "api-0", UID: "u", ServiceAccount: account}
	token, err := n.issuer.Sign(n.issuer.ClaimsFor(pod, "toys"))
	if err != nil {
		n.t.Fatal(err)
	}
	parameters := map[string]string{"store": "toys", "objects": objects}
	if role != "" {
		parameters["role"] = role
	}
	target := n.t.TempDir()
	if _, err := n.driver.Mount(n.t.Context(), providertest.Volume{
		Pod: pod, Class: "app", Tokens: map[string]string{"toys": token}, Parameters: parameters,
	}, target); err != nil {
		return "", err
	}
	names, err := filepath.Glob(filepath.Join(target, "[a-z]*"))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			n.t.Fatal(err)
		}
		files += fmt.Sprintf("%s=%s ", filepath.Base(name), data)
	}
	return files, nil
}

// want mounts for the account shop/api, and compares the files and what was asked in all.
func (n *toyNode) want(role, objects, files string, logins, reads int) {
	n.t.Helper()
	got, err := n.mount("shop/api", role, objects)
	if err != nil || got != files {
		n.t.Errorf("files %q, %v; want %q", got, err, files)
	}
	n.cloud.mu.Lock()
	defer n.cloud.mu.Unlock()
	if n.cloud.logins != logins || n.cloud.reads != reads {
		n.t.Errorf("the cloud was asked for %d logins and %d secrets; want %d and %d", n.cloud.logins, n.cloud.reads, logins, reads)
	}
}

// wantError mounts what is refused.
func (n *toyNode) wantError(account, role, objects string, code codes.Code, text string) {
	n.t.Helper()
	files, err := n.mount(account, role, objects)
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		n.t.Errorf("files %q, %v\nwant %s: %s", files, err, code, text)
	}
}

const (
	toyRole = "arn:aws:iam::1:role/shop/api"
	both    = `[{path: /prod/db, key: password, file: a}, {path: prod/db, key: password, file: b}]`
	joined  = `[{path: /prod/db, template: '{{ .password }} {{ (secret "/prod/db").password }}', file: d}]`
	byName  = `[{path: "arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf", key: password, file: c}]`
)

// A kind of store that nothing here knows has all that keymount gives to a store.
func TestNodeWithAToy(t *testing.T) {
	n := newToyNode(t)
	n.serve(func() {
		n.want(toyRole, both, "a=one b=one ", 1, 1) // two spellings of one secret
		n.want(toyRole, both, "a=one b=one ", 1, 1) // from memory
		n.want(toyRole, joined, "d=one one ", 1, 1)
		n.want("", byName, "c=two ", 2, 2) // a login without a role
		n.refused()
		n.refresh()
		n.want(toyRole, both, "a=one b=one ", 2, 4)
		n.observed()
	})
	n.serve(func() {
		n.want(toyRole, both, "a=one b=one ", 2, 5) // with the login that was made before the restart
	})
	if n.cloud.probes < 2 {
		t.Errorf("the cloud was probed %d times, want a probe at each start", n.cloud.probes)
	}
}

// A store without memory keeps its logins over a restart.
func TestNodeWithAForgetfulToy(t *testing.T) {
	n := newToyNode(t)
	n.kind.forgetful = true
	n.serve(func() { n.want(toyRole, both, "a=one b=one ", 1, 1) })
	n.serve(func() {
		n.want(toyRole, both, "a=one b=one ", 1, 2)
		n.observedInFlight()
	})
}

// A store without logins has a memory, and a file for it.
func TestNodeWithAnOpenToy(t *testing.T) {
	n := newToyNode(t)
	n.kind.open, n.cloud.open = true, true
	n.serve(func() {
		n.want("", both, "a=one b=one ", 0, 1)
		n.want("", both, "a=one b=one ", 0, 1)
	})
	if _, err := os.Stat(filepath.Join(n.folder, "state", "toys.state")); err != nil {
		t.Error(err)
	}
	n.serve(func() { n.want("", both, "a=one b=one ", 0, 2) })
}

func (n *toyNode) refused() {
	const denied = "; no rule under access of that store in keymount.yaml allows it"
	n.wantError("other/api", "", byName, codes.PermissionDenied, "service account other/api may not read \"arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf\" of store \"toys\""+denied)
	n.wantError("shop/api", "arn:aws:iam::1:role/other/api", both, codes.PermissionDenied, `with role "arn:aws:iam::1:role/other/api"`+denied)
	n.wantError("shop/api", toyRole, `[{path: /prod/locked, key: a, file: a}]`, codes.PermissionDenied, `denied by the store: read "prod/locked"`)
	n.wantError("shop/api", "", `[{path: //prod/db, key: a, file: a}]`, codes.InvalidArgument, `path: "/prod/db" has an empty segment`)
	n.wantError("shop/api", "", `[{path: prod/db, version: 1, key: a, file: a}]`, codes.InvalidArgument, `store "toys" keeps no versions; remove version "1"`)
}

// refresh is keymount refresh.
func (n *toyNode) refresh() {
	connection, err := grpc.NewClient("unix://"+filepath.Join(n.folder, "keymount.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	if err := errors.Join(provider.Refresh(n.t.Context(), connection), connection.Close()); err != nil {
		n.t.Error(err)
	}
}

// observed looks at the node as probes and Prometheus do.
func (n *toyNode) observed() {
	version, err := n.driver.Version(n.t.Context())
	if err != nil || version.GetRuntimeVersion() != "v1.2.3" {
		n.t.Errorf("version %v, %v", version, err)
	}
	text := n.scrape()
	for _, line := range []string{
		`keymount_store_reads_total{result="ok",store="toys"} 3`,
		`keymount_store_reads_total{result="denied",store="toys"} 1`,
		`keymount_logins_total{result="ok",store="toys"} 2`,
		`keymount_mounts_in_flight 0`,
		`keymount_mounts_total{code="OK"} 5`,
		`keymount_mounts_total{code="PermissionDenied"} 3`,
		`keymount_mounts_total{code="InvalidArgument"} 2`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			n.t.Errorf("metrics have no line %s:\n%s", line, text)
		}
	}
	if !regexp.MustCompile(`\nkeymount_store_memory_bytes\{store="toys"\} [1-9]`).MatchString(text) {
		n.t.Errorf("the memory takes nothing:\n%s", text)
	}
}

// scrape is the page for Prometheus.
func (n *toyNode) scrape() string {
	n.t.Helper()
	request, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, "http://"+n.metrics+"/metrics", http.NoBody)
	if err != nil {
		n.t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// observedInFlight scrapes while a mount waits for the store.
func (n *toyNode) observedInFlight() {
	reached, release := make(chan struct{}), make(chan struct{})
	reach := sync.OnceFunc(func() { close(reached) })
	n.cloud.mu.Lock()
	n.cloud.behave = func(context.Context) store.Reason { reach(); <-release; return "" }
	n.cloud.mu.Unlock()
	var mounting sync.WaitGroup
	mounting.Go(func() { _, _ = n.mount("shop/api", "", byName) })
	<-reached
	text := n.scrape()
	close(release)
	mounting.Wait()
	if !strings.Contains(text, "\nkeymount_mounts_in_flight 1\n") {
		n.t.Errorf("no mount is in flight:\n%s", text)
	}
}
