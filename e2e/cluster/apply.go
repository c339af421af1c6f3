package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	rbac "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// DriverName is the driver's, of its CSIDriver object and of the CSI volumes.
const DriverName = "secrets-store.csi.k8s.io"

// Audiences are those of the tokens that the kubelet gives the driver.
func Audiences() []string { return []string{"keymount", "vault", "openbao"} }

// Applier applies manifests like kubectl, to any cluster. It remembers the kinds of
// objects that it has asked for.
type Applier struct {
	objects dynamic.Interface
	kinds   *restmapper.DeferredDiscoveryRESTMapper
}

// NewApplier makes one for the API server of a configuration; it asks nothing yet.
func NewApplier(config *rest.Config) (*Applier, error) {
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	asked, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return &Applier{objects, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(asked))}, nil
}

// Apply makes the objects of a YAML file like kubectl apply, or changes them to
// what it says. Objects of no namespace go to default.
func (a *Applier) Apply(ctx context.Context, manifest []byte) error {
	objects, err := parse(manifest)
	if err != nil {
		return err
	}
	return a.apply(ctx, objects)
}

// Resource is where the objects of a kind are. The namespace does not count for those
// that have none, and is default when it is empty.
func (a *Applier) Resource(kind schema.GroupVersionKind, namespace string) (dynamic.ResourceInterface, error) {
	mapping, err := a.kinds.RESTMapping(kind.GroupKind(), kind.Version) // asks again for what it does not know
	if err != nil {
		return nil, fmt.Errorf("find where %s is: %w", kind.Kind, err)
	}
	if mapping.Scope.Name() != apimeta.RESTScopeNameNamespace {
		return a.objects.Resource(mapping.Resource), nil
	}
	if namespace == "" {
		namespace = meta.NamespaceDefault
	}
	return a.objects.Resource(mapping.Resource).Namespace(namespace), nil
}

func (a *Applier) apply(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		resource, err := a.Resource(object.GroupVersionKind(), object.GetNamespace())
		if err == nil {
			_, err = resource.Apply(ctx, object.GetName(), object, meta.ApplyOptions{FieldManager: "e2e", Force: true})
		}
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// Apply is that of an [Applier] for this cluster.
func (c *Cluster) Apply(ctx context.Context, manifest []byte) error {
	applier, err := NewApplier(c.Config)
	if err != nil {
		return err
	}
	return applier.Apply(ctx, manifest)
}

func parse(manifest []byte) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	var objects []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the manifest: %w", err)
		}
		if len(object.Object) > 0 { // else nothing but comments
			objects = append(objects, object)
		}
	}
}

// applyDriver makes what the driver's module brings for a cluster: the CRDs, its
// rights, and the CSIDriver object, in which we name the audiences of the tokens
// that the driver gets. The DaemonSets stay out, because here the driver is
// a process of the node, and so is anybody's right to read the keys of service
// accounts' tokens: that we add.
func (c *Cluster) applyDriver(ctx context.Context) error {
	objects, err := c.driverObjects()
	if err != nil {
		return err
	}
	applier, err := NewApplier(c.Config)
	if err != nil {
		return err
	}
	if err := applier.apply(ctx, objects); err != nil {
		return err
	}
	_, err = c.Client.RbacV1().ClusterRoleBindings().Create(ctx, &rbac.ClusterRoleBinding{
		ObjectMeta: meta.ObjectMeta{Name: "e2e-issuer-discovery"},
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: "system:service-account-issuer-discovery"},
		Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: "Group", Name: "system:unauthenticated"}},
	}, meta.CreateOptions{})
	if err != nil {
		return fmt.Errorf("let anybody read the issuer's keys: %w", err)
	}
	return poll(ctx, "wait for the driver's CRDs", func(ctx context.Context) error { return c.established(ctx, objects) })
}

func (c *Cluster) driverObjects() ([]*unstructured.Unstructured, error) {
	files, err := filepath.Glob(filepath.Join(c.programs.DriverManifests, "*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(fmt.Errorf("no manifests in %s", c.programs.DriverManifests), err)
	}
	var all []*unstructured.Unstructured
	for _, file := range files {
		manifest, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the driver's manifests: %w", err)
		}
		objects, err := parse(manifest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, objects...)
	}
	all = slices.DeleteFunc(all, func(object *unstructured.Unstructured) bool { return object.GetKind() == "DaemonSet" })
	for _, object := range all {
		if object.GetKind() != "CSIDriver" {
			continue
		}
		var requests []any
		for _, audience := range Audiences() {
			requests = append(requests, map[string]any{"audience": audience})
		}
		if err := unstructured.SetNestedSlice(object.Object, requests, "spec", "tokenRequests"); err != nil {
			return nil, fmt.Errorf("add the audiences to the CSIDriver: %w", err)
		}
	}
	return all, nil
}

// established is an error while the API server does not serve a CRD of objects.
func (c *Cluster) established(ctx context.Context, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if object.GetKind() != "CustomResourceDefinition" {
			continue
		}
		group, _, _ := unstructured.NestedString(object.Object, "spec", "group")
		plural, _, _ := unstructured.NestedString(object.Object, "spec", "names", "plural")
		path := "/apis/" + schema.GroupVersion{Group: group, Version: "v1"}.String() + "/" + plural
		if err := c.Client.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Error(); err != nil {
			return err
		}
	}
	return nil
}
