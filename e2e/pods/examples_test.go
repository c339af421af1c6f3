package pods_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/keymount/keymount/e2e/vaulttest"
)

// changeLimit bounds how long a change may take that comes by way of a Kubernetes
// Secret: the kubelet's time for keymount's own volume, and then the pod's.
const changeLimit = 3 * time.Minute

// example is what a directory of examples/ promises.
type example struct {
	name       string
	pods       string // label selector; the pod app when empty
	says       string // a line of the pod's log, as a regular expression
	files      map[string]string
	secret     string // a native Secret, and its type
	secretType string
	change     func(*testing.T, *suite)
	then       string // a line that comes after the change
	check      func(*suite, *testing.T, *scene, string)
	needs      string // a variable for its setup.sh, where the cluster is not ours
	address    bool   // whether its class names the address of the store prod
}

func examples() []example {
	const password = `^example-password-not-a-secret$`
	return []example{
		{
			name: "one-key", says: `the password has 29 characters`, files: map[string]string{"/secrets/db/password": password},
			change: inBundle("example-one-key/db", "password", "example-2"), then: `the password has 9 characters`,
		},
		{
			name: "all-keys", says: `keys: host password username`, files: map[string]string{"/secrets/db/username": `^example-user$`},
			change: inVault("example-all-keys/db", map[string]any{"host": "h", "username": "u", "password": "p", "port": "5432"}),
			then:   `keys: host password port username`,
		},
		{
			name: "dotenv-template", says: `LOG_LEVEL is debug, the database is postgres\.example\.svc:5432/shop`,
			files: map[string]string{ //nolint:gosec // G101: obviously fake
				"/secrets/app.env": `^DB_HOST='postgres\.example\.svc:5432'\nLOG_LEVEL='debug'\n$`,
				"/secrets/dsn":     `^postgresql://example-user:example-password-not-a-secret@postgres\.example\.svc:5432/shop$`,
			},
			change: inBundle("example-dotenv-template/app", "LOG_LEVEL", "info"), then: `LOG_LEVEL is info, the database is .*`,
		},
		{name: "database-credential", needs: "POSTGRES", says: `the database user is v-kubernet-example-.*`, check: (*suite).checkCredential},
		{
			name: "pki-tls-server", pods: "app=web", check: (*suite).checkServer,
			files: map[string]string{"/secrets/tls/tls.crt": `BEGIN CERTIFICATE`, "/secrets/tls/tls.key": `PRIVATE KEY`, "/secrets/tls/ca.crt": `BEGIN CERTIFICATE`}, //nolint:gosec // G101: no key
		},
		{name: "image-pull-secret", says: `my image was pulled`, secret: "registry", secretType: "kubernetes.io/dockerconfigjson"}, //nolint:gosec // G101: a type
		{
			name: "env-from-secret", says: `DB_PASSWORD has 29 characters, the file has 29`, files: map[string]string{"/secrets/password": password},
			secret: "db", secretType: "Opaque",
			change: inBundle("example-env-from-secret/db", "password", "example-2"), then: `DB_PASSWORD has 29 characters, the file has 9`,
		},
		{
			name: "several-stores", says: `bytes: 29 db-password 28 license 57 total`, files: map[string]string{"/secrets/license": `^example-license-not-a-secret$`},
			change: inVault("example-several-stores/db", map[string]any{"password": "example-2"}), then: `bytes: 9 db-password 28 license 37 total`,
		},
		{
			name: "migrate-from-vault-csi-provider", address: true, says: `db-password has 29 characters, db\.json is \{"request_id":"\.\.\.`,
			files:  map[string]string{"/secrets/db.json": `^\{"request_id":"","lease_id":`}, //nolint:gosec // G101: field names
			change: inVault("example-migrate-from-vault-csi-provider/db", map[string]any{"username": "u", "password": "example-2"}),
			then:   `db-password has 9 characters, db\.json is .*`,
		},
	}
}

// inVault writes another version of a secret, and inBundle another bundle.
func inVault(path string, data map[string]any) func(*testing.T, *suite) {
	return func(t *testing.T, s *suite) { t.Helper(); s.put(t, path, data) }
}

func inBundle(path, key, value string) func(*testing.T, *suite) {
	return func(t *testing.T, s *suite) { t.Helper(); s.changeBundle(t, path, key, value) }
}

// Every directory of examples/ does what it promises, applied as it stands.
func (s *suite) testExamples(t *testing.T) {
	t.Parallel()
	folders, err := filepath.Glob("../../examples/*/README.md")
	if err != nil || len(folders) != len(examples()) {
		t.Fatalf("examples/ has %d directories and this test knows %d (%v)", len(folders), len(examples()), err)
	}
	for _, e := range examples() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			if e.needs != "" && s.cluster == nil && os.Getenv(e.needs) == "" {
				t.Skipf("needs a server: set %s and what else its setup.sh takes", e.needs)
			}
			if e.address && s.vaultAddress != examplesVault {
				t.Skipf("its class names a Vault at %s, and the one of this run is at %s", examplesVault, s.vaultAddress)
			}
			s.try(t, e)
		})
	}
}

func (s *suite) try(t *testing.T, e example) {
	t.Helper()
	c := &scene{kube: s.kube, t: t, namespace: "example-" + e.name}
	folder := filepath.Join("../../examples", e.name)
	s.removeLater(t, c.namespace)
	if _, err := os.Stat(filepath.Join(folder, "setup.sh")); err == nil {
		s.runSetup(t, filepath.Join(e.name, "setup.sh"))
	}
	c.applyFolder(t, folder)
	pod := c.started(e.pods)
	c.says(pod, e.says, readyLimit)
	for file, want := range e.files {
		content, err := c.exec(t, c.namespace, pod, "cat", file)
		if err != nil || !regexp.MustCompile(want).MatchString(content) {
			t.Errorf("%s is %q (%v), want %s", file, content, err, want)
		}
	}
	if e.secret != "" {
		c.within(t, readyLimit, "there is the Secret "+e.secret+" of type "+e.secretType, func() error { // its files may come first
			secret, err := c.CoreV1().Secrets(c.namespace).Get(t.Context(), e.secret, metav1.GetOptions{})
			if err == nil && string(secret.Type) != e.secretType {
				err = fmt.Errorf("its type is %s", secret.Type)
			}
			return err
		})
	}
	if e.check != nil {
		e.check(s, t, c, pod)
	}
	if e.change != nil {
		e.change(t, s)
		c.says(pod, e.then, changeLimit)
	}
}

// started waits until the example's pod is ready and returns its name.
func (c *scene) started(selector string) string {
	c.t.Helper()
	name := "app"
	if selector != "" {
		c.within(c.t, readyLimit, "there is a pod of "+selector, func() error {
			list, err := c.CoreV1().Pods(c.namespace).List(c.t.Context(), metav1.ListOptions{LabelSelector: selector})
			if err != nil || len(list.Items) == 0 {
				return errors.Join(errors.New("there is none"), err)
			}
			name = list.Items[0].Name
			return nil
		})
	}
	c.ready(c.t, c.namespace, name, 2*readyLimit)
	return name
}

// says waits for a line of the pod's log.
func (c *scene) says(pod, line string, limit time.Duration) {
	c.t.Helper()
	if line == "" {
		return
	}
	whole := regexp.MustCompile(`(?m)^` + line + `$`)
	c.within(c.t, limit, fmt.Sprintf("%s says %q", pod, line), func() error {
		if log := c.logs(c.t, c.namespace, pod); !whole.MatchString(log) {
			return fmt.Errorf("it says %q", log)
		}
		return nil
	})
}

// checkCredential logs in with what the pod has, and with the same again when the
// driver has called once more: its lease is kept.
func (s *suite) checkCredential(t *testing.T, c *scene, pod string) {
	t.Helper()
	read := func() string {
		both, err := c.exec(t, c.namespace, pod, "sh", "-c", "cat /secrets/..data/username /secrets/..data/dsn")
		if err != nil {
			t.Fatal(err)
		}
		return both
	}
	both := read()
	c.republished(pod, 2)
	if read() != both {
		t.Error("the next calls of the driver brought another credential")
	}
	user, dsn, found := strings.Cut(both, "postgresql://")
	name, rest, _ := strings.Cut(dsn, ":")
	password, _, _ := strings.Cut(rest, "@")
	if !found || name != user {
		t.Fatal("username and dsn are of two credentials")
	}
	if s.postgres == nil {
		return // a database that only the pods reach
	}
	if err := s.postgres.Open(t, name, password).PingContext(t.Context()); err != nil {
		t.Errorf("the credential does not log in: %v", err)
	}
}

// checkServer asks nginx, and trusts it by the file ca.crt alone.
func (s *suite) checkServer(t *testing.T, c *scene, pod string) {
	t.Helper()
	if s.cluster == nil {
		return // this machine reaches no pod; the readiness probe speaks HTTPS
	}
	authority, err := c.exec(t, c.namespace, pod, "cat", "/secrets/tls/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(authority))
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "web." + c.namespace + ".svc", MinVersion: tls.VersionTLS12},
	}}
	address := "https://" + net.JoinHostPort(c.pod(t, c.namespace, pod).Status.PodIP, "8443") + "/"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || string(body) != "served with a certificate from Vault\n" {
		t.Errorf("nginx answers %q (%v)", body, err)
	}
}

// runSetup runs a script of examples/ as a user does, with a stand-in for the vault
// command.
func (s *suite) runSetup(t *testing.T, script string, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "./"+script, args...) //nolint:gosec // G204: a script of this repository
	command.Dir = "../../examples"
	command.Env = slices.Concat(s.environment, []string{ // of two with a name the last counts
		"PATH=" + s.folder + ":/usr/bin:/bin", "VAULT_ADDR=" + s.vault.Address(), "VAULT_TOKEN=" + s.vault.Token(),
	})
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// prepareExamples builds the vault command, starts the database, and runs what all
// examples share.
func (s *suite) prepareExamples(t *testing.T, reviews map[string]string) {
	t.Helper()
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(s.folder, "vault"), "../vaultcli") //nolint:gosec // G204: our own
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the vault command: %v\n%s", err, out)
	}
	s.environment = os.Environ() // POSTGRES and its like, where the cluster is not ours
	if s.cluster != nil {
		s.postgres = vaulttest.StartPostgres(t)
		s.environment = []string{
			"POSTGRES=" + s.postgres.Address + "/postgres?sslmode=disable",
			"POSTGRES_USERNAME=" + vaulttest.Superuser, "POSTGRES_PASSWORD=" + s.postgres.Password,
		}
	}
	var args []string
	for _, name := range slices.Sorted(maps.Keys(reviews)) {
		file := filepath.Join(s.folder, name)
		if err := os.WriteFile(file, []byte(reviews[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name+"=@"+file)
	}
	s.runSetup(t, "setup.sh", args...)
}

// changeBundle gives keymount another bundle, as examples/README.md says.
func (s *suite) changeBundle(t *testing.T, path, key, value string) {
	t.Helper()
	s.bundled.Lock()
	defer s.bundled.Unlock()
	secrets := map[string]map[string]any{}
	if err := yaml.Unmarshal(s.plain, &secrets); err != nil {
		t.Fatal(err)
	}
	secrets[path][key] = value
	changed, err := yaml.Marshal(secrets)
	if err != nil {
		t.Fatal(err)
	}
	s.plain = changed
	s.seal(t)
}
