package pods_test

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree reads all files of the volume, and their modes.
func (c *scene) tree(pod string) (files, modes map[string]string) {
	c.t.Helper()
	const walk = `cd /secrets && find -L . -path './..*' -prune -o -type f -print | while read -r f; do echo "$f $(stat -L -c %a "$f") $(base64 -w 0 <"$f")"; done`
	out, err := c.exec(c.t, c.namespace, pod, "sh", "-c", walk)
	if err != nil {
		c.t.Fatal(err)
	}
	files, modes = map[string]string{}, map[string]string{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			c.t.Fatalf("cannot read %q", line)
		}
		path := strings.TrimPrefix(fields[0], "./")
		modes[path] = fields[1]
		content, err := base64.StdEncoding.DecodeString(strings.Join(fields[2:], ""))
		if err != nil {
			c.t.Fatal(err)
		}
		files[path] = string(content)
	}
	return files, modes
}

// volumeMounted fits the line of /proc/self/mountinfo for a volume that is there: the
// whole of a tmpfs, read-only. An empty mount is a folder of the node's disk, which
// may itself be a tmpfs: its line has the folder's path in place of the first slash.
var volumeMounted = regexp.MustCompile(`(?m)^\d+ \d+ \d+:\d+ / /secrets ro[, ].* - tmpfs `)

// readOnlyTmpfs checks that the volume is in memory and that nobody can change it.
func (c *scene) readOnlyTmpfs(pod string) {
	c.t.Helper()
	mount, err := c.exec(c.t, c.namespace, pod, "grep", " /secrets ", "/proc/self/mountinfo")
	if err != nil || !volumeMounted.MatchString(mount) {
		c.t.Errorf("the volume is mounted as %q (%v), want a read-only tmpfs of its own", mount, err)
	}
	for _, command := range []string{"echo x >/secrets/new", "rm -rf /secrets/..data", "mkdir /secrets/folder", "mount -o remount,rw /secrets"} {
		if out, err := c.exec(c.t, c.namespace, pod, "sh", "-c", command); err == nil {
			c.t.Errorf("%s works: %s", command, out)
		}
	}
}

// The lines of a volume and of a folder of the node in its place, as they were seen.
func TestVolumeMounted(t *testing.T) {
	for line, want := range map[string]bool{
		"1432 1420 0:115 / /secrets ro,relatime - tmpfs tmpfs rw":                                                                   true,
		"1432 1420 0:76 /pods/8c1e/volumes/kubernetes.io~csi/secrets/mount /secrets ro,relatime - tmpfs tmpfs rw,mode=755":          false,
		"1432 1420 8:1 /var/lib/kubelet/pods/8c1e/volumes/kubernetes.io~csi/secrets/mount /secrets ro,relatime - ext4 /dev/sda1 rw": false,
		"1432 1420 0:115 / /secrets rw,relatime - tmpfs tmpfs rw":                                                                   false,
		"1432 1420 8:1 / /secrets ro,relatime - ext4 /dev/sda1 rw":                                                                  false,
	} {
		if volumeMounted.MatchString(line) != want {
			t.Errorf("%q is taken for a volume: %t", line, !want)
		}
	}
}

// Versions of Vault's secrets, a pinned one beside the latest, and two stores in one
// class.
func (s *suite) testVault(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "vault", "fast")
	s.put(t, "e2e/vault", map[string]any{"password": "fake-1"})
	s.put(t, "e2e/vault", map[string]any{"password": "fake-2"})
	c.class("app", `
store: prod
role: e2e
objects: |
  - {path: secret/e2e/vault, key: password, file: latest}
  - {path: secret/e2e/vault, key: password, file: pinned, version: 1}
  - {path: forms/one-value/db, key: user, file: user, store: default}
`, "")
	c.running("app", "app")
	files, _ := c.tree("app")
	if diff := cmp.Diff(map[string]string{"latest": "fake-2", "pinned": "fake-1", "user": "shop"}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// Existing classes of the Vault provider, on vault.sock.
func (s *suite) testVaultDialect(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "dialect", "fast")
	c.provider = "vault"
	s.put(t, "e2e/dialect", map[string]any{"password": "fake-1"})
	c.class("app", fmt.Sprintf(`
vaultAddress: %s
roleName: e2e
objects: |
  - objectName: password
    secretPath: secret/data/e2e/dialect
    secretKey: password
`, s.vaultAddress), "")
	c.running("app", "app")
	c.holds("password", "fake-1", readyLimit)
}
