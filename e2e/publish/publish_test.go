// Package publish_test is the quick tier: the real driver with a real API server
// behind it and keymount before it, but no kubelet. The tests call the driver as a
// kubelet does, NodePublishVolume on its socket, and have an answer in seconds.
package publish_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	authentication "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keymount/keymount/e2e/cluster"
	"github.com/keymount/keymount/e2e/cluster/clustertest"
	"github.com/keymount/keymount/store/bundle"
)

const (
	startLimit = time.Minute
	// kubelet is the folder below which the driver mounts.
	kubelet     = "/var/lib/kubelet/pods"
	publishMode = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
)

// stage is a driver without a kubelet, and keymount.
type stage struct {
	ctx      context.Context // of the whole test, and ends with ctrl-C
	cluster  *cluster.Cluster
	node     *cluster.Node
	driver   csi.NodeClient
	folder   string // keymount's
	identity *age.X25519Identity
}

// TestPublish is the whole tier: starting takes longer than its parts.
func TestPublish(t *testing.T) {
	s := newStage(t)
	t.Run("Rotation", s.testRotation)
	t.Run("Denial", s.testDenial)
	t.Run("Mistake", s.testMistake)
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ctx := clustertest.Context(t)
	c := clustertest.Start(ctx, t, cluster.Options{})
	node, err := c.StartDriver(ctx, cluster.NodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	connection, err := grpc.NewClient("unix://"+node.DriverSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	s := &stage{ctx: ctx, cluster: c, node: node, driver: csi.NewNodeClient(connection), folder: t.TempDir()}
	if s.identity, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	s.seal(t, "fake-1")
	s.serve(t)
	return s
}

// seal writes the bundle anew.
func (s *stage) seal(t *testing.T, password string) {
	t.Helper()
	sealed, err := bundle.Encrypt([]byte("shop/db: {user: shop, password: "+password+"}\n"), []age.Recipient{s.identity.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "secrets.age", string(sealed))
}

// write replaces a file of keymount's folder at once.
func (s *stage) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(s.folder, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// serve builds keymount and runs it on the node's folder of sockets.
func (s *stage) serve(t *testing.T) {
	t.Helper()
	program := filepath.Join(s.folder, "keymount")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".") //nolint:gosec // G204: our own source
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build keymount: %v\n%s", err, out)
	}
	s.write(t, "key.txt", s.identity.String()+"\n")
	s.write(t, "version.key", strings.Repeat("fake", 8))
	s.write(t, "keymount.yaml", fmt.Sprintf(`
stores:
  - bundle: {file: secrets.age, identityFile: key.txt}
    access: [{namespaces: ["shop"], serviceAccounts: ["api"], paths: ["shop/**"]}]
issuers: [{keys: discovery, issuer: %q, caFile: %q}]
sockets: [%s]
versionKeyFile: version.key
`, s.cluster.Issuer, s.cluster.CA, filepath.Join(s.node.Providers, "keymount.sock")))
	log, err := os.Create(filepath.Join(s.folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(s.ctx, program, "serve", "--config", filepath.Join(s.folder, "keymount.yaml")) //nolint:gosec // G204: just built
	command.Stderr = log
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = startLimit
	if err := s.cluster.StartBeside(command); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Cancel() // it may have ended already
		_ = command.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("keymount's log:\n%s", text)
		}
	})
}

// pod makes a Pod object, a class of its name, and returns the request that a
// kubelet would make for its volume.
func (s *stage) pod(t *testing.T, namespace, name, objects string) *csi.NodePublishVolumeRequest {
	t.Helper()
	s.apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: api, namespace: %[1]s}
---
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: %[2]s, namespace: %[1]s}
spec: {provider: keymount, parameters: {objects: %[3]q}}
---
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s}
spec: {serviceAccountName: api, containers: [{name: app, image: "app:1"}]}
`, namespace, name, objects))
	object, err := s.cluster.Client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	uid := string(object.UID)
	return &csi.NodePublishVolumeRequest{
		VolumeId:   "csi-" + uid,
		TargetPath: "/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~csi/secrets/mount",
		Readonly:   true,
		VolumeCapability: &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: publishMode},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		},
		VolumeContext: map[string]string{
			"secretProviderClass":                      name,
			"csi.storage.k8s.io/pod.name":              name,
			"csi.storage.k8s.io/pod.namespace":         namespace,
			"csi.storage.k8s.io/pod.uid":               uid,
			"csi.storage.k8s.io/serviceAccount.name":   "api",
			"csi.storage.k8s.io/ephemeral":             "true",
			"csi.storage.k8s.io/serviceAccount.tokens": s.token(t, namespace, name, uid),
		},
	}
}

func (s *stage) apply(t *testing.T, manifest string) {
	t.Helper()
	if err := s.cluster.Apply(t.Context(), []byte(manifest)); err != nil {
		t.Fatal(err)
	}
}

// token is what the kubelet hands on: one of the API server's, bound to the pod.
func (s *stage) token(t *testing.T, namespace, pod, uid string) string {
	t.Helper()
	answer, err := s.cluster.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "api", &authentication.TokenRequest{
		Spec: authentication.TokenRequestSpec{
			Audiences:      []string{"keymount"},
			BoundObjectRef: &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: types.UID(uid)},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := json.Marshal(map[string]any{"keymount": map[string]any{
		"token": answer.Status.Token, "expirationTimestamp": answer.Status.ExpirationTimestamp,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return string(tokens)
}

func (s *stage) publish(t *testing.T, request *csi.NodePublishVolumeRequest) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, startLimit)
	defer cancel()
	_, err := s.driver.NodePublishVolume(ctx, request, grpc.WaitForReady(true))
	return err
}

// file is what the driver has written, seen from outside.
func (s *stage) file(t *testing.T, request *csi.NodePublishVolumeRequest, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.node.Root, request.GetTargetPath(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// A volume is mounted, follows the secret at the next call, and leaves nothing.
func (s *stage) testRotation(t *testing.T) {
	request := s.pod(t, "shop", "api-0", "[{path: shop/db, key: password, file: db/password}]")
	if err := s.publish(t, request); err != nil {
		t.Fatal(err)
	}
	if got := s.file(t, request, "db/password"); got != "fake-1" {
		t.Errorf("got %q", got)
	}
	s.seal(t, "fake-2")
	if err := s.publish(t, request); err != nil {
		t.Fatal(err)
	}
	if got := s.file(t, request, "db/password"); got != "fake-2" {
		t.Errorf("after the rotation: %q", got)
	}
	if mounts, err := s.node.Mounts(kubelet); err != nil || !slices.Contains(mounts, request.GetTargetPath()) {
		t.Fatalf("the volume is not among the mounts %q (%v): this test cannot tell whether it goes", mounts, err)
	}
	_, err := s.driver.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: request.GetVolumeId(), TargetPath: request.GetTargetPath()})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := s.node.Mounts(kubelet)
	if _, missing := os.Lstat(filepath.Join(s.node.Root, request.GetTargetPath(), "db")); len(mounts) > 0 || err != nil || !errors.Is(missing, fs.ErrNotExist) {
		t.Errorf("there are mounts left: %q, %v, %v", mounts, err, missing)
	}
}

// The driver passes on what keymount says, and mounts nothing.
func (s *stage) testDenial(t *testing.T) {
	request := s.pod(t, "blog", "web-0", "[{path: shop/db, key: password, file: db/password}]")
	s.refused(t, request, `service account blog/api may not read "shop/db" of store "default"; no rule under access of that store in keymount.yaml allows it`)
}

func (s *stage) testMistake(t *testing.T) {
	request := s.pod(t, "shop", "api-1", "[{path: shop/db, kee: password, file: db/password}]")
	s.refused(t, request, `objects[0]: unknown field "kee"; did you mean "key"?`)
}

func (s *stage) refused(t *testing.T, request *csi.NodePublishVolumeRequest, text string) {
	t.Helper()
	err := s.publish(t, request)
	if err == nil || !strings.Contains(status.Convert(err).Message(), text) || status.Code(err) == codes.OK {
		t.Errorf("got  %v\nwant %s", err, text)
	}
	if mounts, err := s.node.Mounts(kubelet); err != nil || len(mounts) > 0 {
		t.Errorf("there is a mount: %q, %v", mounts, err)
	}
}
