package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Folders of a node.
const (
	kubeletRoot = "/var/lib/kubelet"
	providers   = "/var/run/secrets-store-csi-providers"
	podLogs     = "/var/log/pods"
	cniConfig   = "/etc/cni/net.d"
)

// emptied are the folders whose content on this machine is not a node's business.
func emptied() []string {
	return []string{
		"/run", "/tmp", "/var/log", "/var/lib/cni", "/var/lib/containerd", kubeletRoot,
		"/etc/cni", "/etc/containerd", "/etc/kubernetes",
	}
}

// tunables are what the kubelet and the CNI plugins set of the kernel, as they
// want it. A node shows them these instead: the kernel is this machine's.
func tunables() map[string]string {
	return map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
		"net/ipv4/ip_forward":       "1",
	}
}

// root is what a node sees as "/".
type root struct {
	scratch string            // folder of this machine that a node mounts its memory on
	shared  map[string]string // folders of this machine by their path in the node
	files   map[string][]byte // of the node's own
}

// mount puts r in the place of m's "/": a copy of this machine's files, of which
// nobody else sees a change, that is gone with the machine.
func (r root) mount(ctx context.Context, m *machine) error {
	if err := os.MkdirAll(r.scratch, 0o700); err != nil {
		return fmt.Errorf("make the root of %s: %w", m.name, err)
	}
	if err := m.do(r.assemble); err != nil {
		return fmt.Errorf("make the root of %s: %w", m.name, err)
	}
	if _, err := m.run(ctx, nil, "mount", "-t", "proc", "proc", "/proc"); err != nil {
		return err
	}
	if err := m.do(coverTunables); err != nil {
		return fmt.Errorf("make the root of %s: %w", m.name, err)
	}
	return nil
}

// assemble runs in the machine.
func (r root) assemble() error {
	if err := unix.Mount("tmpfs", r.scratch, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount memory: %w", err)
	}
	upper, work, top := filepath.Join(r.scratch, "upper"), filepath.Join(r.scratch, "work"), filepath.Join(r.scratch, "root")
	for _, name := range []string{upper, work, top} {
		if err := os.Mkdir(name, 0o755); err != nil { //nolint:gosec // G301: it becomes "/"
			return err
		}
	}
	if err := unix.Mount("overlay", top, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("mount a copy of this machine's files: %w", err)
	}
	for _, name := range emptied() {
		if err := mountAt(filepath.Join(top, name), "tmpfs", "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	if err := r.fill(top); err != nil {
		return err
	}
	return enterRoot(top)
}

// fill gives a new root what it does not share a copy of.
func (r root) fill(top string) error {
	if err := os.Chmod(filepath.Join(top, "tmp"), fs.ModeSticky|0o777); err != nil {
		return err
	}
	for _, name := range []string{"/dev", "/sys"} {
		if err := mountAt(filepath.Join(top, name), name, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	for name, source := range r.shared {
		// /var/run is a link to /run on this machine, and there is no "/" to follow it from yet.
		name = strings.Replace(name, "/var/run/", "/run/", 1)
		if err := mountAt(filepath.Join(top, name), source, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	for name, content := range r.files {
		name = filepath.Join(top, name)
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be a link to nowhere
			return err
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // G301: as folders of /etc are
			return err
		}
		if err := os.WriteFile(name, content, 0o644); err != nil { //nolint:gosec // G306: as files of /etc are
			return err
		}
	}
	return nil
}

// mountAt makes the folder that it mounts on.
func mountAt(target, source, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // G301: as folders of a root are
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// enterRoot makes top the "/" of the whole mount namespace, and mounts in it
// shared, as they are on a machine that systemd has set up.
func enterRoot(top string) error {
	old := filepath.Join(top, "mnt")
	if err := unix.PivotRoot(top, old); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/mnt", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return nil
}

// coverTunables runs in the machine.
func coverTunables() error {
	for name, value := range tunables() {
		file := filepath.Join("/run/tunables", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // G301: as in /proc/sys
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		if err := unix.Mount(file, filepath.Join("/proc/sys", name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", name, err)
		}
	}
	return nil
}

// mountPoints are those of a process's mounts that lie below folder.
func mountPoints(pid int, folder string) ([]string, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], strings.TrimSuffix(folder, "/")+"/") {
			found = append(found, fields[4])
		}
	}
	slices.Sort(found)
	return found, nil
}
