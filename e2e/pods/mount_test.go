package pods_test

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"gopkg.in/yaml.v3"
	"software.sslmate.com/src/go-pkcs12"
)

// form is an entry of provider/testdata/forms.yaml: what docs/forms.md documents.
type form struct {
	Form      string
	Store     string
	Secrets   yaml.Node
	Later     yaml.Node
	Elsewhere yaml.Node
	Objects   string
	Files     map[string]string
	Modes     map[string]string
}

// plain says whether every file can be written down; the others hold certificates
// that are made at run time.
func (f form) plain() bool {
	for _, content := range f.Files {
		if strings.HasPrefix(content, "(") {
			return false
		}
	}
	return true
}

// slug is the form's name as a segment of a path.
func (f form) slug() string { return strings.ReplaceAll(strings.ToLower(f.Form), " ", "-") }

func readForms(t *testing.T) []form {
	t.Helper()
	data, err := os.ReadFile("../../provider/testdata/forms.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all, plain []form
	if err := yaml.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.plain() && f.Store == "" && f.Elsewhere.IsZero() { // a bundle has no versions, and there is one of it
			plain = append(plain, f)
		}
	}
	if len(plain) < 10 {
		t.Fatalf("only %d forms can be read back", len(plain))
	}
	return plain
}

// formSecrets are the lines of a bundle that holds every form's secrets, each below
// a path of its own. Numbers stay as they are spelt.
func formSecrets(t *testing.T) string {
	t.Helper()
	var lines strings.Builder
	for _, f := range readForms(t) {
		lines.WriteString(regexp.MustCompile(`(?m)^shop/`).ReplaceAllString(f.Secrets.Value, "forms/"+f.slug()+"/"))
	}
	return lines.String()
}

// Every form of a class, as a process in the container finds it.
func (s *suite) testForms(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "forms", "recommended")
	var objects strings.Builder
	want, modes := map[string]string{}, map[string]string{}
	for _, f := range readForms(t) {
		text := strings.ReplaceAll(f.Objects, "shop/", "forms/"+f.slug()+"/")
		text = regexp.MustCompile(`file: (\./)?`).ReplaceAllString(text, "file: "+f.slug()+"/")
		objects.WriteString(text)
		for file, content := range f.Files {
			if file == ".keymount" {
				continue // what a volume holds when it would hold nothing else
			}
			path := f.slug() + "/" + file
			want[path], modes[path] = content, "444"
			if mode, ok := f.Modes[file]; ok {
				modes[path] = strings.TrimPrefix(mode, "0")
			}
		}
	}
	c.class("forms", "objects: |\n"+indent(objects.String(), 2), "")
	c.running("forms", "forms")

	got, gotModes := c.tree("forms")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-documented +in the container):\n%s", diff)
	}
	if diff := cmp.Diff(modes, gotModes); diff != "" {
		t.Errorf("modes (-documented +in the container):\n%s", diff)
	}
	versions, _ := c.statusObject("forms", "forms")
	for path := range want {
		if versions[path] == "" {
			t.Errorf("SecretProviderClassPodStatus has no version of %s", path)
		}
	}
	if len(versions) != len(want) {
		t.Errorf("SecretProviderClassPodStatus has %d versions, want %d", len(versions), len(want))
	}
	c.readOnlyTmpfs("forms")
}

// tree reads all files of the volume, and their modes.
func (c *scene) tree(pod string) (files, modes map[string]string) {
	c.t.Helper()
	const walk = `cd /secrets && find -L . -path './..*' -prune -o -type f -print | while read -r f; do echo "$f $(stat -L -c %a "$f") $(base64 -w 0 <"$f")"; done`
	out, err := c.exec(c.t, c.namespace, pod, "sh", "-c", walk)
	if err != nil {
		c.t.Fatal(err)
	}
	files, modes = map[string]string{}, map[string]string{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			c.t.Fatalf("cannot read %q", line)
		}
		path := strings.TrimPrefix(fields[0], "./")
		modes[path] = fields[1]
		content, err := base64.StdEncoding.DecodeString(strings.Join(fields[2:], ""))
		if err != nil {
			c.t.Fatal(err)
		}
		files[path] = string(content)
	}
	return files, modes
}

// readOnlyTmpfs checks that the volume is in memory and that nobody can change it.
func (c *scene) readOnlyTmpfs(pod string) {
	c.t.Helper()
	mount, err := c.exec(c.t, c.namespace, pod, "grep", " /secrets ", "/proc/mounts")
	if err != nil || !regexp.MustCompile(`^tmpfs /secrets tmpfs ro,`).MatchString(mount) {
		c.t.Errorf("the volume is mounted as %q (%v), want a read-only tmpfs", mount, err)
	}
	for _, command := range []string{"echo x >/secrets/new", "rm -rf /secrets/..data", "mkdir /secrets/folder", "mount -o remount,rw /secrets"} {
		if out, err := c.exec(c.t, c.namespace, pod, "sh", "-c", command); err == nil {
			c.t.Errorf("%s works: %s", command, out)
		}
	}
}

// The forms of a certificate, which are binary or made at run time.
func (s *suite) testCertificates(t *testing.T) {
	t.Parallel()
	const password = "fake-password"
	c := s.newScene(t, "certificates", "recommended")
	certificate, key := newCertificate(t)
	s.put(t, "e2e/certificates", map[string]any{"tls.crt": certificate, "tls.key": key, "password": password})
	c.class("app", `
store: prod
role: e2e
objects: |
  - {path: secret/e2e/certificates, format: pem, file: tls/}
  - {path: secret/e2e/certificates, format: pem, file: server.pem}
  - {path: secret/e2e/certificates, format: pfx, passwordKey: password, file: server.p12}
  - {path: secret/e2e/certificates, format: jks, passwordKey: password, file: server.jks}
`, "")
	c.running("app", "app")
	files, _ := c.tree("app")
	for file, want := range map[string]string{"tls/tls.crt": certificate, "tls/tls.key": key, "server.pem": certificate + key} {
		if files[file] != want {
			t.Errorf("%s is not what was put in", file)
		}
	}
	block, _ := pem.Decode([]byte(certificate))
	_, inPFX, err := pkcs12.Decode([]byte(files["server.p12"]), password)
	if err != nil || !bytes.Equal(inPFX.Raw, block.Bytes) {
		t.Errorf("server.p12 does not hold the certificate: %v", err)
	}
	keys := keystore.New()
	if err := keys.Load(strings.NewReader(files["server.jks"]), []byte(password)); err != nil || len(keys.Aliases()) != 1 {
		t.Errorf("server.jks has the aliases %q: %v", keys.Aliases(), err)
	}
}

// Versions of Vault's secrets, a pinned one beside the latest, and two stores in one
// class.
func (s *suite) testVault(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "vault", "fast")
	s.put(t, "e2e/vault", map[string]any{"password": "fake-1"})
	s.put(t, "e2e/vault", map[string]any{"password": "fake-2"})
	c.class("app", `
store: prod
role: e2e
objects: |
  - {path: secret/e2e/vault, key: password, file: latest}
  - {path: secret/e2e/vault, key: password, file: pinned, version: 1}
  - {path: forms/one-value/db, key: user, file: user, store: default}
`, "")
	c.running("app", "app")
	files, _ := c.tree("app")
	if diff := cmp.Diff(map[string]string{"latest": "fake-2", "pinned": "fake-1", "user": "shop"}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// Existing classes of the Vault provider, on vault.sock.
func (s *suite) testVaultDialect(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "dialect", "fast")
	c.provider = "vault"
	s.put(t, "e2e/dialect", map[string]any{"password": "fake-1"})
	c.class("app", fmt.Sprintf(`
vaultAddress: %s
roleName: e2e
objects: |
  - objectName: password
    secretPath: secret/data/e2e/dialect
    secretKey: password
`, s.vaultAddress), "")
	c.running("app", "app")
	c.holds("password", "fake-1", readyLimit)
}
