// Package regular reads files that keymount.yaml names. A file of that name may be anything,
// such as a pipe without a writer or a device without an end.
package regular

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// WrongFile refuses a file that is there. It is within an [fs.PathError].
type WrongFile string

func (e WrongFile) Error() string { return string(e) }

// Read reads a regular file of at most this many bytes.
func Read(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for a writer
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	if !info.Mode().IsRegular() {
		return nil, wrong(path, "is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	if int64(len(data)) > most {
		return nil, wrong(path, "is larger than "+sized(most))
	}
	return data, nil
}

func sized(bytes int64) string {
	if bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}

func wrong(path, why string) error { return &fs.PathError{Op: "read", Path: path, Err: WrongFile(why)} }
