package bundle

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/keymount/keymount/internal/secret"
)

const (
	// maxIdentity is the size in bytes of the largest identity file.
	maxIdentity = 1 << 20
	// settled is how old a change must be before stat can be trusted to show the
	// next one: file systems stamp with clocks that tick every few milliseconds
	// to a second, so two writes in one tick look like one.
	settled = time.Second
)

// source is one file as it was read.
type source struct {
	path  string
	stamp os.FileInfo  // of before the read, so that a write in between shows; nil when there was none
	racy  bool         // the stamp is too young to be trusted
	data  secret.Bytes // the identity is one, too
	sum   [sha256.Size]byte
	err   error
}

// wrongFileError says that a file can be read and is not to be.
type wrongFileError string

func (e wrongFileError) Error() string { return string(e) }

// read reads a file of at most limit bytes. Failures are in the source.
func (b *Bundle) read(path string, limit int64) source {
	s := source{path: path}
	before := b.now()
	if s.stamp, s.err = os.Stat(path); s.err != nil {
		return s
	}
	s.racy = before.Sub(changed(s.stamp)) < settled
	var data []byte
	if data, s.err = readRegular(path, limit); s.err == nil {
		s.data, s.sum = secret.New(data), sha256.Sum256(data)
	}
	return s
}

// readRegular opens without blocking: a FIFO would wait for a writer.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, wrongFileError("is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, wrongFileError(fmt.Sprintf("is larger than %d MiB", limit>>20))
	}
	return data, nil
}

// fresh tells whether the file is surely the one that was read. A failure is
// never fresh: what causes it may be outside the file.
func (s source) fresh() bool {
	if s.err != nil || s.racy {
		return false
	}
	info, err := os.Stat(s.path)
	return err == nil && os.SameFile(s.stamp, info) && s.stamp.Size() == info.Size() &&
		s.stamp.ModTime().Equal(info.ModTime()) && changed(s.stamp).Equal(changed(info))
}

// same tells whether another read brought the same: the same bytes or the same failure.
func (s source) same(other source) bool {
	if s.err != nil || other.err != nil {
		return s.err != nil && other.err != nil && s.err.Error() == other.err.Error()
	}
	return s.sum == other.sum
}
