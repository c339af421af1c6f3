// Package kube makes all requests to the Kubernetes API server; client-go lives here alone.
// The keys of token issuers need no rights of keymount's own: every service account may read
// them (system:service-account-issuer-discovery). Events need the right to create and patch
// events, the watch for volumes that are gone the right to list and watch the driver's
// objects of them, and the version key's Secret, made once by an installation, the right to
// create Secrets in one namespace.
package kube

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/auth"
)

// requestLimit ends one request to the API server.
const requestLimit = 5 * time.Second

// ClusterKeys is the API server of this process's cluster, as the source of its own issuer's
// keys. issuer is the required name; empty takes it from the API server.
func ClusterKeys(issuer string) (auth.DiscoveryKeys, error) {
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return auth.DiscoveryKeys{}, errors.New("keys: cluster works only in a pod, and this process runs in none; use keys: file or keys: discovery")
	}
	if err != nil {
		return auth.DiscoveryKeys{}, fmt.Errorf("find the API server: %w", err)
	}
	return KeysFrom(config, issuer)
}

// KeysFrom is [ClusterKeys] for an API server named by config.
func KeysFrom(config *rest.Config, issuer string) (auth.DiscoveryKeys, error) {
	config = rest.CopyConfig(config)
	config.Timeout = requestLimit
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return auth.DiscoveryKeys{}, fmt.Errorf("reach the API server: %w", err)
	}
	// The document's jwks_uri may be reachable from outside only; the API server itself
	// always answers here.
	base := strings.TrimSuffix(config.Host, "/")
	return auth.DiscoveryKeys{Issuer: issuer, Base: base, KeysURL: base + "/openid/v1/jwks", Client: client}, nil
}
