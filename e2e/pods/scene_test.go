package pods_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/keymount/keymount/e2e/image"
)

// readyLimit bounds how long a pod may take whose secrets can be read.
const readyLimit = 90 * time.Second

// scene is a namespace with a service account, a class and pods that mount it.
type scene struct {
	*kube
	t         *testing.T
	namespace string
	node      string // where its pods run; any when empty
	provider  string
}

// newScene makes the namespace e2e-name, which keymount.yaml lets read.
func (s *suite) newScene(t *testing.T, name, node string) *scene {
	t.Helper()
	return s.newSceneIn(t, "e2e-"+name, node)
}

func (s *suite) newSceneIn(t *testing.T, namespace, node string) *scene {
	t.Helper()
	c := &scene{kube: s.kube, t: t, namespace: namespace, node: s.nodeName(node), provider: "keymount"}
	s.newNamespace(t, namespace)
	s.apply(t, fmt.Sprintf("{apiVersion: v1, kind: ServiceAccount, metadata: {name: app, namespace: %s}}", namespace))
	return c
}

// class makes or changes a class. parameters and more are lines of YAML, more
// beside them.
func (c *scene) class(name, parameters, more string) {
	c.t.Helper()
	c.apply(c.t, fmt.Sprintf(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: %s, namespace: %s}
spec:
  provider: %s
  parameters:
%s
%s
`, name, c.namespace, c.provider, indent(parameters, 4), indent(more, 2)))
}

// atStart is what a container writes first: how its volume is mounted, see
// volumeMounted, and what it finds there.
const atStart = `grep ' /secrets ' /proc/self/mountinfo; echo files: $(ls -A /secrets); exec sleep 1000000`

// start makes a pod that mounts the class at /secrets.
func (c *scene) start(name, class string) {
	c.t.Helper()
	c.startAs(name, class, "app")
}

func (c *scene) startAs(name, class, serviceAccount string) {
	c.t.Helper()
	selector := "{}"
	if c.node != "" {
		selector = "{kubernetes.io/hostname: " + c.node + "}"
	}
	c.apply(c.t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  serviceAccountName: %s
  terminationGracePeriodSeconds: 0
  nodeSelector: %s
  tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]
  containers:
    - name: app
      image: %s
      command: [sh, -c, "%s"]
      volumeMounts: [{name: secrets, mountPath: /secrets, readOnly: true}]
  volumes:
    - name: secrets
      csi: {driver: secrets-store.csi.k8s.io, readOnly: true, volumeAttributes: {secretProviderClass: %s}}
`, name, c.namespace, serviceAccount, selector, image.BusyboxImage, atStart, class))
}

// running makes the pod and waits until it runs.
func (c *scene) running(name, class string) {
	c.t.Helper()
	c.start(name, class)
	c.ready(c.t, c.namespace, name, readyLimit)
}

// read is a file as a process in the container reads it.
func (c *scene) read(pod, file string) (string, error) {
	c.t.Helper()
	return c.exec(c.t, c.namespace, pod, "cat", "/secrets/"+file)
}

// holds waits until the file of the pod app has the content.
func (c *scene) holds(file, content string, limit time.Duration) {
	c.t.Helper()
	c.within(c.t, limit, fmt.Sprintf("%s is %q", file, content), func() error {
		got, err := c.read("app", file)
		if err == nil && got != content {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// statusObject is where the driver writes what is mounted.
func (c *scene) statusObject(pod, class string) (versions map[string]string, resourceVersion string) {
	c.t.Helper()
	kind := schema.GroupVersionKind{Group: "secrets-store.csi.x-k8s.io", Version: "v1", Kind: "SecretProviderClassPodStatus"}
	resource, err := c.applier.Resource(kind, c.namespace)
	if err != nil {
		c.t.Fatal(err)
	}
	object, err := resource.Get(c.t.Context(), pod+"-"+c.namespace+"-"+class, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	list, _, err := unstructured.NestedSlice(object.Object, "status", "objects")
	if err != nil {
		c.t.Fatal(err)
	}
	versions = map[string]string{}
	for _, one := range list {
		entry, ok := one.(map[string]any)
		if !ok {
			c.t.Fatalf("status.objects holds %v", one)
		}
		versions[fmt.Sprint(entry["id"])] = fmt.Sprint(entry["version"])
	}
	return versions, object.GetResourceVersion()
}

// secret is a Kubernetes Secret's data.
func (c *scene) secret(name string) map[string]string {
	c.t.Helper()
	data := map[string]string{}
	secret, err := c.CoreV1().Secrets(c.namespace).Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	for key, value := range secret.Data {
		data[key] = string(value)
	}
	return data
}

// tells waits until an event of the pod app holds all the texts.
func (c *scene) tells(texts ...string) {
	c.t.Helper()
	c.within(c.t, time.Minute, fmt.Sprintf("an event says %q", texts), func() error {
		events := c.events(c.t, c.namespace, "app")
		for _, event := range events {
			if holdsAll(event, texts) {
				return nil
			}
		}
		return fmt.Errorf("events: %s", strings.Join(events, "\n"))
	})
}

func holdsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

func indent(text string, spaces int) string {
	if strings.TrimSpace(text) == "" {
		return ""
	}
	margin := strings.Repeat(" ", spaces)
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i, line := range lines {
		lines[i] = margin + line
	}
	return strings.Join(lines, "\n")
}
