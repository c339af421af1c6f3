package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// inMemory tells whether a folder is on a tmpfs or a ramfs.
func inMemory(folder string) bool {
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	var stat syscall.Statfs_t
	if err := syscall.Statfs(folder, &stat); err != nil {
		return false
	}
	kind := uint32(stat.Type) //nolint:gosec // signed or not, and how wide, depends on the architecture; magic numbers have 32 bits
	return kind == tmpfs || kind == ramfs
}

// lockFolder waits until no other keymount is about to replace a file beside this
// one. The lock ends with the process at the latest. A file system without locks
// leaves a short moment in which two of them can miss each other.
func lockFolder(file string) (unlock func()) {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return func() {}
	}
	for {
		if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			return func() { _ = folder.Close() }
		}
	}
}

// endWith makes cancellation reach a program and all that it started. On a
// terminal it has to stay in the shell's process group, or job control breaks.
func endWith(c *exec.Cmd, terminal bool) {
	if terminal {
		c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
		return
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
}
