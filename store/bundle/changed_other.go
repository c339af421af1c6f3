//go:build !linux

package bundle

import (
	"os"
	"time"
)

// changed is when the file was last written.
func changed(info os.FileInfo) time.Time { return info.ModTime() }
