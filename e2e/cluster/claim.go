package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// claimed is the folder of the cluster with a number, short enough for the names
// of sockets below it. Who holds its lock has the number, and with it addresses
// and a cgroup that no other cluster of this machine has.
const claimed = "/tmp/keymount-e2e-%d"

// mostClusters is how many can run on a machine at a time.
const mostClusters = 32

// mostNodes is how many nodes a cluster can have.
const mostNodes = 16

// claim is a number and what belongs to it.
type claim struct {
	number int
	folder string
	lock   *os.File // the folder
}

var errTaken = errors.New("taken")

// newClaim takes the first free number, and removes what clusters have left whose
// process was killed.
func newClaim(ctx context.Context) (*claim, error) {
	if err := sweep(ctx); err != nil {
		return nil, err
	}
	for number := range mostClusters {
		c, err := takeClaim(number)
		if !errors.Is(err, errTaken) {
			return c, err
		}
	}
	return nil, fmt.Errorf("%d clusters run already: all of %s are locked", mostClusters, fmt.Sprintf(claimed, 0)+"…")
}

// sweep removes all clusters that nobody holds.
func sweep(ctx context.Context) error {
	var errs []error
	for number := range mostClusters {
		if _, err := os.Lstat(fmt.Sprintf(claimed, number)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		c, err := takeClaim(number)
		if err == nil {
			err = c.release(ctx)
		}
		if !errors.Is(err, errTaken) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// takeClaim takes a number unless another process has it.
func takeClaim(number int) (*claim, error) {
	c := &claim{number: number, folder: fmt.Sprintf(claimed, number)}
	if err := os.Mkdir(c.folder, 0o711); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // G301: pods that are not root reach files in it
		return nil, fmt.Errorf("make the cluster's folder: %w", err)
	}
	lock, err := os.OpenFile(c.folder, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errTaken // and given back in this moment
	}
	if err != nil {
		return nil, fmt.Errorf("open the cluster's folder: %w", err)
	}
	c.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(errTaken, lock.Close())
	}
	// Between open and lock, another process may have removed the folder.
	opened, openedErr := lock.Stat()
	there, thereErr := os.Lstat(c.folder)
	if err := errors.Join(openedErr, thereErr); err != nil || !os.SameFile(opened, there) || !ours(there) {
		return nil, errors.Join(errTaken, lock.Close())
	}
	return c, nil
}

// ours says whether a folder of /tmp was not put there by another user.
func ours(folder fs.FileInfo) bool {
	stat, ok := folder.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// release removes all that the processes of the cluster, which have ended, leave,
// and gives the number back.
func (c *claim) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return errors.Join(
		poll(ctx, "wait for the end of the pods' network interfaces", c.noInterfaces),
		poll(ctx, "remove the cgroups", func(context.Context) error { return removeCgroups(c.cgroup()) }),
		os.RemoveAll(c.folder), // before the lock goes with its descriptor
		c.lock.Close(),
	)
}

// noInterfaces is an error while there is an interface to a pod of the cluster. The
// kernel removes it, a moment after the pod's network namespace.
func (c *claim) noInterfaces(context.Context) error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the network interfaces: %w", err)
	}
	for _, one := range interfaces {
		addresses, _ := one.Addrs() // none when it has gone by now
		for _, address := range addresses {
			prefix, err := netip.ParsePrefix(address.String())
			if err == nil && c.allPods().Contains(prefix.Addr()) {
				return fmt.Errorf("%s is still there", one.Name)
			}
		}
	}
	return nil
}

// cgroup is the path of the cluster's cgroup in every hierarchy.
func (c *claim) cgroup() string { return fmt.Sprintf("/keymount-e2e-%d", c.number) }

// service is the address of the cluster's service with a number. All of 127.0.0.0/8
// is this machine's, so where a service would need kube-proxy, who is meant can
// simply listen: the API server does, on the service "kubernetes".
func (c *claim) service(number int) string { return fmt.Sprintf("127.%d.0.%d", 100+c.number, number) }

// services is the range of the addresses of services.
func (c *claim) services() string { return c.service(0) + "/24" }

// node is the address and the name of a node.
func (c *claim) node(index int) string { return fmt.Sprintf("127.%d.1.%d", 100+c.number, 1+index) }

// control is the address of the control plane's inner parts.
func (c *claim) control() string { return fmt.Sprintf("127.%d.255.1", 100+c.number) }

// allPods is the range of the cluster's pods, in one that is for benchmarks of
// networks (RFC 2544) and so nobody's network.
func (c *claim) allPods() netip.Prefix { return netip.PrefixFrom(c.pods(0).Addr(), 20) }

// pods is the range of the pods of a node.
func (c *claim) pods(index int) netip.Prefix {
	subnet := c.number*mostNodes + index
	return netip.MustParsePrefix(fmt.Sprintf("198.%d.%d.0/24", 18+subnet/256, subnet%256))
}
