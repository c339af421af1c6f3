package cluster_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/keymount/keymount/e2e/cluster"
)

// traces is what a cluster has on this machine: what each kind of thing is called,
// and those that are there. Others may run clusters of their own at the same time.
func traces(t *testing.T, c *cluster.Cluster, podIP string) map[string][]string {
	t.Helper()
	return map[string][]string{
		"folder":            matches(t, c.Folder),
		"cgroup":            matches(t, "/sys/fs/cgroup/*/"+filepath.Base(c.Folder), "/sys/fs/cgroup/"+filepath.Base(c.Folder)),
		"network interface": interfaces(t, podIP),
		"process":           descendants(t, os.Getpid()),
	}
}

func matches(t *testing.T, patterns ...string) (found []string) {
	t.Helper()
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	return found
}

// interfaces are those to the pods of the node that a pod is on.
func interfaces(t *testing.T, podIP string) (found []string) {
	t.Helper()
	pod, err := netip.ParseAddr(podIP)
	if err != nil {
		t.Fatal(err)
	}
	pods := netip.PrefixFrom(pod, 24)
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		addresses, _ := one.Addrs() // it may have gone by now
		for _, address := range addresses {
			if prefix, err := netip.ParsePrefix(address.String()); err == nil && pods.Masked().Contains(prefix.Addr()) {
				found = append(found, one.Name)
			}
		}
	}
	return found
}

// descendants are the processes that a process started, and those that they did.
func descendants(t *testing.T, pid int) (found []string) {
	t.Helper()
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range children {
		content, _ := os.ReadFile(name) // the thread may have ended by now
		for field := range strings.FieldsSeq(string(content)) {
			command, _ := os.ReadFile("/proc/" + field + "/comm")
			found = append(found, field+" "+strings.TrimSpace(string(command)))
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, descendants(t, child)...)
		}
	}
	return found
}

// mounts are all that this process sees. Those of machines are never among them.
func mounts(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		found = append(found, strings.Fields(line)[4])
	}
	return found
}
