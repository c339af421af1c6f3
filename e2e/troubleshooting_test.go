package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/provider/providertest"
)

const manual = "../docs/troubleshooting.md"

// mistake is one thing that is wrong, and everything else is right. Zero fields are
// those of a mount that succeeds.
type mistake struct {
	operator operator
	pod      auth.Pod
	class    class
	audience string // of the pod's token
}

// Every text of docs/troubleshooting.md is what keymount says, and every mistake here
// is in it. -update writes the texts.
func TestTroubleshooting(t *testing.T) {
	documented := readManual(t)
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	texts := map[string]string{}
	var mu sync.Mutex
	t.Run("mistakes", func(t *testing.T) {
		for name, m := range mistakes(t, server, issuer) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				got := m.make(t, server, issuer)
				mu.Lock()
				defer mu.Unlock()
				texts[name] = got
				if want, ok := documented[name]; !*update && (!ok || want != got) {
					t.Errorf("in the manual: %t (-manual +keymount):\n%s", ok, cmp.Diff(want, got))
				}
			})
		}
	})
	for name := range documented {
		if _, ok := texts[name]; !ok && !t.Failed() {
			t.Errorf("the manual has the text %q, which no test produces", name)
		}
	}
	if *update {
		writeManual(t, texts)
	}
}

func (m mistake) make(t *testing.T, server *vaulttest.Server, issuer *providertest.Issuer) string {
	t.Helper()
	p := newProxy(t, server.Address)
	if m.operator.Addresses == nil {
		m.operator.Addresses = []string{p.URL}
	}
	if m.operator.Vault == nil {
		m.operator.Vault = []string{throughJWT}
	}
	if m.pod == (auth.Pod{}) {
		m.pod = shopAPI
	}
	if m.class == (class{}) {
		m.class = shopClass(oneObject)
	}
	if m.audience == "" {
		m.audience = "vault"
	}
	k := serve(t, issuer, m.operator)
	p.guards(t, k)
	_, err := k.mountWith(t, m.pod, m.class, m.audience)
	if err == nil {
		t.Fatal("mounted; it is no mistake")
	}
	return stable(told(err))
}

// stable gives what differs from run to run one spelling.
func stable(text string) string {
	for _, s := range []struct{ pattern, with string }{
		{`127\.0\.0\.1:\d+`, "vault:8200"},
		{`(no address is known for this name: ).*`, "${1}no such host"}, // which not every resolver says
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`, "TIME"},
	} {
		text = regexp.MustCompile(s.pattern).ReplaceAllString(text, s.with)
	}
	return text
}

// mistakes are named after the marks in the manual.
func mistakes(t *testing.T, server *vaulttest.Server, issuer *providertest.Issuer) map[string]mistake {
	t.Helper()
	const kubernetes = "auth: {method: kubernetes}"
	server.EnableKubernetes(t, "kubernetes", vaulttest.NewTokenReview(t, issuer))
	server.WriteRole(t, "kubernetes", "shop-api", kubernetesRole())
	elsewhereJWT, elsewhereKubernetes := jwtRole(), kubernetesRole()
	elsewhereJWT["bound_audiences"], elsewhereKubernetes["audience"] = []string{"elsewhere"}, "elsewhere"
	server.WriteRole(t, "jwt", "shop-elsewhere", elsewhereJWT)
	server.WriteRole(t, "kubernetes", "shop-elsewhere", elsewhereKubernetes)
	worker := auth.Pod{Namespace: "shop", Name: "worker-0", UID: "uid-of-worker-0", ServiceAccount: "worker"}

	authority := vaulttest.NewAuthority(t, time.Hour)
	overTLS := vaulttest.StartTLS(t, authority, "vault.example")
	expired := vaulttest.NewAuthority(t, -time.Hour)
	overExpired := vaulttest.StartTLS(t, expired)
	sealed := vaulttest.Start(t)
	sealed.Seal(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "<!DOCTYPE html><title>Welcome</title>")
	}))
	t.Cleanup(page.Close)

	at := func(address string, lines ...string) operator {
		return operator{Addresses: []string{address}, Vault: append(lines, throughJWT), Deadline: time.Second}
	}
	return map[string]mistake{
		"role-unknown":            {class: class{"shop-apo", oneObject}},
		"role-unknown-kubernetes": {class: class{"shop-apo", oneObject}, operator: operator{Vault: []string{kubernetes}}},
		"role-unbound":            {pod: worker},
		"role-unbound-kubernetes": {pod: worker, operator: operator{Vault: []string{kubernetes}}},
		"role-audience":           {class: class{"shop-elsewhere", oneObject}},
		"role-audience-kubernetes": {
			class: class{"shop-elsewhere", oneObject}, operator: operator{Vault: []string{kubernetes}},
		},
		"token-audience": {audience: "keymount"},
		"auth-mount":     {operator: operator{Vault: []string{"auth: {method: jwt, mount: clusters/two}"}}},

		"sealed":      {operator: at(sealed.Address)},
		"down":        {operator: at(deadAddress(t))},
		"down-both":   {operator: operator{Addresses: []string{deadAddress(t), sealed.Address}, Vault: []string{throughJWT}, Deadline: time.Second}},
		"host":        {operator: at("https://vault.keymount.invalid:8200")},
		"not-vault":   {operator: at(page.URL)},
		"plain-http":  {operator: at(strings.Replace(server.Address, "http:", "https:", 1))},
		"ca-wrong":    {operator: at(overTLS.Address, "caFile: "+vaulttest.NewAuthority(t, time.Hour).File, "serverName: vault.example")},
		"ca-expired":  {operator: at(overTLS.Address, "caFile: "+authority.Expired(t).File, "serverName: vault.example")},
		"expired":     {operator: at(overExpired.Address, "caFile: "+expired.File)},
		"server-name": {operator: at(overTLS.Address, "caFile: "+authority.File, "serverName: vault-0.example")},

		"policy":       {class: shopClass(`[{path: secret/blog/db, key: password, file: password}]`)},
		"policy-mount": {class: shopClass(`[{path: sercet/shop/db, key: password, file: password}]`)},
		"policy-write": {class: shopClass(`[{path: transit/sign/shop, args: {input: aGk=}, key: signature, file: signature}]`)},
		"rules-path":   {operator: operator{Access: `[{namespaces: [shop], serviceAccounts: [api], roles: [shop-api], paths: ["secret/shop/app"]}]`}},
		"rules-role":   {operator: operator{Access: `[{namespaces: [shop], serviceAccounts: [api], roles: [shop], paths: ["secret/shop/**"]}]`}},
		"rules-write": {
			class:    shopClass(`[{path: secret/data/shop/db, args: {data: {password: new}}, key: version, file: version}]`),
			operator: operator{Access: `[{namespaces: [shop], serviceAccounts: [api], roles: [shop-api], paths: ["secret/shop/**"]}]`},
		},
		"metadata": {class: shopClass(`[{path: secret/metadata/shop/db, format: json, file: metadata.json}]`)},

		"no-secret":      {class: shopClass(`[{path: secret/shop/dbs, key: password, file: password}]`)},
		"no-key":         {class: shopClass(`[{path: secret/shop/db, key: pasword, file: password}]`)},
		"no-version":     {class: shopClass(`[{path: secret/shop/db, key: password, version: 9, file: password}]`)},
		"deleted":        {class: shopClass(`[{path: secret/shop/db, key: password, version: 2, file: password}]`)},
		"destroyed":      {class: shopClass(`[{path: secret/shop/db, key: password, version: 3, file: password}]`)},
		"version-kv1":    {class: shopClass(`[{path: plain/shop/db, key: password, version: 3, file: password}]`)},
		"several-errors": {class: shopClass(lines(`{path: secret/shop/dbs, key: password, file: a}`, `{path: secret/shop/db, key: pasword, file: b}`, `{path: secret/shop/db, key: password, version: 2, file: c}`))},
	}
}

// marked is a text of the manual: a mark, and the block of text below it.
var marked = regexp.MustCompile("(?s)(<!-- text: ([a-z0-9-]+) -->\n+```text\n)(.*?)(\n```)")

func readManual(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, found := range marked.FindAllStringSubmatch(string(data), -1) {
		if _, twice := texts[found[2]]; twice {
			t.Errorf("the manual has %q twice", found[2])
		}
		texts[found[2]] = found[3]
	}
	return texts
}

func writeManual(t *testing.T, texts map[string]string) {
	t.Helper()
	data, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	written := marked.ReplaceAllStringFunc(string(data), func(block string) string {
		found := marked.FindStringSubmatch(block)
		if text, ok := texts[found[2]]; ok {
			delete(texts, found[2])
			return found[1] + text + found[4]
		}
		return block
	})
	for name := range texts {
		t.Errorf("the manual has no mark for %q; add one with an empty block of text", name)
	}
	if err := os.WriteFile(manual, []byte(written), 0o644); err != nil { //nolint:gosec // G306: a page of the manual
		t.Fatal(err)
	}
}
