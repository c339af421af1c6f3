package bundle

import (
	"os"
	"syscall"
	"time"
)

// changed is when the file was last written or renamed, by the kernel's clock:
// unlike the modification time nobody can set it back.
func changed(info os.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return info.ModTime()
}
