package kube

import (
	"fmt"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
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

// coreClient speaks of the core group's objects alone. limit ends each of its requests;
// zero does not.
func coreClient(config *rest.Config, limit time.Duration) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	if err := core.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("learn the API's objects: %w", err)
	}
	config = rest.CopyConfig(config)
	config.Timeout = limit
	config.APIPath = "/api"
	config.GroupVersion = &core.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return client, nil
}
