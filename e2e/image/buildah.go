package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// noRegistry keeps buildah from asking anybody for an image.
const noRegistry = `unqualified-search-registries = ["docker.io"]
short-name-mode = "disabled"
[[registry]]
prefix = "docker.io"
blocked = true
`

// storage is a place of buildah's own, with nothing in it at first.
type storage struct{ folder string }

// openStorage checks that building is possible here before it makes the place.
func openStorage() (storage, error) {
	if os.Geteuid() != 0 {
		return storage{}, errors.New("building an image takes mounts: run this as root")
	}
	for _, program := range []string{"buildah", "git"} { // Debian's packages have the same names
		if _, err := exec.LookPath(program); err != nil {
			return storage{}, fmt.Errorf("%s is not there; on Debian: apt-get install --no-install-recommends %s", program, program)
		}
	}
	folder, err := os.MkdirTemp("", "keymount-image-")
	if err != nil {
		return storage{}, fmt.Errorf("make a place for buildah: %w", err)
	}
	s := storage{folder}
	if err := os.WriteFile(s.path("registries.conf"), []byte(noRegistry), 0o600); err != nil {
		return storage{}, errors.Join(fmt.Errorf("make a place for buildah: %w", err), s.close())
	}
	return s, nil
}

// close removes everything; the vfs driver mounts nothing.
func (s storage) close() error {
	if err := os.RemoveAll(s.folder); err != nil {
		return fmt.Errorf("remove buildah's place: %w", err)
	}
	return nil
}

func (s storage) path(name string) string { return filepath.Join(s.folder, name) }

// buildah runs one of its commands and returns what that printed as its result.
func (s storage) buildah(ctx context.Context, args ...string) (result string, err error) {
	global := []string{"--root", s.path("root"), "--runroot", s.path("run"), "--storage-driver", "vfs"}
	//nolint:gosec // G204: buildah, with arguments of this package
	command := exec.CommandContext(ctx, "buildah", append(global, args...)...)
	command.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "TMPDIR="+s.folder, "CONTAINERS_REGISTRIES_CONF="+s.path("registries.conf"))
	return run(command)
}

// run runs a command, which ends with its context and with this process, and so
// does all that it starts. When it fails, the error has all that it printed.
func run(command *exec.Cmd) (result string, err error) {
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 10 * time.Second
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", command, err, out.Bytes(), errOut.Bytes())
	}
	return strings.TrimSpace(out.String()), nil
}
