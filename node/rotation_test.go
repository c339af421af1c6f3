package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
)

// What a store of serve forgets is told of: a pod is mounted once and never again.
func TestServeTellsThatNothingRotates(t *testing.T) {
	vault := httptest.NewServer(http.HandlerFunc(answerAsVault))
	defer vault.Close()
	folder := t.TempDir()
	issuer := issuerIn(t, folder)
	file := filepath.Join(folder, "vault.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `
stores:
  - name: prod
    vault: {addresses: [%q], mounts: {database: other}, auth: {audience: vault}}
    access: store
issuers: [{keys: file, issuer: "https://cluster.invalid", keysFile: jwks.json}]
`, vault.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, all.All())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) { mountOnce(t, c, issuer, slog.New(slog.NewTextHandler(&log, nil))) })
	for _, part := range []string{`msg="the driver does not rotate"`, "store=prod", "pod=api-0", `secret \"database/creds/shop\" of store \"prod\" ends at 2000-01-01T01:00:00Z`} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("there is no %s in\n%s", part, log.String())
		}
	}
}

// issuerIn is an issuer of tokens, whose keys are in jwks.json of folder.
func issuerIn(t *testing.T, folder string) *providertest.Issuer {
	t.Helper()
	issuer, err := providertest.NewIssuer("https://cluster.invalid", "key-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := issuer.KeySet()
	if err := errors.Join(err, os.WriteFile(filepath.Join(folder, "jwks.json"), keys, 0o600)); err != nil {
		t.Fatal(err)
	}
	return issuer
}

// answerAsVault closes each connection: none may stay open while a bubble's time goes on.
func answerAsVault(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	switch path.Base(r.URL.Path) {
	case "login":
		_, _ = fmt.Fprint(w, `{"auth": {"client_token": "hvs.fake", "lease_duration": 7200, "renewable": true}}`)
	default:
		_, _ = fmt.Fprint(w, `{"lease_id": "database/creds/shop/1", "lease_duration": 3600, "renewable": true, "data": {"password": "obviously-fake"}}`)
	}
}

func mountOnce(t *testing.T, c *config.Config, issuer *providertest.Issuer, log *slog.Logger) {
	t.Helper()
	rotation := &observe.Rotation{}
	backends, run, err := node.OpenStores(t.Context(), c, rotation, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- run(ctx) }()
	p := provider.New(provider.Options{
		Version: "v0.0.0-test", Deadline: 10 * time.Second, ParallelReads: 1, VersionKey: secret.New(make([]byte, 32)),
		Verifier: auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuer.Name, auth.FileKeys{Issuer: issuer.Name, File: c.Issuers[0].KeysFile}, time.Now)}, "node-1", time.Now),
		Backends: backends, Recorders: []provider.Recorder{rotation},
	})
	pod := auth.Pod{Namespace: "shop", Name: "api-0", UID: "u", ServiceAccount: "api"}
	token, err := issuer.Sign(issuer.ClaimsFor(pod, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	attributes, err := providertest.Volume{
		Pod: pod, Class: "app", Tokens: map[string]string{"vault": token},
		Parameters: map[string]string{"objects": "[{store: prod, role: shop, path: database/creds/shop, key: password, file: password}]"},
	}.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Mount(t.Context(), &v1alpha1.MountRequest{Attributes: attributes, Permission: "420"}); err != nil {
		t.Fatal(err)
	}
	<-time.After(15 * time.Minute)
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
