// Package e2e_test runs keymount as an operator does, the built program with a
// keymount.yaml, and calls it as the driver does, over its socket. What it reads
// from is a real Vault.
package e2e_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider/providertest"
)

var update = flag.Bool("update", false, "write the texts of docs/troubleshooting.md")

// keymountBinary is what TestMain built.
var keymountBinary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	folder, err := os.MkdirTemp("", "keymount-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the program:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if err := flag.Set("test.parallel", "8"); err != nil { // most of them wait for a store that is away
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	keymountBinary = filepath.Join(folder, "keymount")
	args := []string{"build", "-buildvcs=false", "-o", keymountBinary}
	if raced {
		args = append(args, "-race") // a race ends keymount with an exit code that is not 0
	}
	//nolint:gosec // G204: a go build of our own source
	command := exec.CommandContext(context.Background(), "go", append(args, ".")...)
	command.Dir = ".."
	if out, err := command.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build keymount: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const (
	issuerName = "https://cluster.example"
	nodeName   = "node-1"
	storeName  = "prod"
	// startLimit bounds how long keymount may take until it serves, and until it stops.
	startLimit = 30 * time.Second
	// ambient is a token in keymount's environment, where none may count.
	ambient = "hvs.ambient-token-of-the-node"
)

// shopAPI is the pod that most tests mount for.
var shopAPI = auth.Pod{Namespace: "shop", Name: "api-0", UID: "uid-of-api-0", ServiceAccount: "api"}

// newIssuer makes the cluster's issuer of tokens.
func newIssuer(t *testing.T) *providertest.Issuer {
	t.Helper()
	issuer, err := providertest.NewIssuer(issuerName, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// keymount is a process that serves.
type keymount struct {
	config string   // keymount.yaml
	args   []string // of the process
	issuer *providertest.Issuer
	driver *providertest.Driver
	output *output
	// The process that runs now.
	command *exec.Cmd
	exited  chan error

	mu      sync.Mutex
	secrets []string // what must not be seen
	errors  []string // what callers were told
}

// operator is what differs between the tests' keymount.yaml.
type operator struct {
	Addresses []string
	Vault     []string // more lines of the section vault
	Session   string   // of the store
	Memory    string   // more lines of the store: refresh and stale; neither by default, so that each mount asks
	Access    string   // of the store; anyRule when empty
	Deadline  time.Duration
	Hosts     string // a file that is /etc/hosts for keymount, and knows all names
	State     string // the folder of the state; none by default
	Audit     string // in braces; the trail goes to standard output by default
}

// anyRule leaves it to Vault, as far as rules can.
const anyRule = `[{namespaces: ["*"], serviceAccounts: ["*"], roles: ["*"], paths: ["**"], writes: ["**"]}]`

func (o operator) yaml(folder string) string {
	access, deadline := o.Access, o.Deadline
	if access == "" {
		access = anyRule
	}
	if deadline == 0 {
		deadline = 25 * time.Second
	}
	if o.Session == "" {
		o.Session = "serviceAccount"
	}
	if o.Memory == "" {
		o.Memory = "refresh: 0s, stale: 0s"
	}
	state := ""
	if o.State != "" {
		state = "stateFolder: " + o.State + "\n"
	}
	if o.Audit != "" {
		state += "audit: " + o.Audit + "\n"
	}
	lines := append([]string{"addresses: [" + strings.Join(o.Addresses, ", ") + "]"}, o.Vault...)
	return fmt.Sprintf(`stores:
  - name: %s
    access: %s
    session: %s
    %s
    vault:
      %s
issuers: [{keys: file, issuer: %q, keysFile: jwks.json}]
sockets: [%s]
versionKeyFile: version.key
limits: {mountDeadline: %s}
%s`, storeName, access, o.Session, strings.ReplaceAll(o.Memory, ", ", "\n    "), strings.Join(lines, "\n      "), issuerName, filepath.Join(folder, "keymount.sock"), deadline, state)
}

// serve runs keymount until the test ends, and then looks for secrets in what it
// wrote.
func serve(t *testing.T, issuer *providertest.Issuer, o operator) *keymount {
	t.Helper()
	folder := configure(t, issuer, o)
	k := &keymount{config: filepath.Join(folder, "keymount.yaml"), issuer: issuer, output: &output{}}
	k.args = []string{keymountBinary, "serve", "--config", k.config, "--node-name", nodeName, "--log-level", "debug"}
	if o.Hosts != "" {
		k.args = append(withHosts(t, o.Hosts), k.args...)
	}
	t.Cleanup(func() { k.stop(t) })
	k.start(t)
	return k
}

// start runs the process until it serves.
func (k *keymount) start(t *testing.T) {
	t.Helper()
	serving := k.output.again()
	k.command = exec.CommandContext(context.WithoutCancel(t.Context()), k.args[0], k.args[1:]...) //nolint:gosec // G204: the program that TestMain built
	k.command.Stdout, k.command.Stderr = k.output, k.output
	k.command.Env = []string{
		"VAULT_TOKEN=" + ambient, "VAULT_ADDR=http://127.0.0.1:1", "VAULT_NAMESPACE=elsewhere", "VAULT_SKIP_VERIFY=true", // none counts
		"GORACE=atexit_sleep_ms=0", // a second, otherwise
	}
	k.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	k.command.WaitDelay = startLimit
	if err := k.command.Start(); err != nil {
		t.Fatalf("start keymount: %v", err)
	}
	command, exited := k.command, make(chan error, 1)
	k.exited = exited
	go func() { exited <- command.Wait() }()
	select {
	case <-serving:
	case <-time.After(startLimit):
		t.Fatal("keymount does not serve")
	case err := <-exited:
		exited <- err
		t.Fatalf("keymount ended: %v", err)
	}
	driver, err := providertest.Dial(filepath.Join(filepath.Dir(k.config), "keymount.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = driver.Close() })
	k.driver = driver
}

// restart ends the process by a signal, and starts it anew.
func (k *keymount) restart(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := k.command.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	exited := k.exited
	k.exited = nil
	if err := <-exited; err != nil && signal != syscall.SIGKILL {
		t.Fatalf("keymount ended with %v", err)
	}
	k.start(t)
}

// withHosts are a command and its arguments that run what follows with another
// /etc/hosts, in a mount namespace of its own, and without a resolver.
func withHosts(t *testing.T, hosts string) []string {
	t.Helper()
	resolver := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolver, []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	unshare := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--map-current-user", "--keep-caps")
	}
	if out, err := exec.CommandContext(t.Context(), unshare[0], append(unshare[1:], "true")...).CombinedOutput(); err != nil { //nolint:gosec // G204: from above
		t.Skipf("names cannot be taken away from keymount alone: %v\n%s", err, out)
	}
	const script = `mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"`
	return append(unshare, "sh", "-c", script, "sh", hosts, resolver)
}

// configure writes what serve needs. A socket's path is short, so the folder is
// not t.TempDir.
func configure(t *testing.T, issuer *providertest.Issuer, o operator) (folder string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "km-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	keys, err := issuer.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"keymount.yaml": o.yaml(folder), "jwks.json": string(keys), "version.key": rand.Text() + rand.Text(),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func (k *keymount) stop(t *testing.T) {
	t.Helper()
	if k.exited == nil {
		return // it ended, or did not start
	}
	if err := k.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stop keymount: %v", err)
	}
	if err := <-k.exited; err != nil {
		t.Errorf("keymount ended with %v", err)
	}
	k.searchSecrets(t)
	if t.Failed() {
		t.Logf("what keymount wrote:\n%s", k.output)
	}
}

// vaultToken fits the tokens of Vault: service, batch and recovery, and the old ones.
var vaultToken = regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]{10,}|\b[sbr]\.[A-Za-z0-9]{24}\b|\beyJ[A-Za-z0-9_-]{10,}`)

// searchSecrets looks at all that left the process, but for the files.
func (k *keymount) searchSecrets(t *testing.T) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for where, text := range map[string]string{"its output": k.output.String(), "an error": strings.Join(k.errors, "\n")} {
		for _, leak := range leaksIn(text, k.secrets) {
			t.Errorf("a secret stands in %s: %.8s...", where, leak)
		}
	}
}

// leaksIn are the secrets that stand in text, and whatever looks like a token.
func leaksIn(text string, secrets []string) []string {
	leaks := vaultToken.FindAllString(text, -1)
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			leaks = append(leaks, secret)
		}
	}
	return leaks
}

// guard adds secrets to those that must not be seen.
func (k *keymount) guard(secrets ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.secrets = append(k.secrets, secrets...)
}

// class is what a pod's author wrote.
type class struct {
	Role    string
	Objects string
}

// mount mounts c for pod and returns the files.
func (k *keymount) mount(t *testing.T, pod auth.Pod, c class) (map[string]string, error) {
	t.Helper()
	return k.mountWith(t, pod, c, "vault")
}

// mountWith presents a token for another audience.
func (k *keymount) mountWith(t *testing.T, pod auth.Pod, c class, audience string) (map[string]string, error) {
	t.Helper()
	v, err := k.publish(t, pod, "app", c, audience)
	return v.files, err
}

// volume is what a pod has of a class.
type volume struct{ files, versions map[string]string }

// publish mounts the class of that name into a new folder.
func (k *keymount) publish(t *testing.T, pod auth.Pod, name string, c class, audience string) (volume, error) {
	t.Helper()
	target := t.TempDir()
	versions, err := k.driver.Mount(t.Context(), providertest.Volume{
		Pod: pod, Class: name, Tokens: map[string]string{audience: k.token(t, pod, audience)},
		Parameters: map[string]string{"store": storeName, "role": c.Role, "objects": c.Objects},
	}, target)
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.errors = append(k.errors, err.Error())
		return volume{}, err
	}
	files := map[string]string{}
	for name := range maps.Keys(versions) {
		content, err := os.ReadFile(filepath.Join(target, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(content)
	}
	return volume{files, versions}, nil
}

// mounted is mount for a class that has nothing wrong with it.
func (k *keymount) mounted(t *testing.T, c class) map[string]string {
	t.Helper()
	files, err := k.mount(t, shopAPI, c)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (k *keymount) token(t *testing.T, pod auth.Pod, audience string) string {
	t.Helper()
	claims := k.issuer.ClaimsFor(pod, audience)
	claims.Node = providertest.Reference{Name: nodeName, UID: "uid-of-" + nodeName}
	token, err := k.issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	k.guard(token, token[strings.LastIndexByte(token, '.')+1:])
	return token
}

// told is an error as the caller sees it: the code and the text.
func told(err error) string {
	s := status.Convert(err)
	return s.Code().String() + ": " + s.Message()
}
