package pods_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/e2e/cluster"
)

// A pod that may not read does not start, and its events say why, in keymount's
// words: the kubelet's event of the first mount and keymount's own.
func (s *suite) testDenials(t *testing.T) {
	t.Parallel()
	s.put(t, "e2e/denied", map[string]any{"password": "fake-1"})
	const class = `
store: prod
role: e2e
objects: "[{path: secret/e2e/denied, key: password, file: password}]"
`
	const (
		stranger = `service account %s/app may not use store "prod" with role "e2e"; no rule under access of that store in keymount.yaml allows it`
		other    = `service account %s/other may not use store "prod" with role "e2e"`
	)
	for _, test := range []struct{ name, namespace, serviceAccount, node, class, want string }{
		{"another namespace", "stranger", "app", "recommended", class, stranger},
		{"another namespace, defaults", "stranger-defaults", "app", "defaults", class, stranger},
		{"another service account", "e2e-account", "other", "recommended", class, other},
		{"another service account, defaults", "e2e-account-defaults", "other", "defaults", class, other},
		{
			"another path", "e2e-path", "app", "recommended", strings.ReplaceAll(class, "e2e/denied", "blog/db"),
			`service account %s/app may not read "secret/blog/db" of store "prod" with role "e2e"`,
		},
		{
			"no such secret", "e2e-missing", "app", "recommended", strings.ReplaceAll(class, "e2e/denied", "e2e/none"),
			`objects[0]: secret "secret/e2e/none" of store "prod"`,
		},
		{"a mistake of the class", "e2e-mistake", "app", "recommended", strings.ReplaceAll(class, "file:", "fiel:"), `did you mean "file"?`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := s.newSceneIn(t, test.namespace, test.node)
			c.apply(t, fmt.Sprintf("{apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: %s}}", c.namespace))
			c.class("app", test.class, "")
			c.startAs("app", "app", test.serviceAccount)
			want := strings.ReplaceAll(test.want, "%s", test.namespace)
			c.tells("FailedMount: ", want)
			c.tells("SecretMountFailed: ", want)
			noneStarts(t, watched, c)
		})
	}
}

// A running pod whose secret has gone keeps its files, and its owner is told: the
// driver answers the kubelet with OK.
func (s *suite) testRotationFails(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "gone", "recommended")
	s.put(t, "e2e/gone", map[string]any{"password": "fake-1"})
	const class = `
store: prod
role: e2e
objects: "[{path: secret/e2e/gone, key: password, file: password}]"
`
	c.class("app", class, "")
	c.running("app", "app")
	s.drop(t, "e2e/gone")
	c.tells("SecretRotationFailed: the files stay as they are: ", `secret "secret/e2e/gone" of store "prod"`, "not found")
	c.class("app", strings.ReplaceAll(class, "e2e/gone", "blog/db"), "")
	c.tells("SecretRotationFailed: ", `may not read "secret/blog/db"`) // the same event, with other words
	c.holds("password", "fake-1", readyLimit)
	c.class("app", class, "")
	s.put(t, "e2e/gone", map[string]any{"password": "fake-2"})
	c.tells("SecretMountRecovered: ")
	c.holds("password", "fake-2", time.Minute)
}

// Nothing of a pod stays on the node when it is gone.
func (s *suite) testNothingStays(t *testing.T) {
	t.Parallel()
	node := s.ownNode(t, "recommended")
	c := s.newScene(t, "nothing-stays", "recommended")
	s.put(t, "e2e/stays", map[string]any{"password": "fake-nothing-may-stay"})
	c.class("app", `
store: prod
role: e2e
objects: "[{path: secret/e2e/stays, key: password, file: password}]"
`, "")
	c.running("app", "app")
	uid := string(c.pod(t, c.namespace, "app").UID)
	if mounts, err := node.Mounts(podsFolder); err != nil || !slices.ContainsFunc(mounts, func(mount string) bool {
		return strings.Contains(mount, uid) && strings.Contains(mount, "/kubernetes.io~csi/secrets/")
	}) {
		t.Fatalf("the volume of the running pod is not among the mounts %q (%v): this test cannot tell anything", mounts, err)
	}
	c.remove(t, c.namespace, "app")
	c.within(t, time.Minute, "the node has no mount and no folder of the pod", func() error { return left(t, node, uid) })
}

// podsFolder is where a kubelet keeps what belongs to pods.
const podsFolder = "/var/lib/kubelet/pods"

// left is the error that a node has a mount or a folder of a pod.
func left(t *testing.T, node *cluster.Node, uid string) error {
	t.Helper()
	mounts, err := node.Mounts(podsFolder)
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range mounts {
		if strings.Contains(mount, uid) {
			return fmt.Errorf("%s is mounted", mount)
		}
	}
	if _, err := os.Lstat(filepath.Join(node.KubeletRoot, "pods", uid)); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(errors.New("the pod's folder is there"), err)
	}
	return nil
}
