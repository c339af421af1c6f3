package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/e2e/cluster"
)

// class and reader are a pod's volume of the provider stub.
const (
	class = `
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: stub}
spec: {provider: stub, parameters: {objects: all}}
`
	reader = `
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: shell
    image: docker.io/library/busybox:1.37
    command: [sleep, infinity]
    volumeMounts: [{name: secrets, mountPath: /secrets}]
  volumes:
  - name: secrets
    csi: {driver: secrets-store.csi.k8s.io, readOnly: true, volumeAttributes: {secretProviderClass: stub}}
`
)

// stub is a provider whose one file is the number of the call.
type stub struct {
	v1alpha1.UnimplementedCSIDriverProviderServer

	calls     atomic.Int64
	lock      sync.Mutex
	audiences []string // of the last call's tokens
}

func startStub(t *testing.T, node *cluster.Node) *stub {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(node.Providers, "stub.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s, server := &stub{}, grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return s
}

func (s *stub) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "stub", RuntimeVersion: "1"}, nil
}

func (s *stub) Mount(_ context.Context, request *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	var attributes, tokens map[string]any
	if err := json.Unmarshal([]byte(request.GetAttributes()), &attributes); err != nil {
		return nil, err
	}
	if text, ok := attributes["csi.storage.k8s.io/serviceAccount.tokens"].(string); ok {
		if err := json.Unmarshal([]byte(text), &tokens); err != nil {
			return nil, err
		}
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.audiences = nil
	for audience := range tokens {
		s.audiences = append(s.audiences, audience)
	}
	call := fmt.Sprint(s.calls.Add(1))
	return &v1alpha1.MountResponse{
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "call", Version: call}},
		Files:         []*v1alpha1.File{{Path: "call", Mode: 0o444, Contents: []byte(call)}},
	}, nil
}

func TestDriver(t *testing.T) {
	c := start(t, cluster.Options{Nodes: []cluster.NodeOptions{
		{SyncFrequency: 2 * time.Second, RotationInterval: time.Hour, Images: []string{busyboxArchive(t)}},
	}})
	node := c.Nodes[0]
	provider := startStub(t, node)
	if err := c.Apply(t.Context(), []byte(class+"---"+reader)); err != nil {
		t.Fatal(err)
	}
	waitReady(t, c, "reader")

	t.Run("mount", func(t *testing.T) {
		if got := execute(t, c, "reader", "cat", "/secrets/call"); got != "1" {
			t.Errorf("the file says %q, want 1", got)
		}
		provider.lock.Lock()
		defer provider.lock.Unlock()
		slices.Sort(provider.audiences)
		want := slices.Sorted(slices.Values(cluster.Audiences()))
		if diff := cmp.Diff(want, provider.audiences); diff != "" {
			t.Errorf("audiences of the tokens (-want +got):\n%s", diff)
		}
		mounts, err := node.Mounts("/var/lib/kubelet/pods")
		if err != nil || !slices.ContainsFunc(mounts, func(name string) bool { return filepath.Base(filepath.Dir(name)) == "secrets" }) {
			t.Errorf("no mount for the volume among %q (%v)", mounts, err)
		}
	})
	t.Run("another interval", func(t *testing.T) {
		if err := node.Kill("driver"); err != nil {
			t.Fatal(err)
		}
		if err := node.RestartDriver(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		eventually(t, "rotate", func() bool { return execute(t, c, "reader", "cat", "/secrets/call") != "1" })
	})
	t.Run("without kubelet", func(t *testing.T) {
		if err := c.Client.CoreV1().Pods("default").Delete(t.Context(), "reader", meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		testDriverAlone(t, c)
	})
}

func testDriverAlone(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	node, err := c.StartDriver(t.Context(), cluster.NodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	startStub(t, node)
	connection, err := grpc.NewClient("unix://"+node.DriverSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	const target = "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/secrets/mount"
	_, err = csi.NewNodeClient(connection).NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId:         "volume",
		TargetPath:       target,
		Readonly:         true,
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}},
		VolumeContext: map[string]string{
			"secretProviderClass":              "stub",
			"csi.storage.k8s.io/pod.name":      "reader",
			"csi.storage.k8s.io/pod.namespace": "default",
			"csi.storage.k8s.io/pod.uid":       "uid",
			"csi.storage.k8s.io/ephemeral":     "true",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(node.Root, target, "call"))
	if err != nil || string(got) != "1" {
		t.Errorf("the file says %q (%v), want 1", got, err)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
