// Package cluster runs a real Kubernetes cluster with the real Secrets Store CSI
// driver on one Linux machine, without Docker and without a registry.
//
//	c, err := cluster.Start(ctx, cluster.Options{Nodes: make([]cluster.NodeOptions, 2)})
//	...
//	defer c.Stop()
//
// A node is a process tree in a PID and a mount namespace of its own, on a copy of
// this machine's files that nobody else sees and that ends with it: containerd,
// kubelet and the driver have their ordinary paths, and so has every hostPath.
// The network is this machine's. All servers listen in 127.0.0.0/8, nodes are
// named by their address there, and pods have a network of their own that leads
// to their node alone; what must reach the API server or another node uses
// hostNetwork. Services have addresses in 127.0.0.0/8, too, but nothing forwards
// them: a pod of the host's network reaches the API server at the address that
// every pod's environment has for it, because it listens there.
//
// A cluster ends with its process. [Cluster.Stop] leaves nothing on the machine; a
// process that is killed leaves a folder and cgroups, and the next Start removes
// them.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// startTimeout bounds how long all parts together may take, once built.
const startTimeout = time.Minute

// Options say what [Start] starts.
type Options struct {
	Nodes    []NodeOptions     // none: the control plane alone
	Hosts    map[string]string // more lines of the nodes' /etc/hosts: an address by name
	Logs     string            // folder for logs, which stay; "": in the cluster's folder, removed with it
	Progress io.Writer         // gets one line when a part is ready; nil: nobody
}

// Cluster is a running cluster. Its methods can be called at the same time.
type Cluster struct {
	Config     *rest.Config // an administrator's, without client-side limits
	Client     kubernetes.Interface
	Kubeconfig string  // file with the same
	CA         string  // file with the certificate of the API server's authority
	Issuer     string  // of service accounts' tokens; anybody may read its keys
	Audit      string  // file of the API server's audit log: metadata of every request
	Folder     string  // private, short, removed by Stop
	Logs       string  // folder of every part's log, by machine
	Nodes      []*Node // as in the options

	claim     *claim
	programs  *Programs
	authority *authority
	hosts     map[string]string
	progress  io.Writer
	printing  sync.Mutex
	began     time.Time

	broken  context.Context // done when a part ended unasked; its cause says which
	breakUp context.CancelCauseFunc

	lock   sync.Mutex // guards what follows
	nodes  int        // that were made, with those of [Cluster.StartDriver]
	stops  []func() error
	keeper *keeper // nil once stopped
}

// Start builds what is missing (see [Build]), starts everything, and returns when
// the API answers, the driver's objects are there, and all nodes are ready with
// the driver registered. An error says which part failed, and ends its log.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	if options.Progress == nil {
		options.Progress = io.Discard
	}
	if err := requirements(); err != nil {
		return nil, err
	}
	if len(options.Nodes) > mostNodes {
		return nil, fmt.Errorf("start a cluster: %d nodes, and there can be %d", len(options.Nodes), mostNodes)
	}
	programs, err := Build(ctx, options.Progress)
	if err != nil {
		return nil, err
	}
	claim, err := newClaim(ctx)
	if err != nil {
		return nil, fmt.Errorf("start a cluster: %w", err)
	}
	c := newCluster(options, programs, claim)
	if err := c.start(ctx, options); err != nil {
		if options.Logs == "" {
			err = fmt.Errorf("%w\n(its log goes with the cluster, unless Options.Logs names a folder)", err)
		}
		return nil, errors.Join(err, c.stop(ctx))
	}
	return c, nil
}

func newCluster(options Options, programs *Programs, claim *claim) *Cluster {
	c := &Cluster{
		Folder:   claim.folder,
		Logs:     options.Logs,
		Issuer:   "https://" + claim.service(1),
		claim:    claim,
		programs: programs,
		keeper:   newKeeper(),
		hosts:    options.Hosts,
		progress: options.Progress,
		began:    time.Now(),
	}
	if c.Logs == "" {
		c.Logs = filepath.Join(claim.folder, "logs")
	}
	c.Audit = filepath.Join(c.Logs, "audit.log")
	c.broken, c.breakUp = context.WithCancelCause(context.Background())
	return c
}

func (c *Cluster) start(ctx context.Context, options Options) error {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if err := c.setUp(); err != nil {
		return err
	}
	up, complete := make(chan struct{}), make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.startControlPlane(ctx, up, complete) })
	c.Nodes = make([]*Node, len(options.Nodes))
	for i, node := range options.Nodes {
		index := c.nextNode() // here, so that names are in the order of the options
		group.Go(func() (err error) {
			c.Nodes[i], err = c.startNode(ctx, index, node, up, complete)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		if broken := c.failure(); broken != nil {
			return broken // and made others give up
		}
		return fmt.Errorf("%w (logs: %s)", err, c.Logs)
	}
	c.report("cluster", c.began)
	return nil
}

// bounded is a context for waiting: it ends after [startTimeout], or when a part
// of the cluster ends, which is its cause.
func (c *Cluster) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, timeout := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not done after %s", startTimeout))
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.broken, func() { cancel(context.Cause(c.broken)) })
	return ctx, func() {
		stop()
		cancel(nil)
		timeout()
	}
}

// setUp makes the files that the parts read.
func (c *Cluster) setUp() error {
	if err := os.MkdirAll(c.Logs, 0o755); err != nil { //nolint:gosec // G301: pods write their logs below
		return fmt.Errorf("make a folder for logs: %w", err)
	}
	var err error
	if c.authority, err = newAuthority(filepath.Join(c.Folder, "pki"), c.Issuer); err != nil {
		return err
	}
	c.CA = c.authority.file()
	admin := identity{user: "keymount-e2e", groups: []string{"system:masters"}}
	if c.Kubeconfig, err = c.authority.kubeconfig("admin", admin); err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	pause, err := Busybox(pauseImage)
	if err != nil {
		return err
	}
	pause.Entrypoint = []string{"/bin/sleep", "infinity"}
	return pause.Write(c.pauseArchive())
}

func (c *Cluster) connect() error {
	config := &rest.Config{
		Host: c.Issuer,
		TLSClientConfig: rest.TLSClientConfig{
			CAFile:   c.CA,
			CertFile: filepath.Join(c.authority.folder, "admin.crt"),
			KeyFile:  filepath.Join(c.authority.folder, "admin.key"),
		},
		QPS:            -1, // no limit
		Proxy:          http.ProxyURL(nil),
		WarningHandler: rest.NoWarnings{}, // of deprecations in manifests that are not ours, for one
	}
	// Tests may use it where files cannot be read.
	if err := rest.LoadTLSFiles(config); err != nil {
		return fmt.Errorf("read the administrator's certificate: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	c.Config, c.Client = config, client
	return nil
}

// newMachine starts a machine that ends with the cluster.
func (c *Cluster) newMachine(name string) (*machine, error) {
	c.lock.Lock()
	keeper := c.keeper
	c.lock.Unlock()
	if keeper == nil {
		return nil, fmt.Errorf("start %s: the cluster has been stopped", name)
	}
	m, err := newMachine(name, filepath.Join(c.Logs, name), c.claim.lock, keeper, c.breakUp)
	if err != nil {
		return nil, err
	}
	c.onStop(m.stop)
	return m, nil
}

// StartBeside starts a command of this machine, outside of all nodes, that the kernel
// ends with this process. It is for the caller to end it before the cluster.
func (c *Cluster) StartBeside(command *exec.Cmd) error {
	c.lock.Lock()
	keeper := c.keeper
	c.lock.Unlock()
	if keeper == nil {
		return fmt.Errorf("start %s: the cluster has been stopped", command.Path)
	}
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := keeper.start(command); err != nil {
		return fmt.Errorf("start %s: %w", command.Path, err)
	}
	return nil
}

// onStop has stop called when the cluster ends, before all that was given earlier.
func (c *Cluster) onStop(stop func() error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.stops = append(c.stops, stop)
}

// Stop ends everything and removes all that the cluster made on this machine, but
// for [Options.Logs]. It returns an error if a part had ended by itself before. A
// second call does nothing.
func (c *Cluster) Stop() error {
	c.lock.Lock()
	stopped := c.keeper == nil
	c.lock.Unlock()
	if stopped {
		return nil
	}
	return errors.Join(c.failure(), c.stop(context.Background()))
}

// failure says which part ended unasked, if one did.
func (c *Cluster) failure() error { return context.Cause(c.broken) }

func (c *Cluster) stop(ctx context.Context) error {
	c.lock.Lock()
	stops, keeper := c.stops, c.keeper
	c.stops, c.keeper = nil, nil
	c.lock.Unlock()
	var errs []error
	for _, stop := range slices.Backward(stops) {
		errs = append(errs, stop())
	}
	keeper.close()
	errs = append(errs, c.claim.release(ctx), sweep(ctx)) // of what was still dying when this one started
	return errors.Join(errs...)
}

// report says that a part is ready.
func (c *Cluster) report(part string, began time.Time) {
	c.printing.Lock()
	defer c.printing.Unlock()
	_, _ = fmt.Fprintf(c.progress, "cluster: %s is ready after %.1f s, of which its own %.1f s\n",
		part, time.Since(c.began).Seconds(), time.Since(began).Seconds())
}
