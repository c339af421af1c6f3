package pods_test

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/e2e/cluster"
)

// unavailable is how often the stub fails: as often as the driver tries in one call
// of the kubelet.
const unavailable = 3

// stub is a provider that does what keymount must not: it answers Unavailable a few
// times before it mounts.
type stub struct {
	v1alpha1.UnimplementedCSIDriverProviderServer

	failures atomic.Int64
}

// newStub serves the provider "stub" on a node.
func newStub(t *testing.T, node *cluster.Node) *stub {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(node.Providers, "stub.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s, server, ended := &stub{}, grpc.NewServer(), make(chan struct{})
	v1alpha1.RegisterCSIDriverProviderServer(server, s)
	go func() { defer close(ended); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-ended })
	return s
}

func (s *stub) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "stub", RuntimeVersion: "v0.0.1"}, nil
}

func (s *stub) Mount(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	if s.failures.Add(1) <= unavailable {
		return nil, status.Error(codes.Unavailable, "try again")
	}
	return &v1alpha1.MountResponse{
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "password", Version: "1"}},
		Files:         []*v1alpha1.File{{Path: "password", Mode: 0o444, Contents: []byte("fake-1")}},
	}, nil
}
