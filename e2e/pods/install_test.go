package pods_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/vault/api"
	authentication "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/keymount/keymount/e2e/image"
	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/store/bundle"
)

// reviewer may ask the API server whose a token is: Vault's own identity.
const reviewer = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: vault, namespace: ` + vaultNamespace + `}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ` + vaultNamespace + `}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: vault, namespace: ` + vaultNamespace + `}]
`

// prepareVault starts the stores, or takes the Vault of the environment, and lets
// the service accounts of this suite log in.
func (s *suite) prepareVault(t *testing.T) {
	t.Helper()
	s.newNamespace(t, vaultNamespace)
	s.apply(t, reviewer)
	t.Cleanup(func() {
		_ = s.RbacV1().ClusterRoleBindings().Delete(context.WithoutCancel(t.Context()), vaultNamespace, metav1.DeleteOptions{})
	})
	reviews := s.reviews(t)
	if s.cluster == nil {
		s.vaultAddress = os.Getenv(envVault)
		client, err := api.NewClient(&api.Config{Address: s.vaultAddress})
		if err != nil {
			t.Fatal(err)
		}
		client.SetToken(os.Getenv(envVaultToken))
		s.vault = client
	} else {
		server := vaulttest.Start(t)
		s.vault = server.Client(t)
		s.serveVault(t, server.Address)
		s.startOutages(t, reviews)
	}
	s.prepareExamples(t, reviews)
	s.admit(t, s.vault)
}

// startOutages starts the stores that fail, each with a secret.
func (s *suite) startOutages(t *testing.T, reviews map[string]string) {
	t.Helper()
	s.outages = newOutages(t)
	prepared := map[*vaulttest.Server]bool{}
	for _, o := range s.outages {
		if prepared[o.server] {
			continue
		}
		prepared[o.server] = true
		o.server.MountKV2(t, "secret")
		client := o.server.Client(t)
		if err := client.Sys().EnableAuthWithOptionsWithContext(t.Context(), "kubernetes", &api.EnableAuthOptions{Type: "kubernetes"}); err != nil {
			t.Fatal(err)
		}
		write(t, client, "auth/kubernetes/config", reviews)
		s.admit(t, client)
		if _, err := client.KVv2("secret").Put(t.Context(), "e2e/db", map[string]any{"password": "fake-1"}); err != nil {
			t.Fatal(err)
		}
	}
}

func write[V any](t *testing.T, client *api.Client, path string, values map[string]V) {
	t.Helper()
	data := map[string]any{}
	for key, value := range values {
		data[key] = value
	}
	if _, err := client.Logical().WriteWithContext(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

// admit makes the role e2e, for the service account app of this suite's namespaces.
func (s *suite) admit(t *testing.T, client *api.Client) {
	t.Helper()
	const policy = `path "secret/data/e2e/*" { capabilities = ["read"] }`
	if err := client.Sys().PutPolicyWithContext(t.Context(), "e2e", policy); err != nil {
		t.Fatal(err)
	}
	write(t, client, "auth/kubernetes/role/e2e", map[string]string{
		"bound_service_account_names": "app", "bound_service_account_namespaces": "e2e-*",
		"audience": "vault", "token_policies": "e2e", "token_ttl": "1h",
	})
}

// reviews are what Vault, which runs outside of the cluster, has to know to ask the
// API server whose a token is: the arguments of auth/kubernetes/config.
func (s *suite) reviews(t *testing.T) map[string]string {
	t.Helper()
	lifetime := int64((24 * time.Hour).Seconds())
	token, err := s.CoreV1().ServiceAccounts(vaultNamespace).CreateToken(t.Context(), "vault",
		&authentication.TokenRequest{Spec: authentication.TokenRequestSpec{ExpirationSeconds: &lifetime}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	authority := s.config.CAData
	if len(authority) == 0 && s.config.CAFile != "" {
		if authority, err = os.ReadFile(s.config.CAFile); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]string{"kubernetes_host": s.config.Host, "kubernetes_ca_cert": string(authority), "token_reviewer_jwt": token.Status.Token}
}

// install puts keymount on every node, as deploy/README.md says.
func (s *suite) install(t *testing.T) {
	t.Helper()
	s.newNamespace(t, releaseNamespace)
	s.newBundle(t)
	s.uninstallLater(t)
	s.within(t, time.Minute, "the namespace has what every namespace has", func() error { return s.furnished(t) })
	s.before = s.inventory(t)
	values := s.values(t)
	began := time.Now()
	args := []string{"install", release, "deploy/chart", "--namespace", releaseNamespace, "--values", values, "--wait", "--timeout", "3m"}
	if more := os.Getenv(envValues); more != "" {
		args = append(args, "--values", more)
	}
	notes := s.runHelm(t, args...)
	s.report("helm install: %.0fs until every node's keymount is ready", time.Since(began).Seconds())
	if !strings.Contains(notes, "STATUS: deployed") {
		t.Errorf("helm says:\n%s", notes)
	}
	secret, err := s.CoreV1().Secrets(releaseNamespace).Get(t.Context(), versionKeySecret, metav1.GetOptions{})
	if err != nil || len(secret.Data["version.key"]) != 32 || secret.Annotations["helm.sh/resource-policy"] != "keep" {
		t.Errorf("the hook did not leave a version key that stays: %v", err)
	}
}

// uninstallLater removes the release after the test, however that ends, unless the
// cluster goes anyway.
func (s *suite) uninstallLater(t *testing.T) {
	t.Helper()
	if s.cluster != nil {
		return
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 3*time.Minute)
		defer cancel()
		if out, err := s.helm(ctx, "uninstall", release, "--namespace", releaseNamespace, "--ignore-not-found", "--wait"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// newBundle makes the two Secrets of the store default: what the examples hold, and
// every form.
func (s *suite) newBundle(t *testing.T) {
	t.Helper()
	var err error
	if s.plain, err = os.ReadFile("../../examples/bundle.yaml"); err != nil {
		t.Fatal(err)
	}
	if s.identity, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	s.keep(t, "keymount-identity", "key.txt", s.identity.String()+"\n")
	s.seal(t)
}

// seal encrypts the bundle and puts it where keymount reads it.
func (s *suite) seal(t *testing.T) {
	t.Helper()
	sealed, err := bundle.Encrypt(slices.Concat(s.plain, []byte("\n"), []byte(s.forms)), []age.Recipient{s.identity.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	s.keep(t, "keymount-bundle", "secrets.age", string(sealed))
}

func (s *suite) keep(t *testing.T, secret, key, value string) {
	t.Helper()
	s.apply(t, fmt.Sprintf("{apiVersion: v1, kind: Secret, metadata: {name: %s, namespace: %s}, data: {%s: %s}}",
		secret, releaseNamespace, key, base64.StdEncoding.EncodeToString([]byte(value))))
}

// quickRefresh lets a test see what it has changed at the next call.
const quickRefresh = "1s"

// values are those of the examples, with this run's addresses, its outages, and
// rules for its namespaces.
func (s *suite) values(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../examples/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	config, _ := values["config"].(map[string]any)
	stores, _ := config["stores"].([]any)
	for _, one := range stores {
		store, _ := one.(map[string]any)
		rules, _ := store["access"].([]any)
		if vault, ok := store["vault"].(map[string]any); ok {
			vault["addresses"] = []string{s.vaultAddress}
			store["access"] = append(rules, rule("roles", "e2e", "secret/e2e/**"))
			store["refresh"], store["refreshMax"] = quickRefresh, quickRefresh
		} else {
			store["access"] = append(rules, rule("", "", "forms/**"))
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(s.outages)) {
		stores = append(stores, map[string]any{
			"name": kind, "vault": map[string]any{"addresses": []string{"http://" + s.outages[kind].address}},
			"access": []any{rule("roles", "e2e", "secret/e2e/**")},
		})
	}
	if s.cluster != nil {
		stores = append(stores, map[string]any{ // the same Vault with keymount's own refresh
			"name": "steady", "vault": map[string]any{"addresses": []string{s.vault.Address()}},
			"access": []any{rule("roles", "e2e", "secret/e2e/**")}, "refreshMax": "1m", // which is refresh
		})
	}
	config["stores"] = stores
	values["logLevel"] = "debug" // a line for each mount, which the tests count
	config["limits"] = map[string]any{"mountDeadline": mountDeadline.String()}
	s.place(t, values)
	if data, err = yaml.Marshal(values); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.folder, "values.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// rule allows this suite's namespaces, but for the one that is called stranger.
func rule(roles, role, path string) map[string]any {
	r := map[string]any{"namespaces": []string{"e2e-*"}, "serviceAccounts": []string{"app"}, "paths": []string{path}}
	if roles != "" {
		r[roles] = []string{role}
	}
	return r
}

// place says which image runs, and how it reaches the API server: on our nodes there
// is no network but loopback.
func (s *suite) place(t *testing.T, values map[string]any) {
	t.Helper()
	if s.cluster == nil {
		values["image"] = imageValues(os.Getenv(envImage))
		return
	}
	ours := imageValues(image.Keymount)
	ours["pullPolicy"] = "Never"
	values["image"], values["hostNetwork"] = ours, true
}

// imageValues are the chart's values for an image: registry:5000/name:tag@sha256:digest.
func imageValues(reference string) map[string]any {
	values := map[string]any{}
	name, digest, found := strings.Cut(reference, "@")
	if found {
		values["digest"] = digest
	}
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") { // before that it is a port's
		values["tag"], name = name[colon+1:], name[:colon]
	}
	values["repository"] = name
	return values
}

func TestImageValues(t *testing.T) {
	for reference, want := range map[string]map[string]any{
		"keymount":                                       {"repository": "keymount"},
		"docker.io/library/keymount:e2e":                 {"repository": "docker.io/library/keymount", "tag": "e2e"},
		"localhost:5000/keymount":                        {"repository": "localhost:5000/keymount"},
		"localhost:5000/team/keymount:1.2":               {"repository": "localhost:5000/team/keymount", "tag": "1.2"},
		"registry.example/keymount@sha256:0a1b":          {"repository": "registry.example/keymount", "digest": "sha256:0a1b"},
		"registry.example:5000/keymount:1.2@sha256:0a1b": {"repository": "registry.example:5000/keymount", "tag": "1.2", "digest": "sha256:0a1b"},
	} {
		if diff := cmp.Diff(want, imageValues(reference)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", reference, diff)
		}
	}
}

// serveVault lets the nodes reach Vault by the name that the examples have for it.
func (s *suite) serveVault(t *testing.T, address string) {
	t.Helper()
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(s.vaultIP(), vaultPort))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: httputil.NewSingleHostReverseProxy(target), ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	s.vaultAddress = examplesVault
}

// newCertificate is a self-signed certificate and its key, in PEM.
func newCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "app.example"}, DNSNames: []string{"app.example"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}))
}
