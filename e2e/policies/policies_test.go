// Package policies_test holds deploy/policies against a real API server. Objects are
// created as a server-side dry run: they are judged and never there.
package policies_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/e2e/cluster"
	"github.com/keymount/keymount/e2e/cluster/clustertest"
)

const (
	policies = "../../deploy/policies"
	// limit bounds how long the API server may take to notice a policy or its list.
	limit = 30 * time.Second
)

// allowed is the list that most tests judge by.
var allowed = map[string]string{
	"_all":    "default",
	"shop":    "local prod\n  https://vault.example:8200 namespace=team-shop mount=clusters/shop audience=vault",
	"nothing": "",
}

var (
	classKind = schema.GroupVersionResource{Group: "secrets-store.csi.x-k8s.io", Version: "v1", Resource: "secretproviderclasses"}
	podKind   = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// judge is an API server with the policies.
type judge struct {
	cluster *cluster.Cluster
	objects dynamic.Interface
}

// TestPolicies first creates everything that is to be denied where there is no policy:
// what denies it afterwards is the policy.
func TestPolicies(t *testing.T) {
	j := start(t)
	t.Run("none yet", func(t *testing.T) {
		for _, c := range append(classCases(), podCases()...) {
			t.Run(c.name, func(t *testing.T) {
				if err := j.create(t.Context(), c.kind, c.object); err != nil {
					t.Error(err)
				}
			})
		}
	})
	j.apply(t)
	t.Run("Stores", func(t *testing.T) { j.testCases(t, classCases()) })
	t.Run("Volumes", func(t *testing.T) { j.testCases(t, podCases()) })
	t.Run("Spellings", j.testSpellings)
	t.Run("Examples", j.testExamples)
	t.Run("Types", j.testTypes)
	t.Run("Updates", j.testUpdates)
	t.Run("NoList", j.testNoList)
}

// start starts a control plane with three namespaces and no policy.
func start(t *testing.T) *judge {
	t.Helper()
	c := clustertest.Start(clustertest.Context(t), t, cluster.Options{})
	for _, name := range []string{"keymount", "shop", "blog"} {
		namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name}}
		if _, err := c.Client.CoreV1().Namespaces().Create(t.Context(), namespace, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		account := &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "app"}}
		if _, err := c.Client.CoreV1().ServiceAccounts(name).Create(t.Context(), account, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	objects, err := dynamic.NewForConfig(config(c))
	if err != nil {
		t.Fatal(err)
	}
	return &judge{c, objects}
}

// config tells of warnings in no log: a deprecated version is asked for on purpose.
func config(c *cluster.Cluster) *rest.Config {
	config := rest.CopyConfig(c.Config)
	config.WarningHandler = rest.NoWarnings{}
	return config
}

// apply makes the policies and the list, and waits until they are in force.
func (j *judge) apply(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(policies, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d manifests: %v", len(files), err)
	}
	for _, file := range files {
		manifest, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.cluster.Apply(t.Context(), manifest); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	j.allow(t, allowed)
	j.await(t, classCase("", "another store", func(c *class) { c.parameters["store"] = "eu" }), isDenied)
	j.await(t, classCase("", "a store of the namespace", func(c *class) { c.parameters["store"] = "prod" }), isAllowed)
	j.await(t, podCase("an attribute", func(v *core.Volume) { v.CSI.VolumeAttributes["store"] = "eu" }), isDenied)
	j.await(t, podCase("not read-only", func(v *core.Volume) { v.CSI.ReadOnly = nil }), isDenied)
}

// await waits until the object is judged in that way: the API server takes notice of
// policies and lists in its own time.
func (j *judge) await(t *testing.T, c judgement, wanted func(error) bool) {
	t.Helper()
	eventually(t, "the policies count for "+c.name, func(ctx context.Context) error {
		if err := j.create(ctx, c.kind, c.object); !wanted(err) {
			return fmt.Errorf("the answer is %v", err) //nolint:errorlint // it may be nil
		}
		return nil
	})
}

func isAllowed(err error) bool { return err == nil }

func isDenied(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'keymount-")
}

// allow replaces the list.
func (j *judge) allow(t *testing.T, stores map[string]string) {
	t.Helper()
	list, err := j.cluster.Client.CoreV1().ConfigMaps("keymount").Get(t.Context(), "keymount-stores", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list.Data = stores
	if _, err := j.cluster.Client.CoreV1().ConfigMaps("keymount").Update(t.Context(), list, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (j *judge) create(ctx context.Context, kind schema.GroupVersionResource, object *unstructured.Unstructured) error {
	_, err := j.objects.Resource(kind).Namespace(object.GetNamespace()).Create(ctx, object, meta.CreateOptions{DryRun: []string{meta.DryRunAll}})
	return err //nolint:wrapcheck // its text is what is tested
}

// judgement is an object, and what its author is told; nothing when it is in order.
type judgement struct {
	name   string
	kind   schema.GroupVersionResource
	object *unstructured.Unstructured
	policy string
	want   string
}

func (j *judge) testCases(t *testing.T, cases []judgement) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t, j.create(t.Context(), c.kind, c.object)) })
	}
}

func (c judgement) check(t *testing.T, err error) {
	t.Helper()
	got, want := "", ""
	if err != nil {
		got = err.Error()
	}
	if c.want != "" {
		resource := c.kind.GroupResource().String()
		want = fmt.Sprintf("%s %q is forbidden: ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s",
			resource, c.object.GetName(), c.policy, c.policy, c.want)
	}
	if got != want {
		t.Errorf("the answer is\n%s\nwant\n%s", got, want)
	}
}

// testTypes has the API server's own check of the expressions, against the types that
// they are about, find nothing.
func (j *judge) testTypes(t *testing.T) {
	list, err := j.cluster.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(t.Context(), meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, policy := range list.Items {
		if !strings.HasPrefix(policy.Name, "keymount-") {
			continue
		}
		checked++
		eventually(t, "the types of "+policy.Name+" are checked", func(ctx context.Context) error {
			found, err := j.cluster.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, policy.Name, meta.GetOptions{})
			if err != nil {
				return err
			}
			if found.Status.ObservedGeneration != found.Generation || found.Status.TypeChecking == nil {
				return errors.New("not yet")
			}
			for _, warning := range found.Status.TypeChecking.ExpressionWarnings {
				t.Errorf("%s: %s: %s", policy.Name, warning.FieldRef, warning.Warning)
			}
			return nil
		})
	}
	if checked != 3 {
		t.Errorf("checked %d policies, want 3", checked)
	}
}

// eventually calls attempt until it succeeds.
func eventually(t *testing.T, what string, attempt func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := attempt(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-ticker.C:
		}
	}
}
