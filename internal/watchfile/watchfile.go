// Package watchfile tells whether a file has changed since it was read. It asks the file
// system at each use and needs no watcher, and so notices in-place writes, atomic replaces,
// and the symlink swaps of ConfigMap and Secret volumes.
package watchfile

import (
	"os"
	"time"
)

// settled is the age of a change from which stat is sure to show the next one: file systems
// stamp with clocks that tick every few milliseconds to a second, so two writes in one tick
// look like one.
const settled = time.Second

// Stamp is the state of a file at a Look. The zero Stamp is of no file.
type Stamp struct {
	path  string
	info  os.FileInfo // nil for none
	young bool        // info may not show the next change, because the last one is too recent
}

// Look stamps the file that path leads to, through symbolic links. Look before reading, so
// that a write in between shows; now is the time before the look, by the machine's clock.
func Look(path string, now time.Time) (Stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Stamp{}, err //nolint:wrapcheck // it names the file
	}
	return Stamp{path: path, info: info, young: now.Sub(changed(info)) < settled}, nil
}

// Unchanged tells whether path is sure to lead to the same file with the same content: the
// same device, inode, size and times. It is false for a zero or too young stamp; read the
// file again and compare.
func (s Stamp) Unchanged() bool {
	if s.info == nil || s.young {
		return false
	}
	info, err := os.Stat(s.path)
	return err == nil && os.SameFile(s.info, info) && s.info.Size() == info.Size() &&
		s.info.ModTime().Equal(info.ModTime()) && changed(s.info).Equal(changed(info))
}
