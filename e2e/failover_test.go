package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store/vault"
)

// Of several addresses the one that answers is taken, and kept.
func TestFailover(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	first, second := newProxy(t, server.Address), newProxy(t, server.Address)
	first.close()
	k := serve(t, issuer, operator{Addresses: []string{first.URL, second.URL}, Vault: []string{throughJWT}})
	first.guards(t, k)
	second.guards(t, k)

	for range 2 {
		k.mounted(t, shopClass(oneObject))
	}
	if got := second.count("secret/"); got != 2 {
		t.Errorf("%d reads at the second address while the first was down, want 2", got)
	}
	first.open(t, first.address)
	second.close()
	k.mounted(t, shopClass(oneObject))
	if got := first.count("secret/"); got != 1 {
		t.Errorf("%d reads at the first address when it came back and the second was down, want 1", got)
	}
	if got := first.count("auth/") + second.count("auth/"); got != 1 {
		t.Errorf("%d logins, want 1: it is one cluster", got)
	}
}

// The first address is home: it is tried again after half a minute, although the
// second still answers.
func TestFailoverReturns(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	first, second := newProxy(t, server.Address), newProxy(t, server.Address)
	var now atomic.Int64
	clock := func() time.Time { return time.Unix(now.Load(), 0) }
	conn, err := vault.NewConn(vault.Options{Addresses: []string{first.URL, second.URL}}, clock)
	if err != nil {
		t.Fatal(err)
	}
	token, err := issuer.Sign(issuer.ClaimsFor(shopAPI, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	identity := auth.Identity{Namespace: shopAPI.Namespace, ServiceAccount: shopAPI.ServiceAccount, Audience: "vault"}
	login := func() {
		t.Helper()
		method := vault.Method{Conn: conn, Mount: "jwt", Now: time.Now}
		if _, err := method.Login(t.Context(), identity, secret.New([]byte(token)), "shop-api"); err != nil {
			t.Fatal(err)
		}
	}
	first.close()
	login()
	first.open(t, first.address)
	login()
	if got := second.count("auth/"); got != 2 {
		t.Errorf("%d logins at the second address, want both: it answers", got)
	}
	now.Add(31)
	login()
	if got := first.count("auth/"); got != 1 {
		t.Errorf("%d logins at the first address after half a minute, want 1", got)
	}
}

// What the caller is told is why Vault was out of reach, also when the last attempt
// of many had no answer any more when the mount's deadline came.
func TestOutageIsTold(t *testing.T) {
	hang := make(chan struct{})
	var asked atomic.Bool
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if probes := r.URL.Path == "/v1/sys/health"; !probes && asked.Swap(true) {
			<-hang
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, `{"errors":["Vault is sealed"]}`)
	}))
	t.Cleanup(func() { close(hang); vault.Close() })
	k := serve(t, newIssuer(t), operator{Addresses: []string{vault.URL}, Vault: []string{throughJWT}, Deadline: time.Second})
	_, err := k.mount(t, shopAPI, shopClass(oneObject))
	if got := told(err); !strings.HasPrefix(got, "FailedPrecondition: ") || !strings.Contains(got, "is sealed") {
		t.Errorf("the error is %q, without what Vault said", got)
	}
}

// deadAddress is one where a Vault was.
func deadAddress(t *testing.T) string {
	t.Helper()
	server := vaulttest.Start(t)
	server.Stop(t)
	return server.Address
}
