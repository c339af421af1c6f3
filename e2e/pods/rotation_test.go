package pods_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A rotated secret reaches the file of a running container, on nodes of several
// settings at the same time, and nothing else changes.
func (s *suite) testRotation(t *testing.T) {
	t.Parallel()
	for _, setting := range []struct {
		node  string
		limit time.Duration
	}{
		{"recommended", 20 * time.Second},
		{"fast", 20 * time.Second},
		{"defaults", defaultInterval + s.refresh + 100*time.Second},
	} {
		t.Run(setting.node, func(t *testing.T) {
			t.Parallel()
			s.rotate(t, setting.node, setting.limit)
		})
	}
}

const rotated = `
store: prod
role: e2e
objects: |
  - {path: secret/e2e/%[1]s/turns, key: password, file: turns}
  - {path: secret/e2e/%[1]s/stays, key: password, file: stays}
`

func (s *suite) rotate(t *testing.T, node string, limit time.Duration) {
	t.Helper()
	c := s.newScene(t, "rotation-"+node, node)
	s.put(t, "e2e/"+node+"/turns", map[string]any{"password": "fake-before"})
	s.put(t, "e2e/"+node+"/stays", map[string]any{"password": "fake-still"})
	c.class("app", fmt.Sprintf(rotated, node), "")
	c.running("app", "app")
	c.holds("turns", "fake-before", readyLimit)
	before, _ := c.statusObject("app", "app")
	started := c.pod0("app")

	s.put(t, "e2e/"+node+"/turns", map[string]any{"password": "fake-after"})
	began := time.Now()
	c.holds("turns", "fake-after", limit)
	s.report("rotation on node %s: seen in the container after %.1fs (limit %s)", node, time.Since(began).Seconds(), limit)

	c.holds("stays", "fake-still", readyLimit)
	within(t, readyLimit, "the status object has the new version", func() error {
		if after, _ := c.statusObject("app", "app"); after["turns"] == before["turns"] {
			return errors.New("the version of turns is the old one")
		}
		return nil
	})
	after, _ := c.statusObject("app", "app")
	if after["stays"] != before["stays"] {
		t.Error("the version of the file that stays has changed")
	}
	if now := c.pod0("app"); now != started {
		t.Errorf("the container was started again: %s, then %s", started, now)
	}
}

// pod0 says when the pod's first container was started, and how often.
func (c *scene) pod0(name string) string {
	c.t.Helper()
	status := c.kube.pod(c.t, c.namespace, name).Status.ContainerStatuses[0]
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
	c.republished("app", 3)
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

// republished waits until keymount has answered n more mounts of the pod.
func (c *scene) republished(pod string, n int) {
	c.t.Helper()
	before := c.mounts(pod)
	within(c.t, 3*time.Minute, fmt.Sprintf("%s is mounted %d more times", pod, n), func() error {
		if now := c.mounts(pod); now < before+n {
			return fmt.Errorf("%d of %d", now-before, n)
		}
		return nil
	})
}

// mounts counts the answered mounts of a pod, by keymount's log.
func (c *scene) mounts(pod string) int {
	c.t.Helper()
	count := 0
	for _, keymount := range c.keymounts(c.t) {
		for line := range strings.Lines(c.logs(c.t, keymount.Namespace, keymount.Name)) {
			if holdsAll(line, []string{`"rpc":"Mount"`, `"namespace":"` + c.namespace + `"`, `"pod":"` + pod + `"`, `"code":"OK"`}) {
				count++
			}
		}
	}
	return count
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
	within(c.t, 90*time.Second, fmt.Sprintf("%s of the Secret %s is the new one", key, secret), func() error {
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
