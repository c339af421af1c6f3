package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

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

// endWith makes cancellation reach a program and its children. On a terminal it has to
// stay in the shell's process group, or job control breaks.
func endWith(c *exec.Cmd, terminal bool) {
	if terminal {
		c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
		return
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
}
