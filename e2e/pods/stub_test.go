package pods_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/e2e/cluster"
)

// tries is how often the stub fails: as often as the driver tries in one call of the
// kubelet.
const tries = 3

// stub is a provider that fails a few times in a way that keymount must not, or, where
// it dies, cannot help, and then mounts.
type stub struct {
	v1alpha1.UnimplementedCSIDriverProviderServer

	fail func(*stub) error

	mu          sync.Mutex
	failures    int
	connections []net.Conn
}

// answerUnavailable and dropConnection are ways to fail.
func answerUnavailable(*stub) error { return status.Error(codes.Unavailable, "try again") }

// dropConnection is what the driver sees of a provider that is killed in the middle
// of a call and started again.
func dropConnection(s *stub) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, connection := range s.connections {
		_ = connection.Close()
	}
	s.connections = nil
	return status.Error(codes.Internal, "nobody hears this")
}

// newStub serves a provider on a node.
func newStub(t *testing.T, node *cluster.Node, provider string, fail func(*stub) error) *stub {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(node.Providers, provider+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	s, server, ended := &stub{fail: fail}, grpc.NewServer(), make(chan struct{})
	v1alpha1.RegisterCSIDriverProviderServer(server, s)
	go func() { defer close(ended); _ = server.Serve(noted{listener, s}) }()
	t.Cleanup(func() { server.Stop(); <-ended })
	return s
}

// noted is a listener whose connections the stub can close.
type noted struct {
	net.Listener
	stub *stub
}

func (l noted) Accept() (net.Conn, error) {
	connection, err := l.Listener.Accept()
	if err == nil {
		l.stub.mu.Lock()
		defer l.stub.mu.Unlock()
		l.stub.connections = append(l.stub.connections, connection)
	}
	return connection, err
}

// failed is how often it has failed.
func (s *stub) failed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures
}

func (s *stub) fails() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures == tries {
		return false
	}
	s.failures++
	return true
}

func (s *stub) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "stub", RuntimeVersion: "v0.0.1"}, nil
}

func (s *stub) Mount(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	if s.fails() {
		return nil, s.fail(s)
	}
	return &v1alpha1.MountResponse{
		ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "password", Version: "1"}},
		Files:         []*v1alpha1.File{{Path: "password", Mode: 0o444, Contents: []byte("fake-1")}},
	}, nil
}
