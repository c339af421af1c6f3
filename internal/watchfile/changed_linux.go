package watchfile

import (
	"os"
	"syscall"
	"time"
)

// changed is the time of the last write or rename, by the kernel's clock: unlike the
// modification time it cannot be set back.
func changed(info os.FileInfo) time.Time {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix())
	}
	return info.ModTime()
}
