package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// component is what objects of keymount's making say of their maker.
const component = "keymount"

// inCluster is how the pod that this process runs in reaches the API server. what
// needs it begins the error.
func inCluster(what string) (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("%s: works only in a pod: %w", what, err)
	}
	return config, nil
}

// coreClient speaks of the core group's objects as JSON, without their types: those are
// the largest part of a program that links them. limit ends each of its requests; zero
// does not.
func coreClient(config *rest.Config, limit time.Duration) (*rest.RESTClient, error) {
	scheme, core := runtime.NewScheme(), schema.GroupVersion{Version: "v1"}
	meta.AddToGroupVersion(scheme, core) // the API server's failures
	config = rest.CopyConfig(config)
	config.Timeout = limit
	config.APIPath = "/api"
	config.GroupVersion = &core
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return client, nil
}

// create posts an object as it is written in JSON.
func create(ctx context.Context, client *rest.RESTClient, namespace, resource string, object any) error {
	text, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("write it as JSON: %w", err)
	}
	request := client.Post().Namespace(namespace).Resource(resource).SetHeader("Content-Type", runtime.ContentTypeJSON)
	return request.Body(text).Do(ctx).Error() //nolint:wrapcheck // the caller looks at its kind
}
