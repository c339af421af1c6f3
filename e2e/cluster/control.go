package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startControlPlane starts etcd and the Kubernetes servers. It closes up when the
// API answers, and complete when the driver's objects are there, too.
func (c *Cluster) startControlPlane(ctx context.Context, up, complete chan<- struct{}) error {
	m, err := c.newMachine("control-plane")
	if err != nil {
		return err
	}
	if err := c.startStorage(ctx, m); err != nil {
		return err
	}
	if err := c.startAPI(ctx, m); err != nil {
		return err
	}
	close(up)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.startControllers(ctx, m) })
	group.Go(func() error {
		began := time.Now()
		if err := c.applyDriver(ctx); err != nil {
			return err
		}
		c.report("the driver's objects", began)
		close(complete)
		return nil
	})
	return group.Wait()
}

// startStorage starts etcd with its data in memory.
func (c *Cluster) startStorage(ctx context.Context, m *machine) error {
	began := time.Now()
	data := filepath.Join(c.Folder, "etcd")
	if err := os.Mkdir(data, 0o700); err != nil {
		return fmt.Errorf("make a folder for etcd: %w", err)
	}
	err := m.do(func() error { return unix.Mount("tmpfs", data, "tmpfs", 0, "mode=700") })
	if err != nil {
		return fmt.Errorf("mount memory for etcd: %w", err)
	}
	clients, peers := c.etcd(), "http://"+c.claim.control()+":2380"
	_, err = m.start("etcd", c.programs.Etcd, nil,
		"--name=e2e", "--data-dir="+data, "--unsafe-no-fsync",
		"--watch-progress-notify-interval=5s", // as kubeadm has it
		"--listen-client-urls="+clients, "--advertise-client-urls="+clients,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=e2e="+peers)
	if err != nil {
		return err
	}
	if err := poll(ctx, "wait for etcd", c.etcdHealth); err != nil {
		return err
	}
	c.report("etcd", began)
	return nil
}

func (c *Cluster) etcd() string { return "http://" + c.claim.control() + ":2379" }

func (c *Cluster) etcdHealth(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.etcd()+"/health", http.NoBody)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", response.Status)
	}
	return nil
}

// startAPI starts the API server where the service "kubernetes" points to.
func (c *Cluster) startAPI(ctx context.Context, m *machine) error {
	began := time.Now()
	address := c.claim.service(1)
	certificate, key, err := c.authority.issue("apiserver", identity{
		user:      "kube-apiserver",
		addresses: []string{address, "127.0.0.1"},
		names:     []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
	})
	if err != nil {
		return err
	}
	toKubelet, toKubeletKey, err := c.authority.issue("apiserver-kubelet", identity{user: "kube-apiserver", groups: []string{"system:masters"}})
	if err != nil {
		return err
	}
	signer, err := c.authority.signer()
	if err != nil {
		return err
	}
	policy, err := c.auditPolicy()
	if err != nil {
		return err
	}
	_, err = m.start("kube-apiserver", c.programs.APIServer, nil,
		"--etcd-servers="+c.etcd(),
		"--bind-address="+address, "--advertise-address="+address, "--secure-port=443",
		"--endpoint-reconciler-type=none", // which refuses loopback addresses
		"--service-cluster-ip-range="+c.claim.services(),
		"--tls-cert-file="+certificate, "--tls-private-key-file="+key, "--client-ca-file="+c.CA,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--service-account-issuer="+c.Issuer, "--service-account-jwks-uri="+c.Issuer+"/openid/v1/jwks",
		"--service-account-key-file="+signer, "--service-account-signing-key-file="+signer,
		"--kubelet-client-certificate="+toKubelet, "--kubelet-client-key="+toKubeletKey,
		"--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file="+policy, "--audit-log-path="+c.Audit, "--audit-log-maxsize=4096") // MB: tests read one file
	if err != nil {
		return err
	}
	if err := poll(ctx, "wait for the API server", c.apiReady); err != nil {
		return err
	}
	c.report("kube-apiserver", began)
	return nil
}

func (c *Cluster) apiReady(ctx context.Context) error {
	return c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// auditPolicy has every request logged, and no content.
func (c *Cluster) auditPolicy() (file string, err error) {
	policy, err := json.Marshal(map[string]any{
		"apiVersion": "audit.k8s.io/v1",
		"kind":       "Policy",
		"rules":      []any{map[string]any{"level": "Metadata"}},
	})
	if err != nil {
		return "", fmt.Errorf("write the audit policy: %w", err)
	}
	file = filepath.Join(c.Folder, "audit-policy.json")
	if err := os.WriteFile(file, policy, 0o600); err != nil {
		return "", fmt.Errorf("write the audit policy: %w", err)
	}
	return file, nil
}

// startControllers starts the controller manager and the scheduler. Pods can be
// made once there is a service account for them.
func (c *Cluster) startControllers(ctx context.Context, m *machine) error {
	began := time.Now()
	for _, one := range []struct {
		name, program string
		args          []string
	}{
		{"kube-controller-manager", c.programs.ControllerManager, []string{
			"--secure-port=10257", "--use-service-account-credentials", "--root-ca-file=" + c.CA,
			"--kube-api-qps=1000", "--kube-api-burst=1000", // with its defaults it starts for 5 s
			"--service-account-private-key-file=" + filepath.Join(c.authority.folder, "service-accounts.key"),
		}},
		{"kube-scheduler", c.programs.Scheduler, []string{"--secure-port=10259"}},
	} {
		kubeconfig, err := c.authority.kubeconfig(one.name, identity{user: "system:" + one.name})
		if err != nil {
			return err
		}
		args := slices.Concat(one.args, []string{"--kubeconfig=" + kubeconfig, "--bind-address=" + c.claim.control(), "--leader-elect=false"})
		if _, err := m.start(one.name, one.program, nil, args...); err != nil {
			return err
		}
	}
	err := poll(ctx, "wait for the controller manager to make service accounts", func(ctx context.Context) error {
		_, err := c.Client.CoreV1().ServiceAccounts(meta.NamespaceDefault).Get(ctx, "default", meta.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	c.report("kube-controller-manager", began)
	return nil
}
