package cli

import (
	"fmt"
	"syscall"
)

// mountTmpfs mounts a small tmpfs on folder, which takes CAP_SYS_ADMIN.
func mountTmpfs(folder string) (unmount func() error, err error) {
	if err := syscall.Mount("tmpfs", folder, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "size=8m,mode=0700"); err != nil {
		return nil, fmt.Errorf("mount a tmpfs: %w", err)
	}
	return func() error {
		// Detached, it goes even while a shell stands in it.
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", folder, err)
		}
		return nil
	}, nil
}
