// Package pods_test is what a pod sees: keymount installed by its Helm chart into a
// real cluster, with the real driver and a real kubelet, and Vault beside it.
//
// One test, TestPods, starts everything, and its parts run side by side: each has a
// namespace of its own. A part alone, and what it depends on:
//
//	go test ./pods -run TestPods/SideBySide/Rotation -v
package pods_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/vault/api"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/keymount/keymount/e2e/cluster"
	"github.com/keymount/keymount/e2e/cluster/clustertest"
	"github.com/keymount/keymount/e2e/image"
	"github.com/keymount/keymount/e2e/programs"
	"github.com/keymount/keymount/e2e/vaulttest"
)

const (
	release          = "keymount"
	releaseNamespace = "keymount"
	versionKeySecret = "keymount-version-key"
	// defaultInterval is the driver's, of --rotation-poll-interval.
	defaultInterval = 2 * time.Minute
	vaultNamespace  = "keymount-e2e-vault" // of Vault's own service account
	vaultHost       = "vault.vault.svc"    // of examples/values.yaml
	// unhurried is what limits are multiplied with where kubelets call every 60 to 90 s
	// and the driver may have its default interval.
	unhurried     = 3
	vaultPort     = "8200"
	examplesVault = "http://" + vaultHost + ":" + vaultPort
	// sideBySide is how many parts run at a time: they wait most of the time.
	sideBySide = "32"
)

// What a cluster that is not ours has to be told about.
const (
	envKubeconfig = "E2E_KUBECONFIG"
	envImage      = "E2E_IMAGE"       // of keymount, as the cluster's nodes pull it
	envValues     = "E2E_VALUES"      // more values of the chart, a file; not needed
	envVault      = "E2E_VAULT_ADDR"  // of a Vault that both this process and the cluster reach
	envVaultToken = "E2E_VAULT_TOKEN" //nolint:gosec // G101: the name of a variable
)

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", sideBySide)
	}
	os.Exit(m.Run())
}

// suite is what the parts share.
type suite struct {
	*kube
	reporter

	cluster      *cluster.Cluster // nil when it is not ours
	nodes        map[string]*cluster.Node
	vault        *api.Client
	vaultAddress string
	outages      map[string]*outage
	kubeconfig   string
	folder       string
	helmProgram  string
	building     sync.Mutex // of keymount for this machine

	kubectlProgram string
	before         map[string]bool // the cluster's inventory before keymount was installed
	postgres       *vaulttest.Postgres
	environment    []string // of the examples' setup.sh

	chain    certificates
	forms    string // their part of the bundle
	bundled  sync.Mutex
	plain    []byte // the examples' part of the bundle
	identity *age.X25519Identity
}

// TestPods is the whole suite.
func TestPods(t *testing.T) {
	s := newSuite(t)
	defer func() { t.Logf("measured:\n%s", &s.reporter) }()
	t.Run("SideBySide", func(t *testing.T) {
		t.Run("Forms", s.testForms)
		t.Run("Vault", s.testVault)
		t.Run("VaultDialect", s.testVaultDialect)
		t.Run("Converted", s.testConverted)
		t.Run("Render", s.testRender)
		t.Run("Rotation", s.testRotation)
		t.Run("Standstill", s.testStandstill)
		t.Run("SyncedSecrets", s.testSyncedSecrets)
		t.Run("Denials", s.testDenials)
		t.Run("RotationFails", s.testRotationFails)
		t.Run("NothingStays", s.testNothingStays)
		t.Run("NoEmptyMounts", s.testNoEmptyMounts)
		t.Run("StubProvider", s.testStubProvider)
		t.Run("Examples", s.testExamples)
		t.Run("Restarts", func(t *testing.T) { // one after the other, on nodes of their own
			t.Parallel()
			t.Run("Storm", s.testStorm)
			t.Run("Killed", s.testKilledProvider)
		})
	})
	t.Run("Codes", s.testCodes)
	t.Run("Trail", s.testTrail)
	t.Run("Rights", s.testRights)
	t.Run("Status", s.testStatus)
	t.Run("Watch", s.testWatch)
	t.Run("Uninstall", s.testUninstall)
}

// nodeFor is a node of our cluster and what it is for.
type nodeFor struct {
	purpose string
	cluster.NodeOptions
}

func nodesFor(images []string) []nodeFor {
	const quick = 10 * time.Second
	return []nodeFor{
		{"recommended", cluster.NodeOptions{SyncFrequency: quick, RotationInterval: 0, Images: images}},
		{"fast", cluster.NodeOptions{SyncFrequency: quick, RotationInterval: quick, Images: images}},
		{"defaults", cluster.NodeOptions{RotationInterval: defaultInterval, Images: images}},
		{"defaults-0s", cluster.NodeOptions{RotationInterval: 0, Images: images}},
		{"restarts", cluster.NodeOptions{SyncFrequency: quick, RotationInterval: 0, Images: images}},
		{"restarts-2m", cluster.NodeOptions{SyncFrequency: quick, RotationInterval: defaultInterval, Images: images}},
	}
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	ctx := clustertest.Context(t)
	s := &suite{folder: t.TempDir(), nodes: map[string]*cluster.Node{}, chain: newChain(t)}
	s.forms = formSecrets(t, s.chain)
	var err error
	if s.helmProgram, err = programs.Helm(ctx); err != nil {
		t.Fatal(err)
	}
	if s.kubectlProgram, err = programs.Kubectl(ctx, os.Stderr); err != nil {
		t.Fatal(err)
	}
	if kubeconfig := os.Getenv(envKubeconfig); kubeconfig != "" {
		s.useCluster(ctx, t, kubeconfig)
	} else {
		s.startCluster(ctx, t)
	}
	s.keepApart(t)
	s.prepareVault(t)
	s.install(t)
	return s
}

// useCluster takes a cluster that is there, with the driver installed, and nothing
// that this suite would change or remove.
func (s *suite) useCluster(ctx context.Context, t *testing.T, kubeconfig string) {
	t.Helper()
	for _, name := range []string{envImage, envVault, envVaultToken} {
		if os.Getenv(name) == "" {
			t.Fatalf("%s is set, so %s is needed, too; see e2e/README.md", envKubeconfig, name)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	s.kube, s.kubeconfig = newKube(ctx, t, config, unhurried), kubeconfig
	if taken := s.taken(ctx, t); len(taken) > 0 {
		t.Fatalf("these are there already, and this suite makes and removes its own: %s", strings.Join(taken, ", "))
	}
}

// taken is what the cluster has of the names that this suite uses.
func (s *suite) taken(ctx context.Context, t *testing.T) (found []string) {
	t.Helper()
	namespaces, err := s.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range namespaces.Items {
		if isOurs(namespace.Name) {
			found = append(found, "namespace "+namespace.Name)
		}
	}
	_, err = s.RbacV1().ClusterRoleBindings().Get(ctx, vaultNamespace, metav1.GetOptions{})
	if err == nil {
		found = append(found, "ClusterRoleBinding "+vaultNamespace)
	} else if !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return found
}

// isOurs says whether this suite makes a namespace of that name.
func isOurs(name string) bool {
	return name == releaseNamespace || name == vaultNamespace || name == "stranger" ||
		slices.ContainsFunc([]string{"stranger-", "e2e-", "example-"}, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// startCluster makes one for this run, and ends it with the test or with ctrl-C.
func (s *suite) startCluster(ctx context.Context, t *testing.T) {
	t.Helper()
	images, err := image.All(ctx, "../..", s.folder)
	if err != nil {
		t.Fatal(err)
	}
	options := cluster.Options{Hosts: map[string]string{vaultHost: s.vaultIP()}}
	for _, node := range nodesFor(images) {
		options.Nodes = append(options.Nodes, node.NodeOptions)
	}
	started := clustertest.Start(ctx, t, options)
	s.cluster, s.kube, s.kubeconfig = started, newKube(ctx, t, started.Config, 1), started.Kubeconfig
	for i, node := range nodesFor(nil) {
		s.nodes[node.purpose] = started.Nodes[i]
	}
}

// keepApart leaves nodes to the tests that name them: what an example's change takes
// there would be minutes, or a keymount that is being killed.
func (s *suite) keepApart(t *testing.T) {
	t.Helper()
	for _, purpose := range []string{"defaults", "defaults-0s", "restarts", "restarts-2m"} {
		if name := s.nodeName(purpose); name != "" {
			s.apply(t, "{apiVersion: v1, kind: Node, metadata: {name: "+name+"}, spec: {unschedulable: true}}")
		}
	}
}

// vaultIP is an address of this machine that no other run has.
func (s *suite) vaultIP() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.99.%d.%d", pid>>8&0xff, pid&0xff)
}

// newNamespace makes a namespace. In a cluster that is not ours it has to be a new one,
// and goes with the test.
func (s *suite) newNamespace(t *testing.T, name string) {
	t.Helper()
	namespace := &core.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"},
	}}
	_, err := s.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		t.Fatalf("namespace %s is there already, and this suite makes and removes its own", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.removeLater(t, name)
}

// removeLater removes a namespace after the test, unless the cluster goes anyway.
func (s *suite) removeLater(t *testing.T, namespace string) {
	t.Helper()
	if s.cluster != nil {
		return
	}
	t.Cleanup(func() {
		if err := s.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// nodeName is the node for a purpose, or none where the nodes are not ours.
func (s *suite) nodeName(purpose string) string {
	if node := s.nodes[purpose]; node != nil {
		return node.Name
	}
	return ""
}

// ownNode skips what needs a node's processes where they are not ours.
func (s *suite) ownNode(t *testing.T, purpose string) *cluster.Node {
	t.Helper()
	node := s.nodes[purpose]
	if node == nil {
		t.Skip("needs a node whose processes it may look at and end; run it without " + envKubeconfig)
	}
	return node
}

func (s *suite) outage(t *testing.T, kind string) *outage {
	t.Helper()
	if s.outages[kind] == nil {
		t.Skip("needs stores that it may end; run it without " + envKubeconfig)
	}
	return s.outages[kind]
}

// put writes a new version of a secret into the store prod, at secret/PATH.
func (s *suite) put(t *testing.T, path string, data map[string]any) {
	t.Helper()
	if _, err := s.vault.KVv2("secret").Put(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

// drop deletes a secret.
func (s *suite) drop(t *testing.T, path string) {
	t.Helper()
	if err := s.vault.KVv2("secret").Delete(t.Context(), path); err != nil {
		t.Fatal(err)
	}
}

// runHelm runs the real helm.
func (s *suite) runHelm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.helm(s.ctx, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (s *suite) helm(ctx context.Context, args ...string) (out string, err error) {
	command := exec.CommandContext(ctx, s.helmProgram, append([]string{"--kubeconfig", s.kubeconfig}, args...)...) //nolint:gosec // G204: a tool of this repository
	command.Dir = "../.."
	command.Env = append(os.Environ(), "HELM_CACHE_HOME="+s.folder, "HELM_CONFIG_HOME="+s.folder, "HELM_DATA_HOME="+s.folder)
	// Interrupted, it notes in the cluster how far it has come.
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	printed, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("helm %s: %w", strings.Join(args, " "), err)
	}
	return string(printed), err
}

// listable are all kinds of objects that the cluster has.
func (s *suite) listable(t *testing.T) (all []listable) {
	t.Helper()
	groups, err := s.Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range groups {
		for _, resource := range group.APIResources {
			if !slices.Contains(resource.Verbs, "list") {
				continue
			}
			version, err := schema.ParseGroupVersion(group.GroupVersion)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, listable{s.objects.Resource(version.WithResource(resource.Name)), resource.Namespaced})
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d kinds of objects", len(all))
	}
	return all
}

type listable struct {
	dynamic.NamespaceableResourceInterface
	namespaced bool
}
