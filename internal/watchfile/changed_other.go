//go:build !linux

package watchfile

import (
	"os"
	"time"
)

// changed is the time of the last write.
func changed(info os.FileInfo) time.Time { return info.ModTime() }
