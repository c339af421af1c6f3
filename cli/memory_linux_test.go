package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/cli"
	"github.com/keymount/keymount/provider/providertest"
)

const (
	// memoryBound is the chart's limit, and memoryLimit the GOMEMLIMIT that it sets.
	memoryBound = 256 << 20
	memoryLimit = "204MiB"
	kib, mib    = 1 << 10, 1 << 20
	// flood is what one namespace mounts beside the others: 1 GiB where KEYMOUNT_SEARCH says
	// that there is time.
	flood, shortFlood = 1 << 30, 100 * mib
)

// TestMemoryLimit is a node that serves with the memory limit of the chart. What 110 pods with
// 14 secrets of 4 KiB mount and 10 pods with 3 of 1 MiB is read once, and stands in for a store
// that is away. A namespace that mounts 1 GiB takes nothing of that from those below their
// share, and the process stays below the limit.
func TestMemoryLimit(t *testing.T) {
	n := startLimited(t)
	small := crowd{"shop", 110, 14, 4 * kib}
	large := crowd{"media", 10, 3, mib}
	n.mount(small, large)
	first := n.reads.Load()
	if first < small.all()+large.all() {
		t.Errorf("the store was asked for %d secrets of %d", first, small.all()+large.all())
	}
	n.mount(small, large)
	if got := n.reads.Load() - first; got != 0 {
		t.Errorf("at the second poll %d secrets were read again", got)
	}
	n.away.Store(true)
	n.refresh()
	n.mount(small, large)
	n.away.Store(false)

	harm := crowd{"flood", shortFlood / 3 / mib, 3, mib}
	if os.Getenv("KEYMOUNT_SEARCH") != "" {
		harm.pods = flood / 3 / mib
	}
	n.mount(harm) // which waits for the store to be back
	before := n.reads.Load()
	for n.reads.Load()-before < small.all() { // a failure is the answer for a moment
		n.mount(small)
	}
	before = n.reads.Load()
	n.mount(harm)
	if got := n.reads.Load() - before; got < harm.all()/2 {
		t.Errorf("%d secrets of %d are read again, so that there is no flood", got, harm.all())
	}
	before = n.reads.Load()
	n.mount(small)
	if got := n.reads.Load() - before; got != 0 {
		t.Errorf("of a namespace below its share %d secrets were read again", got)
	}
	peak := n.peak()
	t.Logf("%d MiB of secrets took %d MiB", (small.bytes()+large.bytes()+harm.bytes())>>20, peak>>20)
	if peak > memoryBound && !weighsTwice {
		t.Errorf("the process took %d MiB, and the chart gives it %d", peak>>20, memoryBound>>20)
	}
}

// crowd are pods of a namespace that mount secrets of a size, each its own.
type crowd struct {
	namespace           string
	pods, secrets, size int
}

func (c crowd) all() int64 { return int64(c.pods * c.secrets) }

func (c crowd) bytes() int64 { return c.all() * int64(c.size) }

// limited is a keymount that serves in a process of its own, and its Vault.
type limited struct {
	t      *testing.T
	folder string
	pid    int
	issuer *providertest.Issuer
	driver *providertest.Driver
	reads  atomic.Int64
	away   atomic.Bool
}

func startLimited(t *testing.T) *limited {
	t.Helper()
	folder, err := os.MkdirTemp("", "km") //nolint:usetesting // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	n := &limited{t: t, folder: folder}
	server := httptest.NewServer(http.HandlerFunc(n.vault))
	t.Cleanup(server.Close)
	if n.issuer, err = providertest.NewIssuer("https://cluster.invalid", "key-1"); err != nil {
		t.Fatal(err)
	}
	keys, err := n.issuer.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"jwks.json": string(keys), "version.key": strings.Repeat("k", 32),
		"keymount.yaml": `
stores:
  - vault: {addresses: ["` + server.URL + `"], mounts: {secret: kv2}}
    refresh: 1h
    access: [{namespaces: ["*"], serviceAccounts: ["*"], roles: ["{namespace}"], paths: ["secret/{namespace}/**"]}]
issuers: [{keys: file, issuer: "https://cluster.invalid", keysFile: jwks.json}]
sockets: [keymount.sock]
versionKeyFile: version.key
`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.serve()
	if n.driver, err = providertest.Dial(filepath.Join(folder, "keymount.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.driver.Close() })
	return n
}

// serve starts the process, and returns when it serves.
func (n *limited) serve() {
	n.t.Helper()
	//nolint:gosec // G204: this test binary, as TestMain has it
	command := exec.CommandContext(context.WithoutCancel(n.t.Context()), "keymount", "serve", "--config", filepath.Join(n.folder, "keymount.yaml"))
	command.Env = append(os.Environ(), "GOMEMLIMIT="+memoryLimit)
	logs, err := command.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.pid = command.Process.Pid
	serving, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		begun := sync.OnceFunc(func() { close(serving) })
		for lines := bufio.NewScanner(logs); lines.Scan(); {
			switch line := lines.Text(); {
			case strings.Contains(line, `"msg":"serving"`):
				begun()
			case !strings.Contains(line, `"level":"INFO"`):
				n.t.Log(line)
			}
		}
	}()
	n.t.Cleanup(func() {
		_ = command.Process.Kill() // it has nothing to write
		<-ended
		_ = command.Wait()
	})
	select {
	case <-serving:
	case <-ended:
		n.t.Fatal("the process ended before it served")
	}
}

// refresh has everything read again.
func (n *limited) refresh() {
	n.t.Helper()
	var said bytes.Buffer
	if code := cli.Run(n.t.Context(), []string{"refresh", "--config", filepath.Join(n.folder, "keymount.yaml")}, strings.NewReader(""), &said, &said); code != 0 {
		n.t.Fatalf("refresh ends with %d: %s", code, said.String())
	}
}

// peak is the most memory that the process has had, in bytes.
func (n *limited) peak() int64 {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid))
	if err != nil {
		n.t.Fatal(err)
	}
	_, high, _ := strings.Cut(string(text), "VmHWM:")
	var most int64
	if _, err := fmt.Sscanf(high, "%d kB", &most); err != nil {
		n.t.Fatal(err)
	}
	return most << 10
}

// vault answers like a Vault with a KV v2 engine, whose secrets end in their size.
func (n *limited) vault(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	switch {
	case n.away.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"errors":["Vault is sealed"]}`)
	case path == "sys/health":
		_, _ = io.WriteString(w, `{"initialized":true,"sealed":false,"standby":false}`)
	case strings.HasPrefix(path, "auth/"):
		_, _ = io.WriteString(w, `{"request_id":"x","lease_id":"","lease_duration":0,"renewable":false,"auth":{"client_token":"hvs.obviously-fake","lease_duration":3600}}`)
	default:
		n.reads.Add(1)
		var size int
		_, _ = fmt.Sscan(path[strings.LastIndexByte(path, '/')+1:], &size)
		_, _ = io.WriteString(w, `{"request_id":"x","lease_id":"","lease_duration":0,"renewable":false,"data":{"data":{"v":"`)
		some := bytes.Repeat([]byte("x"), 4*kib)
		for ; size > 0; size -= len(some) {
			_, _ = w.Write(some)
		}
		_, _ = io.WriteString(w, `"},"metadata":{"version":1}}}`)
	}
}

// mount mounts for all pods, as many at a time as a kubelet may.
func (n *limited) mount(crowds ...crowd) {
	n.t.Helper()
	const atOnce = 8
	places := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for _, c := range crowds {
		for i := range c.pods {
			places <- struct{}{}
			running.Go(func() {
				if err := n.mountOne(n.t.Context(), c, i); err != nil {
					n.t.Errorf("pod %d of %s: %.300v", i, c.namespace, err)
				}
				<-places
			})
		}
	}
	running.Wait()
}

func (n *limited) mountOne(ctx context.Context, c crowd, i int) error {
	pod := auth.Pod{Namespace: c.namespace, Name: fmt.Sprint("pod-", i), UID: fmt.Sprint(c.namespace, i), ServiceAccount: "api"}
	token, err := n.issuer.Sign(n.issuer.ClaimsFor(pod, "vault"))
	if err != nil {
		return err
	}
	var objects strings.Builder
	for secret := range c.secrets {
		fmt.Fprintf(&objects, "- {path: secret/%s/%d/%d/%d, key: v, file: f%[3]d}\n", c.namespace, i, secret, c.size)
	}
	attributes, err := providertest.Volume{
		Pod: pod, Class: "app", Tokens: map[string]string{"vault": token},
		Parameters: map[string]string{"role": c.namespace, "objects": objects.String()},
	}.Attributes()
	if err != nil {
		return err
	}
	response, err := n.driver.Call(ctx, attributes)
	if err != nil {
		return err
	}
	sizes := map[int]int{}
	for _, file := range response.GetFiles() {
		sizes[len(file.GetContents())]++
	}
	if !maps.Equal(sizes, map[int]int{c.size: c.secrets}) {
		return fmt.Errorf("files by size: %v", sizes)
	}
	return nil
}
