package pods_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// republishLimit is the kubelet's longest pause between two calls for a volume, with
// its default syncFrequency of a minute, and time to read and write.
const republishLimit = 100 * time.Second

// defaultRefresh is keymount's own, of the store steady.
const defaultRefresh = time.Minute

// A rotated secret reaches the file of a running container, on nodes of several
// settings at the same time, and nothing else changes. With the driver's interval of
// 0s it comes sooner than with its default, on the same kubelet.
func (s *suite) testRotation(t *testing.T) {
	t.Parallel()
	var lock sync.Mutex
	took := map[string]time.Duration{}
	t.Run("Nodes", func(t *testing.T) {
		for node, limit := range map[string]time.Duration{
			"recommended": 20 * time.Second,
			"fast":        20 * time.Second,
			"defaults-0s": republishLimit,
			"defaults":    defaultInterval + defaultRefresh + republishLimit,
		} {
			t.Run(node, func(t *testing.T) {
				t.Parallel()
				if s.cluster == nil && node != "defaults" {
					t.Skip("needs a node of this setting; run it without " + envKubeconfig)
				}
				long := s.rotate(t, node, limit)
				lock.Lock()
				defer lock.Unlock()
				took[node] = long
			})
		}
	})
	if quick, slow := took["defaults-0s"], took["defaults"]; s.cluster != nil && quick >= slow {
		t.Errorf("with rotationPollInterval=0s it took %s, and with the default %s", quick, slow)
	}
}

const rotated = `
store: %[2]s
role: e2e
objects: |
  - {path: secret/e2e/%[1]s/turns, key: password, file: turns}
  - {path: secret/e2e/%[1]s/stays, key: password, file: stays}
`

func (s *suite) rotate(t *testing.T, node string, limit time.Duration) (took time.Duration) {
	t.Helper()
	c := s.newScene(t, "rotation-"+node, node)
	s.put(t, "e2e/"+node+"/turns", map[string]any{"password": "fake-before"})
	s.put(t, "e2e/"+node+"/stays", map[string]any{"password": "fake-still"})
	store := "prod"
	if node == "defaults" && s.cluster != nil {
		store = "steady" // all of it at its defaults
	}
	c.class("app", fmt.Sprintf(rotated, node, store), "")
	c.running("app", "app")
	c.holds("turns", "fake-before", readyLimit)
	before, _ := c.statusObject("app", "app")
	started := c.incarnation("app")

	s.put(t, "e2e/"+node+"/turns", map[string]any{"password": "fake-after"})
	began := time.Now()
	c.holds("turns", "fake-after", limit)
	took = time.Since(began)
	s.report("rotation on node %s: seen in the container after %.1fs (limit %s)", node, took.Seconds(), limit)

	c.holds("stays", "fake-still", readyLimit)
	c.within(t, readyLimit, "the status object has the new version", func() error {
		if after, _ := c.statusObject("app", "app"); after["turns"] == before["turns"] {
			return errors.New("the version of turns is the old one")
		}
		return nil
	})
	after, _ := c.statusObject("app", "app")
	if after["stays"] != before["stays"] {
		t.Error("the version of the file that stays has changed")
	}
	if now := c.incarnation("app"); now != started {
		t.Errorf("the container was started again: %s, then %s", started, now)
	}
	return took
}

// incarnation says which container the pod's first one is, and how often it was started.
func (c *scene) incarnation(name string) string {
	c.t.Helper()
	status := c.pod(c.t, c.namespace, name).Status.ContainerStatuses[0]
	return fmt.Sprintf("%s, restarts: %d", status.ContainerID, status.RestartCount)
}

// Nothing is rewritten when nothing has changed.
func (s *suite) testStandstill(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "standstill", "recommended")
	s.put(t, "e2e/standstill", map[string]any{"password": "fake-1", "user": "fake-user"})
	c.class("app", `
store: prod
role: e2e
objects: |
  - {path: secret/e2e/standstill, file: ./}
  - {path: secret/e2e/standstill, format: json, file: all.json}
`, "")
	c.running("app", "app")
	c.republished("app", 1) // the first one may still be writing the status object
	versions, resourceVersion := c.statusObject("app", "app")
	folder := c.dataFolder("app")
	c.republished("app", 4) // when the fourth is answered, the third has been dealt with
	again, resourceVersionAgain := c.statusObject("app", "app")
	if diff := cmp.Diff(versions, again); diff != "" {
		t.Errorf("versions changed:\n%s", diff)
	}
	if resourceVersion != resourceVersionAgain {
		t.Errorf("the status object was rewritten: %s, then %s", resourceVersion, resourceVersionAgain)
	}
	if now := c.dataFolder("app"); now != folder {
		t.Errorf("the files were rewritten: %s, then %s", folder, now)
	}
}

// dataFolder is the folder that the driver made for the present content.
func (c *scene) dataFolder(pod string) string {
	c.t.Helper()
	link, err := c.exec(c.t, c.namespace, pod, "readlink", "/secrets/..data")
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(link)
}

// Kubernetes Secrets made of mounted files follow a rotation; and a changed template
// alone changes the file, its version and the Secret.
func (s *suite) testSyncedSecrets(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "synced", "fast")
	certificate, key := newCertificate(t)
	s.put(t, "e2e/synced/tls", map[string]any{"tls.crt": certificate, "tls.key": key})
	s.put(t, "e2e/synced/registry", map[string]any{"user": "fake-user", "password": "fake-1"})
	class := func(template string) {
		c.class("app", `
store: prod
role: e2e
objects: |
  - {path: secret/e2e/synced/tls, format: pem, file: tls/}
  - path: secret/e2e/synced/registry
    file: config.json
    template: '`+template+`'
`, `
secretObjects:
  - secretName: tls
    type: kubernetes.io/tls
    data: [{objectName: tls/tls.crt, key: tls.crt}, {objectName: tls/tls.key, key: tls.key}]
  - secretName: registry
    type: kubernetes.io/dockerconfigjson
    data: [{objectName: config.json, key: .dockerconfigjson}]
`)
	}
	class(`{"auths":{"registry.example":{"username":{{ .user | toJson }},"password":{{ .password | toJson }}}}}`)
	c.running("app", "app")
	const first = `{"auths":{"registry.example":{"username":"fake-user","password":"fake-1"}}}`
	c.synced("registry", ".dockerconfigjson", first)
	c.synced("tls", "tls.crt", certificate)
	for name, want := range map[string]core.SecretType{"registry": core.SecretTypeDockerConfigJson, "tls": core.SecretTypeTLS} {
		secret, err := c.CoreV1().Secrets(c.namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || secret.Type != want {
			t.Errorf("the Secret %s has type %q (%v), want %s", name, secret.Type, err, want)
		}
	}

	certificate, key = newCertificate(t)
	s.put(t, "e2e/synced/tls", map[string]any{"tls.crt": certificate, "tls.key": key})
	s.put(t, "e2e/synced/registry", map[string]any{"user": "fake-user", "password": "fake-2"})
	c.synced("tls", "tls.crt", certificate)
	c.synced("tls", "tls.key", key)
	c.synced("registry", ".dockerconfigjson", strings.Replace(first, "fake-1", "fake-2", 1))

	before, _ := c.statusObject("app", "app")
	class(`{"auths":{"other.example":{"username":{{ .user | toJson }},"password":{{ .password | toJson }}}}}`)
	const edited = `{"auths":{"other.example":{"username":"fake-user","password":"fake-2"}}}`
	c.holds("config.json", edited, time.Minute)
	c.synced("registry", ".dockerconfigjson", edited)
	after, _ := c.statusObject("app", "app")
	if after["config.json"] == before["config.json"] {
		t.Error("the template has changed and the version of its file has not")
	}
	if after["tls/tls.crt"] != before["tls/tls.crt"] {
		t.Error("the version of an untouched file has changed")
	}
}

// synced waits until a Kubernetes Secret holds the value.
func (c *scene) synced(secret, key, want string) {
	c.t.Helper()
	c.within(c.t, 90*time.Second, fmt.Sprintf("%s of the Secret %s is the new one", key, secret), func() error {
		got, ok := c.secret(secret)[key]
		if !ok {
			return errors.New("it is not there")
		}
		if got != want {
			return fmt.Errorf("it is %d bytes of another content", len(got))
		}
		return nil
	})
}
