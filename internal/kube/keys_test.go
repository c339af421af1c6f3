package kube_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/provider/providertest"
)

// The API server is asked with the pod's own credentials, and for its keys at its
// own address, whatever its document says of others.
func TestKeysFrom(t *testing.T) {
	const name = "https://issuer.invalid"
	issuer, err := providertest.NewIssuer(name, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := issuer.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(path, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer pod-token" {
				w.WriteHeader(http.StatusForbidden)
			}
			_, _ = fmt.Fprint(w, body)
		})
	}
	answer("/.well-known/openid-configuration", `{"issuer":"`+name+`","jwks_uri":"https://outside.invalid/keys"}`)
	answer("/openid/v1/jwks", string(keys))
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	config := &rest.Config{
		Host: server.URL, BearerToken: "pod-token",
		TLSClientConfig: rest.TLSClientConfig{CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})},
	}
	for _, wanted := range []string{"", name} {
		source, err := kube.KeysFrom(config, wanted)
		if err != nil {
			t.Fatal(err)
		}
		got, set, err := source.Keys(t.Context())
		if err != nil || got != name || len(set.Keys) != 1 {
			t.Errorf("got issuer %q, %d keys, %v", got, len(set.Keys), err)
		}
	}
	source, err := kube.KeysFrom(config, "https://other.invalid")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := source.Keys(t.Context()); err == nil {
		t.Error("an API server of another issuer is believed")
	}
}

func TestClusterKeysOutsideACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	const want = "keys: cluster works only in a pod, and this process runs in none; use keys: file or keys: discovery"
	if _, err := kube.ClusterKeys(""); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
