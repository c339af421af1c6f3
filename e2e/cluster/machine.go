package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// searchPath is where the programs of a machine find others: mount, runc, a shim.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// machine stands for a computer: a PID and a mount namespace with an init. When
// the init ends, and it ends with this process in any case, the kernel ends all
// processes of the machine and undoes its mounts.
type machine struct {
	name   string
	logs   string   // folder on the host
	lock   *os.File // of the cluster's number, which is free when all processes have ended
	init   *process
	failed func(error) // called when one of its processes ends unasked
}

// newMachine starts a machine that sees the host's files and shares none of its
// mounts from now on.
func newMachine(name, logs string, lock *os.File, keeper *keeper, failed func(error)) (*machine, error) {
	m := &machine{name: name, logs: logs, lock: lock, failed: failed}
	// The kernel reaps the orphans that fall to a parent who ignores SIGCHLD.
	init := exec.Command("/bin/sh", "-c", `trap "" CHLD; exec sleep infinity`) //nolint:noctx // it ends by stop
	init.Env = []string{searchPath}
	init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNS, // and syscall makes all mounts private
		Pdeathsig:    syscall.SIGKILL,
	}
	var err error
	m.init, err = startProcess("init of "+name, filepath.Join(logs, "init.log"), init, lock, keeper.start, failed)
	if err != nil {
		return nil, fmt.Errorf("%w (namespaces need a machine of their own or a privileged container)", err)
	}
	return m, nil
}

// stop ends all that runs in the machine and waits for that.
func (m *machine) stop() error { return m.init.kill() }

// root is the machine's "/" as the host sees it, with all that is mounted below.
func (m *machine) root() string {
	return filepath.Join("/proc", strconv.Itoa(m.init.pid()), "root")
}

// do calls f on a thread that has the machine's files and whose children are born
// in the machine. In f there is no /proc/self.
func (m *machine) do(f func() error) error {
	return onThread(func() error {
		if err := m.enter(); err != nil {
			return fmt.Errorf("enter %s: %w", m.name, err)
		}
		return f()
	})
}

// enter takes the calling thread into the machine.
func (m *machine) enter() error {
	select {
	case <-m.init.done: // the PID may be somebody else's by now
		return errors.New("it has been stopped")
	default:
	}
	var spaces []*os.File
	for _, kind := range []string{"mnt", "pid"} {
		space, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", m.init.pid(), kind))
		if err != nil {
			return err
		}
		defer func() { _ = space.Close() }() // only a handle
		spaces = append(spaces, space)
	}
	// Threads that share their root folder cannot change the mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	for _, space := range spaces {
		if err := unix.Setns(int(space.Fd()), 0); err != nil {
			return os.NewSyscallError("setns", err)
		}
	}
	return nil
}

// start runs a program in the machine until it is killed or the machine stopped.
func (m *machine) start(name, program string, env []string, args ...string) (*process, error) {
	command := exec.Command(program, args...) //nolint:gosec,noctx // G204: one of the cluster's; it ends by kill
	command.Env = append([]string{searchPath}, env...)
	start := func(command *exec.Cmd) error { return m.do(command.Start) }
	return startProcess(name+" of "+m.name, filepath.Join(m.logs, name+".log"), command, m.lock, start, m.unlessStopped)
}

// unlessStopped passes on that a process ended, which all do with the machine.
func (m *machine) unlessStopped(failure error) {
	if !m.init.wanted.Load() {
		m.failed(failure)
	}
}

// run runs a program in the machine to its end.
func (m *machine) run(ctx context.Context, stdin io.Reader, program string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, program, args...) //nolint:gosec // G204: what the caller wants
	command.Env, command.Stdin, command.Stdout, command.Stderr = []string{searchPath}, stdin, &stdout, &stderr
	err := m.do(command.Start)
	if err == nil {
		err = command.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("run %s in %s: %w\n%s", filepath.Base(program), m.name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
