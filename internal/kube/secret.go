package kube

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/internal/secret"
)

// CreateSecretOnce makes a Secret with one key, in the cluster of this process's pod, and
// tells whether it did: an existing one stays as it is. It needs the right to create Secrets
// in that namespace and no other.
func CreateSecretOnce(ctx context.Context, namespace, name, key string, value secret.Bytes) (bool, error) {
	config, err := inCluster("the Secret of the version key")
	if err != nil {
		return false, err
	}
	return CreateSecretOnceAt(ctx, config, namespace, name, key, value)
}

// CreateSecretOnceAt is [CreateSecretOnce] for an API server named by config.
func CreateSecretOnceAt(ctx context.Context, config *rest.Config, namespace, name, key string, value secret.Bytes) (bool, error) {
	client, err := coreClient(config, requestLimit)
	if err != nil {
		return false, err
	}
	err = create(ctx, client, namespace, "secrets", map[string]any{
		"apiVersion": "v1", "kind": "Secret",
		"metadata": map[string]any{
			"namespace": namespace, "name": name,
			"labels": map[string]string{"app.kubernetes.io/name": component},
			// Helm must not remove a key that it cannot make again.
			"annotations": map[string]string{"helm.sh/resource-policy": "keep"},
		},
		"data": map[string][]byte{key: value.Reveal()},
	})
	if errors.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create the Secret %s/%s: %w", namespace, name, err)
	}
	return true, nil
}
