package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/keymount/keymount/e2e/cluster"
	"github.com/keymount/keymount/e2e/cluster/clustertest"
)

const busybox = "docker.io/library/busybox:1.37"

// pod says something, is ready for whoever probes it at its own address, and waits.
const pod = `
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: shell
    image: docker.io/library/busybox:1.37
    command: [sh, -c, "echo hello from $HOSTNAME; mkdir /www; echo ok > /www/ok; exec httpd -f -p 8080 -h /www"]
    readinessProbe: {httpGet: {path: /ok, port: 8080}, periodSeconds: 1}
`

// client is on the node's network, from where the API server can be reached.
const client = `
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - name: shell
    image: docker.io/library/busybox:1.37
    command: [sleep, infinity]
`

// TestBuild checks that every program is there. With cold caches building takes
// longer than a test may: `go run ./up -build` comes before.
func TestBuild(t *testing.T) {
	programs, err := cluster.Build(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{programs.Etcd, programs.APIServer, programs.ControllerManager, programs.Scheduler, programs.Kubelet, programs.Driver} {
		if _, err := os.Stat(program); err != nil {
			t.Error(err)
		}
	}
}

func TestPod(t *testing.T) {
	c := start(t, cluster.Options{
		Hosts: map[string]string{"vault.example": "127.0.0.9"},
		Nodes: []cluster.NodeOptions{{Labels: map[string]string{"example.org/disk": "fast"}, Images: []string{busyboxArchive(t)}}},
	})
	node := c.Nodes[0]
	if err := c.Apply(t.Context(), []byte(pod+"---"+client)); err != nil {
		t.Fatal(err)
	}
	waitReady(t, c, "shell")
	waitReady(t, c, "client")

	t.Run("labels", func(t *testing.T) {
		object, err := c.Client.CoreV1().Nodes().Get(t.Context(), node.Name, meta.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := object.Labels["example.org/disk"]; got != "fast" {
			t.Errorf("the node's label is %q, want fast", got)
		}
	})
	t.Run("exec", func(t *testing.T) {
		if got := execute(t, c, "shell", "cat", "/www/ok"); got != "ok\n" {
			t.Errorf("cat wrote %q, want ok", got)
		}
	})
	t.Run("log", func(t *testing.T) {
		log, err := c.Client.CoreV1().Pods("default").GetLogs("shell", &core.PodLogOptions{}).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if string(log) != "hello from shell\n" {
			t.Errorf("the log is %q, want a hello", log)
		}
	})
	t.Run("API server", func(t *testing.T) {
		const connect = `nc $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo https://$KUBERNETES_SERVICE_HOST`
		if got := strings.TrimSpace(execute(t, c, "client", "sh", "-c", connect)); got != c.Issuer {
			t.Errorf("connected to %q, want %s", got, c.Issuer)
		}
	})
	t.Run("hosts", func(t *testing.T) {
		if got := execute(t, c, "client", "cat", "/etc/hosts"); !strings.Contains(got, "127.0.0.9 vault.example") {
			t.Errorf("/etc/hosts is %q, want vault.example at 127.0.0.9", got)
		}
	})
	t.Run("processes", func(t *testing.T) {
		for _, program := range []string{"containerd", "kubelet", "secrets-store-csi-driver", "busybox"} {
			if pids, err := node.PIDs(program); err != nil || len(pids) == 0 {
				t.Errorf("%s has the PIDs %v (%v), want some", program, pids, err)
			}
		}
	})
	t.Run("stop", func(t *testing.T) { testStop(t, c) })
}

// testStop finds each kind of trace before the end of a cluster, and none after it.
func testStop(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	object, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "shell", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	address := object.Status.PodIP
	for kind, found := range traces(t, c, address) {
		if len(found) == 0 {
			t.Errorf("while it runs, no %s is found", kind)
		}
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	for kind, found := range traces(t, c, address) {
		for _, name := range found {
			t.Errorf("a %s is left: %s", kind, name)
		}
	}
	for _, name := range mounts(t) {
		if strings.HasPrefix(name, c.Folder) || strings.HasPrefix(name, "/var/lib/kubelet") {
			t.Errorf("a mount is left: %s", name)
		}
	}
}

func TestControlPlaneAlone(t *testing.T) {
	c := start(t, cluster.Options{})
	t.Run("audit log", func(t *testing.T) {
		log, err := os.ReadFile(c.Audit)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(log, []byte(`"level":"Metadata"`)) {
			t.Error("no request in the audit log")
		}
	})
	t.Run("issuer", func(t *testing.T) {
		var discovered struct {
			Issuer string `json:"issuer"`
			Keys   string `json:"jwks_uri"`
		}
		ask(t, c, c.Issuer+"/.well-known/openid-configuration", &discovered)
		if discovered.Issuer != c.Issuer {
			t.Errorf("the issuer calls itself %q, want %q", discovered.Issuer, c.Issuer)
		}
		var set struct {
			Keys []any `json:"keys"`
		}
		ask(t, c, discovered.Keys, &set)
		if len(set.Keys) == 0 {
			t.Errorf("no keys at %s", discovered.Keys)
		}
	})
}

// ask reads a document of the API server as nobody in particular.
func ask(t *testing.T, c *cluster.Cluster, url string, into any) {
	t.Helper()
	authority, err := os.ReadFile(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s (%v)", url, response.Status, err)
	}
}

// start starts a cluster that ends with the test.
func start(t *testing.T, options cluster.Options) *cluster.Cluster {
	t.Helper()
	return clustertest.Start(clustertest.Context(t), t, options)
}

func busyboxArchive(t *testing.T) string {
	t.Helper()
	image, err := cluster.Busybox(busybox)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "busybox.tar")
	if err := image.Write(name); err != nil {
		t.Fatal(err)
	}
	return name
}

func waitReady(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch, err := c.Client.CoreV1().Pods("default").Watch(ctx, meta.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	for event := range watch.ResultChan() {
		object, ok := event.Object.(*core.Pod)
		if !ok {
			t.Fatalf("watch pods: %v", event.Object)
		}
		for _, condition := range object.Status.Conditions {
			if condition.Type == core.PodReady && condition.Status == core.ConditionTrue {
				return
			}
		}
	}
	events, err := c.Client.CoreV1().Events("default").List(t.Context(), meta.ListOptions{FieldSelector: "involvedObject.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range events.Items {
		t.Log(event.Reason, event.Message)
	}
	t.Fatalf("the pod %s is not ready; its events are above", name)
}

// execute runs a command in a pod and returns what it writes.
func execute(t *testing.T, c *cluster.Cluster, name string, command ...string) string {
	t.Helper()
	request := c.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name(name).SubResource("exec").
		VersionedParams(&core.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(c.Config, "GET", request.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	if err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: &stderr}); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, &stderr)
	}
	return out.String()
}
