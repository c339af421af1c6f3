package kube

import (
	"context"
	"fmt"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/internal/secret"
)

// CreateSecretOnce makes a Secret with one key, in the cluster that this process is
// a pod of, and says whether it did: one that is there already stays as it is. It
// needs the right to create Secrets in that namespace and no other.
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
	object := &core.Secret{
		ObjectMeta: meta.ObjectMeta{
			Namespace: namespace, Name: name,
			Labels: map[string]string{"app.kubernetes.io/name": component},
			// Helm must not remove what it cannot make again.
			Annotations: map[string]string{"helm.sh/resource-policy": "keep"},
		},
		Data: map[string][]byte{key: value.Reveal()},
	}
	err = client.Post().Namespace(namespace).Resource("secrets").Body(object).Do(ctx).Error()
	if errors.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create the Secret %s/%s: %w", namespace, name, err)
	}
	return true, nil
}
