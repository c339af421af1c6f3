package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	pauseImage = "docker.io/keymount-e2e/pause:1" // holds a pod's namespaces
	cniPlugins = "/usr/lib/cni"                   // where Debian puts them
)

// NodeOptions say what one node is like. The zero value is good.
type NodeOptions struct {
	Labels           map[string]string
	SyncFrequency    time.Duration // of the kubelet, for a pod's volumes among others; 0 is its default, a minute
	RotationInterval time.Duration // of the driver; 0 is 0s, with which it asks the provider whenever the kubelet asks it
	Images           []string      // files for [Node.Import]
}

// Node is a running node. Its methods can be called at the same time, but for
// those that restart a part.
type Node struct {
	Name         string // of the Node object and an address in 127.0.0.0/8, where the kubelet listens
	Root         string // its "/" as this machine sees it, with all that is mounted below
	KubeletRoot  string // its /var/lib/kubelet, likewise
	Providers    string // its /var/run/secrets-store-csi-providers: a folder of this machine, and short
	DriverSocket string // the driver's CSI socket, as this machine sees it
	Logs         string // folder with the log of each part, and with those of pods in pods/

	cluster *Cluster
	machine *machine
	index   int
	options NodeOptions

	lock         sync.Mutex
	parts        map[string]*process // by name
	registration *registration
}

// nextNode is the number of a node to come.
func (c *Cluster) nextNode() int {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.nodes++
	return c.nodes - 1
}

// newNode makes a node on which nothing runs.
func (c *Cluster) newNode(ctx context.Context, index int, options NodeOptions) (*Node, error) {
	if index >= mostNodes {
		return nil, fmt.Errorf("start a node: there are %d, and there cannot be more", index)
	}
	name := c.claim.node(index)
	m, err := c.newMachine(name)
	if err != nil {
		return nil, err
	}
	n := &Node{
		Name:         name,
		Root:         m.root(),
		KubeletRoot:  filepath.Join(m.root(), kubeletRoot),
		Providers:    filepath.Join(c.Folder, name, "providers"),
		DriverSocket: filepath.Join(m.root(), driverSocket),
		Logs:         m.logs,
		cluster:      c,
		machine:      m,
		index:        index,
		options:      options,
		parts:        map[string]*process{},
	}
	return n, n.setUp(ctx)
}

// setUp gives the node its files.
func (n *Node) setUp(ctx context.Context) error {
	for _, name := range []string{n.Providers, n.podLogs()} {
		if err := os.MkdirAll(name, 0o755); err != nil { //nolint:gosec // G301: as on a node
			return fmt.Errorf("make a folder of %s: %w", n.Name, err)
		}
	}
	files, err := n.files()
	if err != nil {
		return fmt.Errorf("configure %s: %w", n.Name, err)
	}
	programs := filepath.Dir(n.cluster.programs.Kubelet)
	driver := filepath.Dir(n.cluster.programs.Driver)
	root := root{
		scratch: filepath.Join(n.cluster.Folder, n.Name, "root"),
		shared: map[string]string{
			providers:                  n.Providers,
			podLogs:                    n.podLogs(),
			programs:                   programs,
			driver:                     driver,
			n.cluster.authority.folder: n.cluster.authority.folder,
		},
		files: files,
	}
	return root.mount(ctx, n.machine)
}

func (n *Node) podLogs() string { return filepath.Join(n.Logs, "pods") }

// files are the node's configuration.
func (n *Node) files() (map[string][]byte, error) {
	network, err := json.Marshal(map[string]any{
		"cniVersion": "0.4.0",
		"name":       "pods",
		"plugins": []any{map[string]any{
			"type": "ptp",
			"ipam": map[string]any{
				"type":   "host-local",
				"ranges": []any{[]any{map[string]any{"subnet": n.cluster.claim.pods(n.index).String()}}},
				"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	kubelet, err := json.Marshal(n.kubeletConfiguration())
	if err != nil {
		return nil, err
	}
	hosts := []string{"127.0.0.1 localhost\n"}
	for name, address := range n.cluster.hosts {
		hosts = append(hosts, address+" "+name+"\n")
	}
	return map[string][]byte{
		cniConfig + "/10-pods.conflist": network,
		"/etc/containerd/config.toml":   []byte(containerdConfiguration),
		"/etc/kubernetes/kubelet.json":  kubelet,
		"/etc/hosts":                    []byte(strings.Join(hosts, "")),
		"/etc/resolv.conf":              []byte("# nothing leaves this machine\n"),
	}, nil
}

// The machine may lack the right to make processes less likely to be killed when
// memory is short (CAP_SYS_RESOURCE), as containers of a machine's do.
const containerdConfiguration = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "` + cniPlugins + `"
  conf_dir = "` + cniConfig + `"
`

func (n *Node) kubeletConfiguration() map[string]any {
	return map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  n.Name,
		"healthzPort":              0,
		"authentication":           map[string]any{"x509": map[string]any{"clientCAFile": n.cluster.CA}},
		"containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               n.cgroup(),
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"enforceNodeAllocatable":   []string{},
		// The disk is everybody's, and images come from nowhere else.
		"evictionHard":                map[string]any{"memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
		"imageGCHighThresholdPercent": 100,
		"makeIPTablesUtilChains":      false,
		"oomScoreAdj":                 0,
		"podLogsDir":                  podLogs,
		"resolvConf":                  "/etc/resolv.conf",
		"syncFrequency":               n.options.SyncFrequency.String(), // 0s is the default
	}
}

func (n *Node) cgroup() string { return n.cluster.claim.cgroup() + "/" + n.Name }

// startNode starts a node: the kubelet when the API is up, the driver when its
// objects are complete.
func (c *Cluster) startNode(ctx context.Context, index int, options NodeOptions, up, complete <-chan struct{}) (*Node, error) {
	began := time.Now()
	n, err := c.newNode(ctx, index, options)
	if err != nil {
		return nil, err
	}
	if err := n.startRuntime(ctx); err != nil {
		return nil, err
	}
	if err := wait(ctx, up); err != nil {
		return nil, err
	}
	if err := n.startKubelet(); err != nil {
		return nil, err
	}
	if err := wait(ctx, complete); err != nil {
		return nil, err
	}
	if err := n.startDriver(ctx, options.RotationInterval); err != nil {
		return nil, err
	}
	if err := n.register(ctx); err != nil {
		return nil, err
	}
	if err := poll(ctx, "wait for "+n.Name+" to be ready (the kubelet's log: "+n.log("kubelet")+")", n.ready); err != nil {
		return nil, err
	}
	c.report("node "+n.Name, began)
	return n, nil
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (n *Node) log(part string) string { return filepath.Join(n.Logs, part+".log") }

// start starts a part of the node.
func (n *Node) start(part, program string, env []string, args ...string) error {
	p, err := n.machine.start(part, program, env, args...)
	if err != nil {
		return err
	}
	n.lock.Lock()
	defer n.lock.Unlock()
	n.parts[part] = p
	return nil
}

// startRuntime starts containerd and gives it images.
func (n *Node) startRuntime(ctx context.Context) error {
	program, err := exec.LookPath("containerd")
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	if err := n.start("containerd", program, nil); err != nil {
		return err
	}
	err = poll(ctx, "wait for containerd of "+n.Name, func(ctx context.Context) error {
		_, err := n.Run(ctx, "ctr", "--connect-timeout=1s", "version")
		return err
	})
	if err != nil {
		return err
	}
	for _, image := range append([]string{n.cluster.pauseArchive()}, n.options.Images...) {
		if err := n.Import(ctx, image); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) pauseArchive() string { return filepath.Join(c.Folder, "pause.tar") }

// Import gives the node an image of a file, such as [Image.Write] makes. Pods must
// not have it pulled: imagePullPolicy IfNotPresent or Never.
func (n *Node) Import(ctx context.Context, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	if _, err := n.machine.run(ctx, file, "ctr", "--namespace=k8s.io", "images", "import", "-"); err != nil {
		return fmt.Errorf("import the image %s: %w", name, err)
	}
	return nil
}

// Run runs a program of this machine in the node, to its end, and returns what it
// wrote to standard output.
func (n *Node) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	return n.machine.run(ctx, nil, program, args...)
}

// startKubelet starts the kubelet.
func (n *Node) startKubelet() error {
	if err := makeCgroup(n.cgroup()); err != nil {
		return fmt.Errorf("start kubelet of %s: %w", n.Name, err)
	}
	kubeconfig, err := n.cluster.authority.kubeconfig("kubelet-"+n.Name, identity{user: "system:node:" + n.Name, groups: []string{"system:nodes"}})
	if err != nil {
		return err
	}
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(n.options.Labels)) {
		labels = append(labels, name+"="+n.options.Labels[name])
	}
	return n.start("kubelet", n.cluster.programs.Kubelet, nil,
		"--config=/etc/kubernetes/kubelet.json", "--kubeconfig="+kubeconfig,
		"--hostname-override="+n.Name, "--node-labels="+strings.Join(labels, ","))
}

// ready is an error while pods cannot use the node.
func (n *Node) ready(ctx context.Context) error {
	node, err := n.cluster.Client.CoreV1().Nodes().Get(ctx, n.Name, meta.GetOptions{})
	if err != nil {
		return err
	}
	at := slices.IndexFunc(node.Status.Conditions, func(one core.NodeCondition) bool { return one.Type == core.NodeReady })
	if at < 0 {
		return errors.New("its kubelet has not reported yet")
	}
	if condition := node.Status.Conditions[at]; condition.Status != core.ConditionTrue {
		return fmt.Errorf("it is not: %s", condition.Message)
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("it has the taint %s", node.Spec.Taints[0].Key)
	}
	drivers, err := n.cluster.Client.StorageV1().CSINodes().Get(ctx, n.Name, meta.GetOptions{})
	if err != nil {
		return err
	}
	for _, driver := range drivers.Spec.Drivers {
		if driver.Name == DriverName {
			return nil
		}
	}
	return errors.New("the driver is not registered")
}

// Kill ends a part of the node by SIGKILL: "containerd", "kubelet" or "driver". The pods go on.
func (n *Node) Kill(part string) error {
	n.lock.Lock()
	p := n.parts[part]
	n.lock.Unlock()
	if p == nil {
		return fmt.Errorf("kill %s of %s: it does not run", part, n.Name)
	}
	return p.kill()
}

// Mounts are the mount points below a folder of the node, such as /var/lib/kubelet/pods.
func (n *Node) Mounts(folder string) ([]string, error) {
	return mountPoints(n.machine.init.pid(), folder)
}

// PIDs are this machine's numbers of the processes of the node, those in
// containers too, whose program has that file name.
func (n *Node) PIDs(program string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the processes of %s: %w", n.Name, err)
	}
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// Whoever has ended by now has no links.
		file, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		if filepath.Base(file) == program && n.has(pid) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// has says whether a process descends from one of the node's.
func (n *Node) has(pid int) bool {
	own := map[int]bool{n.machine.init.pid(): true}
	n.lock.Lock()
	for _, part := range n.parts {
		own[part.pid()] = true
	}
	n.lock.Unlock()
	for pid > 1 {
		if own[pid] {
			return true
		}
		pid = parent(pid)
	}
	return false
}

// parent is the number of a process's parent, or 0 when it has ended.
func parent(pid int) int {
	status, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			number, _ := strconv.Atoi(strings.TrimSpace(value))
			return number
		}
	}
	return 0
}
