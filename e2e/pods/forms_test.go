package pods_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"gopkg.in/yaml.v3"
	"software.sslmate.com/src/go-pkcs12"
)

// form is an entry of provider/testdata/forms.yaml: what docs/forms.md documents.
type form struct {
	Form      string
	About     string
	Store     string // "versions" for a store that keeps them
	Secrets   string
	Later     string // the next version of the secrets
	Elsewhere string // what another store holds
	Objects   string
	Files     map[string]string
	Modes     map[string]string
}

// emptyFile is what a volume holds that would hold nothing else.
const emptyFile = ".keymount"

// formPassword is that of every keystore of forms.yaml.
const formPassword = "fake-password"

func readForms(t *testing.T) []form {
	t.Helper()
	data, err := os.ReadFile("../../provider/testdata/forms.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []form
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

// slug is the form's name as a segment of a path.
func (f form) slug() string { return strings.ReplaceAll(strings.ToLower(f.Form), " ", "-") }

// inVault says whether the form needs more than the one bundle: versions, or another
// store.
func (f form) inVault() bool { return f.Store != "" || f.Elsewhere != "" }

// alone says whether nothing else may be in the volume.
func (f form) alone() bool { _, ok := f.Files[emptyFile]; return ok }

// folder is where the form's secrets lie in its store.
func (f form) folder() string {
	if f.inVault() {
		return "e2e/forms/" + f.slug() + "/"
	}
	return "forms/" + f.slug() + "/"
}

// objects are the form's, reading from its folder and writing into one of the volume.
func (f form) objects() string {
	text := f.Objects
	if f.inVault() {
		text = regexp.MustCompile(`path: shop/(\w+)(, store: eu)?`).ReplaceAllString(text, "path: secret/"+f.folder()+"$1, store: prod, role: e2e")
	}
	text = strings.ReplaceAll(text, "shop/", f.folder())
	if f.alone() {
		return text
	}
	return regexp.MustCompile(`\bfile: (\./)?`).ReplaceAllString(text, "file: "+f.slug()+"/")
}

// document is a part of the form with real certificates, and each secret in the
// form's folder. Numbers stay as they are spelt.
func (f form) document(t *testing.T, chain certificates, text string) *yaml.Node {
	t.Helper()
	document := &yaml.Node{}
	if err := yaml.Unmarshal([]byte(text), document); err != nil {
		t.Fatal(err)
	}
	chain.fill(document)
	secrets := document.Content[0].Content
	for i := 0; i < len(secrets); i += 2 {
		secrets[i].Value = f.folder() + strings.TrimPrefix(secrets[i].Value, "shop/")
	}
	return document
}

// formSecrets are the lines of a bundle that holds the secrets of the forms.
func formSecrets(t *testing.T, chain certificates) string {
	t.Helper()
	var lines strings.Builder
	for _, f := range readForms(t) {
		if f.inVault() {
			continue
		}
		text, err := yaml.Marshal(f.document(t, chain, f.Secrets))
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(text)
	}
	return lines.String()
}

// putForm writes a form's secrets into Vault, one version after the other.
func (s *suite) putForm(t *testing.T, f form) {
	t.Helper()
	for _, text := range []string{f.Secrets, f.Later, f.Elsewhere} {
		if text == "" {
			continue
		}
		secrets := map[string]map[string]any{}
		if err := f.document(t, s.chain, text).Decode(&secrets); err != nil {
			t.Fatal(err)
		}
		for path, data := range secrets {
			s.put(t, path, data)
		}
	}
}

// Every form of a class that is documented, as a process in the container finds it.
func (s *suite) testForms(t *testing.T) {
	t.Parallel()
	volumes := map[string][]form{}
	for _, f := range readForms(t) {
		if f.inVault() {
			s.putForm(t, f)
		}
		name := "all"
		if f.alone() {
			name = f.slug()
		}
		volumes[name] = append(volumes[name], f)
	}
	c := s.newScene(t, "forms", "recommended")
	for name, forms := range volumes {
		s.mountForms(t, c, name, forms)
	}
}

// mountForms mounts forms as one volume.
func (s *suite) mountForms(t *testing.T, c *scene, name string, forms []form) {
	t.Helper()
	var objects strings.Builder
	want, modes := map[string]string{}, map[string]string{}
	for _, f := range forms {
		objects.WriteString(f.objects())
		for file, content := range f.Files {
			path := f.slug() + "/" + file
			if f.alone() {
				path = file
			}
			want[path], modes[path] = content, "444"
			if mode, ok := f.Modes[file]; ok {
				modes[path] = strings.TrimPrefix(mode, "0")
			}
		}
	}
	c.class(name, "objects: |\n"+indent(objects.String(), 2), "")
	c.running(name, name)

	got, gotModes := c.tree(name)
	for path, content := range got {
		got[path] = s.chain.describe(content)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-documented +in the container):\n%s", diff)
	}
	if diff := cmp.Diff(modes, gotModes); diff != "" {
		t.Errorf("modes (-documented +in the container):\n%s", diff)
	}
	versions, _ := c.statusObject(name, name)
	for path := range want {
		if versions[path] == "" {
			t.Errorf("SecretProviderClassPodStatus has no version of %s", path)
		}
	}
	if len(versions) != len(want) {
		t.Errorf("SecretProviderClassPodStatus has %d versions, want %d", len(versions), len(want))
	}
	c.readOnlyTmpfs(name)
}

// certificates is a chain made for the suite, and the names that forms.yaml has for
// its parts.
type certificates map[string]string

func newChain(t *testing.T) certificates {
	t.Helper()
	root, rootKey := issue(t, "root", nil, nil)
	intermediate, intermediateKey := issue(t, "intermediate", root, rootKey)
	leaf, key := issue(t, "leaf", intermediate, intermediateKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pfx := func(password string) string {
		encoded, err := pkcs12.Modern.Encode(key, leaf, []*x509.Certificate{intermediate, root}, password)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(encoded)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return certificates{
		"(root)": block("CERTIFICATE", root.Raw), "(intermediate)": block("CERTIFICATE", intermediate.Raw), "(leaf)": block("CERTIFICATE", leaf.Raw),
		"(key)": block("PRIVATE KEY", der), "(key as SEC1)": block("EC PRIVATE KEY", sec1),
		"(PFX in base64)": pfx(""), "(PFX with fake-password)": pfx(formPassword),
	}
}

func issue(t *testing.T, name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name + ".example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: name != "leaf", BasicConstraintsValid: true,
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

// fill puts the parts in the place of their names in all values of a document.
func (c certificates) fill(node *yaml.Node) {
	for _, child := range node.Content {
		c.fill(child)
	}
	if node.Kind != yaml.ScalarNode {
		return
	}
	filled := node.Value
	for name, part := range c {
		filled = strings.ReplaceAll(filled, name, part)
	}
	if filled != node.Value {
		node.SetString(filled)
		node.Style = yaml.DoubleQuotedStyle // for it may stand in a flow
	}
}

// describe is the other way: what a file holds, in the words of forms.yaml.
func (c certificates) describe(content string) string {
	if strings.HasPrefix(content, "\xfe\xed\xfe\xed") {
		return describeKeystore(content)
	}
	if key, leaf, more, err := pkcs12.DecodeChain([]byte(content), formPassword); err == nil {
		if _, ok := key.(*ecdsa.PrivateKey); ok && leaf.Subject.CommonName == "leaf" && len(more) == 2 {
			return "(PKCS#12 of the key and its chain)"
		}
	}
	if trusted, err := pkcs12.DecodeTrustStore([]byte(content), formPassword); err == nil {
		return fmt.Sprintf("(PKCS#12 of %d certificates)", len(trusted))
	}
	for name, part := range c {
		content = strings.ReplaceAll(content, part, name)
	}
	return content
}

func describeKeystore(content string) string {
	keys := keystore.New()
	if err := keys.Load(strings.NewReader(content), []byte(formPassword)); err != nil {
		return err.Error()
	}
	if len(keys.Aliases()) != 1 {
		return fmt.Sprintf("a keystore with the aliases %q", keys.Aliases())
	}
	entry, err := keys.GetPrivateKeyEntry(keys.Aliases()[0], []byte(formPassword))
	if err != nil || len(entry.CertificateChain) != 2 {
		return fmt.Sprintf("a keystore with %d certificates: %v", len(entry.CertificateChain), err)
	}
	return "(JKS of the key and its chain)"
}
