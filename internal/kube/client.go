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

// component is the maker named in objects made by keymount.
const component = "keymount"

// inCluster is the way to the API server from the pod of this process. feature begins the
// error.
func inCluster(feature string) (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("%s: works only in a pod: %w", feature, err)
	}
	return config, nil
}

// coreClient reads and writes objects of the core group as JSON, without their types: these
// are the largest part of a program that links them. limit ends each request; zero is no
// limit.
func coreClient(config *rest.Config, limit time.Duration) (*rest.RESTClient, error) {
	scheme, core := runtime.NewScheme(), schema.GroupVersion{Version: "v1"}
	meta.AddToGroupVersion(scheme, core) // for the API server's failures
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

// create posts an object as JSON.
func create(ctx context.Context, client *rest.RESTClient, namespace, resource string, object any) error {
	text, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("write it as JSON: %w", err)
	}
	request := client.Post().Namespace(namespace).Resource(resource).SetHeader("Content-Type", runtime.ContentTypeJSON)
	return request.Body(text).Do(ctx).Error() //nolint:wrapcheck // the caller looks at its kind
}
