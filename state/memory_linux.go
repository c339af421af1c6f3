package state

import "syscall"

// InMemory tells whether a folder is on a tmpfs or a ramfs.
func InMemory(folder string) bool {
	const tmpfs, ramfs = 0x01021994, 0x858458f6
	var stat syscall.Statfs_t
	if err := syscall.Statfs(folder, &stat); err != nil {
		return false
	}
	kind := uint32(stat.Type) //nolint:gosec // signed or not, and how wide, depends on the architecture; magic numbers have 32 bits
	return kind == tmpfs || kind == ramfs
}
