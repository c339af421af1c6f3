package provider_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"gopkg.in/yaml.v3"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/store/bundle"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

var update = flag.Bool("update", false, "write docs/forms.md and the table of forms in README.md")

// form is an entry of testdata/forms.yaml.
type form struct {
	Form      string
	About     string
	Store     string // "versions" for a store that keeps them
	Secrets   string
	Later     string // the next version of the secrets
	Elsewhere string // what the store "eu" holds
	Objects   string
	Files     map[string]string
	Modes     map[string]string
}

func readForms(tb testing.TB) []form {
	tb.Helper()
	data, err := os.ReadFile("testdata/forms.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	var forms []form
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&forms); err != nil {
		tb.Fatal(err)
	}
	return forms
}

// TestForms mounts every form as it is documented.
func TestForms(t *testing.T) {
	chain := newChain(t)
	for _, f := range readForms(t) {
		t.Run(f.Form, func(t *testing.T) {
			elsewhere := storetest.NewMemory()
			w := start(t, func(_ *world, s *setup) {
				eu := s.options.Backends[0]
				s.options.Backends[0].Class = class.Store{Traits: kind.Traits{Versions: f.Store == "versions"}}
				eu.Name, eu.Store = "eu", direct(kind.Layers{Store: elsewhere})
				eu.Rules = rules(t, access.Rule{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{"{namespace}/eu"}})
				s.options.Backends = append(s.options.Backends, eu)
			})
			chain.fill(t, w.memory, f.Secrets)
			chain.fill(t, w.memory, f.Later)
			chain.fill(t, elsewhere, f.Elsewhere)
			target := t.TempDir()
			v := w.volume(pod("shop", "api"), f.Objects)
			versions, err := w.driver.Mount(t.Context(), v, target)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for path := range versions {
				content, err := os.ReadFile(filepath.Join(target, path))
				if err != nil {
					t.Fatal(err)
				}
				got[path] = chain.describe(content)
			}
			if diff := cmp.Diff(f.Files, got); diff != "" {
				t.Errorf("files (-documented +mounted):\n%s", diff)
			}
			checkModes(t, f, target)
			again, err := w.driver.Mount(t.Context(), v, target)
			if diff := cmp.Diff(versions, again); err != nil || diff != "" {
				t.Errorf("mounted again (%v), versions changed:\n%s", err, diff)
			}
		})
	}
}

func checkModes(t *testing.T, f form, target string) {
	t.Helper()
	for path := range f.Files {
		want, ok := f.Modes[path]
		if !ok {
			want = "0444"
		}
		info, err := os.Stat(filepath.Join(target, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != want {
			t.Errorf("%s has mode %s, want %s", path, got, want)
		}
	}
}

// certificates is a chain made for the test, and the names that forms.yaml has for
// its parts.
type certificates struct {
	parts map[string]string
}

var placeholder = regexp.MustCompile(`\([^()]+\)`)

func newChain(t *testing.T) certificates {
	t.Helper()
	root, rootKey := issue(t, "root", nil, nil)
	intermediate, intermediateKey := issue(t, "intermediate", root, rootKey)
	leaf, key := issue(t, "leaf", intermediate, intermediateKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pfx, err := pkcs12.Modern.Encode(key, leaf, []*x509.Certificate{intermediate, root}, "")
	if err != nil {
		t.Fatal(err)
	}
	protected, err := pkcs12.Modern.Encode(key, leaf, []*x509.Certificate{intermediate, root}, "fake-password")
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return certificates{parts: map[string]string{
		"(root)": block("CERTIFICATE", root.Raw), "(intermediate)": block("CERTIFICATE", intermediate.Raw),
		"(leaf)": block("CERTIFICATE", leaf.Raw), "(key)": block("PRIVATE KEY", der),
		"(key as SEC1)":            block("EC PRIVATE KEY", sec1),
		"(PFX with fake-password)": base64.StdEncoding.EncodeToString(protected),
		"(PFX in base64)":          base64.StdEncoding.EncodeToString(pfx),
	}}
}

func issue(t *testing.T, name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
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

// fill puts the secrets of a document into a store, with the real certificates in
// place of their names.
func (c certificates) fill(t *testing.T, memory *storetest.Memory, document string) {
	t.Helper()
	if document == "" {
		return
	}
	parsed, err := bundle.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	var decoded map[string]any
	if err := yaml.Unmarshal([]byte(document), &decoded); err != nil {
		t.Fatal(err)
	}
	for path := range decoded {
		data, ok := parsed.Get(parsePath(t, path))
		if !ok {
			t.Fatalf("no %s in the document", path)
		}
		memory.Set(path, c.replace(data.Reveal()).(map[string]any))
	}
}

func (c certificates) replace(v any) any {
	switch v := v.(type) {
	case string:
		return placeholder.ReplaceAllStringFunc(v, func(name string) string {
			if part, ok := c.parts[name]; ok {
				return part
			}
			return name
		})
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = c.replace(e)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = c.replace(e)
		}
		return out
	}
	return v
}

// describe is the other way: what a file holds, in the words of forms.yaml.
func (c certificates) describe(content []byte) string {
	if bytes.HasPrefix(content, []byte{0xfe, 0xed, 0xfe, 0xed}) {
		return c.describeJKS(content)
	}
	if key, leaf, more, err := pkcs12.DecodeChain(content, "fake-password"); err == nil {
		if _, ok := key.(*ecdsa.PrivateKey); ok && leaf.Subject.CommonName == "leaf" && len(more) == 2 {
			return "(PKCS#12 of the key and its chain)"
		}
	}
	if trusted, err := pkcs12.DecodeTrustStore(content, "fake-password"); err == nil {
		return fmt.Sprintf("(PKCS#12 of %d certificates)", len(trusted))
	}
	text := string(content)
	for name, part := range c.parts {
		text = strings.ReplaceAll(text, part, name)
	}
	return text
}

func (c certificates) describeJKS(content []byte) string {
	ks := keystore.New()
	if err := ks.Load(bytes.NewReader(content), []byte("fake-password")); err != nil {
		return err.Error()
	}
	if aliases := ks.Aliases(); ks.IsTrustedCertificateEntry(aliases[0]) {
		return fmt.Sprintf("(JKS of %d certificates)", len(aliases))
	}
	for _, alias := range ks.Aliases() {
		entry, err := ks.GetPrivateKeyEntry(alias, []byte("fake-password"))
		if err != nil || len(entry.CertificateChain) != 2 {
			return fmt.Sprintf("entry %s: %d certificates, %v", alias, len(entry.CertificateChain), err)
		}
	}
	return "(JKS of the key and its chain)"
}

// TestFormsAreDocumented compares docs/forms.md and README.md with the table.
func TestFormsAreDocumented(t *testing.T) {
	forms := readForms(t)
	compareFile(t, "../docs/forms.md", formsPage(forms))
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)<!-- forms -->.*<!-- /forms -->`)
	if !section.Match(readme) {
		t.Fatal("README.md has no place for the forms")
	}
	compareFile(t, "../README.md", section.ReplaceAllLiteralString(string(readme), "<!-- forms -->\n"+formsTable(forms)+"<!-- /forms -->"))
}

func compareFile(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil { //nolint:gosec // both names stand in the test
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is not what testdata/forms.yaml says; run go test ./provider -update\n%s", file, diff)
	}
}

func formsPage(forms []form) string {
	var b strings.Builder
	b.WriteString("# Forms\n\nEvery way to turn a secret into files. This page is generated from provider/testdata/forms.yaml, which the tests\n" +
		"mount over the real socket: what stands here is what a pod gets. A text in (parentheses) stands for a certificate or a key.\n")
	for _, f := range forms {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\nThe secret:\n\n```yaml\n%s```\n", f.Form, strings.TrimSpace(f.About), f.Secrets)
		if f.Later != "" {
			fmt.Fprintf(&b, "\nIts next version:\n\n```yaml\n%s```\n", f.Later)
		}
		if f.Elsewhere != "" {
			fmt.Fprintf(&b, "\nIn the store eu:\n\n```yaml\n%s```\n", f.Elsewhere)
		}
		fmt.Fprintf(&b, "\nThe class's objects:\n\n```yaml\n%s```\n\nThe files:\n", f.Objects)
		for _, path := range sortedKeys(f.Files) {
			mode := f.Modes[path]
			if mode != "" {
				mode = " (mode " + mode + ")"
			}
			fmt.Fprintf(&b, "\n`%s`%s\n\n```\n%s\n```\n", path, mode, strings.TrimSuffix(f.Files[path], "\n"))
		}
	}
	return b.String()
}

func formsTable(forms []form) string {
	var b strings.Builder
	b.WriteString("| Form | Secret | Object of the class | Files |\n|---|---|---|---|\n")
	for _, f := range forms {
		var files []string
		for _, path := range sortedKeys(f.Files) {
			files = append(files, path+": "+f.Files[path])
		}
		anchor := strings.ReplaceAll(strings.ToLower(f.Form), " ", "-")
		fmt.Fprintf(&b, "| [%s](docs/forms.md#%s) | %s | %s | %s |\n", f.Form, anchor,
			cell(f.Secrets+f.Later+f.Elsewhere), cell(objectFields(f.Objects)), cell(strings.Join(files, "\n")))
	}
	return b.String()
}

// objectFields is a list of one object as its fields, a line each.
func objectFields(objects string) string {
	var list []yaml.Node
	if err := yaml.Unmarshal([]byte(objects), &list); err != nil {
		return err.Error()
	}
	var fields []string
	for _, object := range list {
		for i := 0; i+1 < len(object.Content); i += 2 {
			fields = append(fields, object.Content[i].Value+": "+flat(object.Content[i+1]))
		}
	}
	return strings.Join(fields, "\n")
}

// flat is a value on one line.
func flat(n *yaml.Node) string {
	if n.Kind != yaml.MappingNode {
		return n.Value
	}
	var fields []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		fields = append(fields, n.Content[i].Value+": "+n.Content[i+1].Value)
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// cell is lines of code in a cell of a table.
func cell(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "|", `\|`)
	return "`" + strings.ReplaceAll(text, "\n", "`<br>`") + "`"
}
