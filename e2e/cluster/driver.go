package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	driverSocket       = kubeletRoot + "/plugins/csi-secrets-store/csi.sock"
	registrationSocket = kubeletRoot + "/plugins_registry/" + DriverName + "-reg.sock"
)

// StartDriver starts a node with nothing on it but the driver: no kubelet calls
// it, and there is no Node object. Who calls NodePublishVolume on its
// [Node.DriverSocket] gives target paths of the node's, and finds what is mounted
// there below [Node.Root].
func (c *Cluster) StartDriver(ctx context.Context, options NodeOptions) (*Node, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	began := time.Now()
	n, err := c.newNode(ctx, c.nextNode(), options)
	if err != nil {
		return nil, err
	}
	if err := n.startDriver(ctx, options.RotationInterval); err != nil {
		return nil, err
	}
	c.report("driver "+n.Name, began)
	return n, nil
}

// startDriver starts the driver with the flags of its chart, and the rights that
// its manifests give.
func (n *Node) startDriver(ctx context.Context, rotation time.Duration) error {
	const account = "system:serviceaccount:kube-system:secrets-store-csi-driver"
	kubeconfig, err := n.cluster.authority.kubeconfig("driver-"+n.Name, identity{
		user: account, groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system"},
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(n.DriverSocket), 0o755); err != nil { //nolint:gosec // G301: as the driver's chart does
		return fmt.Errorf("start driver of %s: %w", n.Name, err)
	}
	err = n.start("driver", n.cluster.programs.Driver, []string{"KUBECONFIG=" + kubeconfig},
		"--endpoint=unix://"+driverSocket, "--nodeid="+n.Name,
		"--provider-volume="+providers,
		"--additional-provider-volume-paths=/etc/kubernetes/secrets-store-csi-providers",
		"--enable-secret-rotation=true", "--rotation-poll-interval="+rotation.String(),
		"--metrics-addr="+net.JoinHostPort(n.Name, "8095"),
		"--provider-health-check=false", "--provider-health-check-interval=2m")
	if err != nil {
		return err
	}
	return poll(ctx, "wait for the driver of "+n.Name+" (its log: "+n.log("driver")+")", func(ctx context.Context) error {
		connection, err := new(net.Dialer).DialContext(ctx, "unix", n.DriverSocket)
		if err != nil {
			return err
		}
		return connection.Close()
	})
}

// RestartDriver ends the driver by SIGKILL, unless that was done before, and
// starts it with another rotation interval. On a node with a kubelet it returns
// when the driver is registered again.
func (n *Node) RestartDriver(ctx context.Context, rotation time.Duration) error {
	ctx, cancel := n.cluster.bounded(ctx)
	defer cancel()
	n.lock.Lock()
	registration := n.registration
	n.registration = nil
	n.lock.Unlock()
	if registration != nil {
		registration.close()
	}
	if err := n.Kill("driver"); err != nil {
		return err
	}
	if err := os.Remove(n.DriverSocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restart the driver of %s: %w", n.Name, err)
	}
	if err := n.startDriver(ctx, rotation); err != nil || registration == nil {
		return err
	}
	return n.register(ctx)
}

// registration tells a kubelet of the driver, in place of the sidecar
// node-driver-registrar.
type registration struct {
	registerapi.UnimplementedRegistrationServer

	server  *grpc.Server
	serving sync.WaitGroup
	status  chan *registerapi.RegistrationStatus // the first
}

// register returns when the kubelet has taken the driver.
func (n *Node) register(ctx context.Context) error {
	socket := filepath.Join(n.Root, registrationSocket)
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil { // the kubelet may not have come to it yet
		return fmt.Errorf("register the driver of %s: %w", n.Name, err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("register the driver of %s: %w", n.Name, err)
	}
	r := &registration{server: grpc.NewServer(), status: make(chan *registerapi.RegistrationStatus, 1)}
	registerapi.RegisterRegistrationServer(r.server, r)
	r.serving.Go(func() { _ = r.server.Serve(listener) }) // it ends by close
	n.lock.Lock()
	n.registration = r
	n.lock.Unlock()
	n.cluster.onStop(func() error { r.close(); return nil })
	select {
	case status := <-r.status:
		if !status.GetPluginRegistered() {
			return fmt.Errorf("register the driver of %s: the kubelet refuses: %s", n.Name, status.GetError())
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("register the driver of %s: %w (the kubelet's log: %s)", n.Name, context.Cause(ctx), n.log("kubelet"))
	}
}

// close removes the socket, too, by which the kubelet forgets the driver.
func (r *registration) close() {
	r.server.Stop()
	r.serving.Wait()
}

// GetInfo answers the kubelet who is at the socket.
func (r *registration) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type: registerapi.CSIPlugin, Name: DriverName, Endpoint: driverSocket, SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus learns what the kubelet made of it.
func (r *registration) NotifyRegistrationStatus(_ context.Context, status *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	select {
	case r.status <- status:
	default: // nobody waits any more
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
