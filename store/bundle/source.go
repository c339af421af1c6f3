package bundle

import (
	"crypto/sha256"

	"github.com/keymount/keymount/internal/regular"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/watchfile"
)

// maxIdentity is the size in bytes of the largest identity file.
const maxIdentity = 1 << 20

// source is one file as read.
type source struct {
	stamp watchfile.Stamp // from before the read
	data  secret.Bytes    // the identity is a secret, too
	sum   [sha256.Size]byte
	err   error
}

// read reads a file of at most limit bytes. Failures are in the source.
func (b *Bundle) read(path string, limit int64) source {
	var s source
	if s.stamp, s.err = watchfile.Look(path, b.now()); s.err != nil {
		return s
	}
	var data []byte
	if data, s.err = regular.Read(path, limit); s.err == nil {
		s.data, s.sum = secret.New(data), sha256.Sum256(data)
	}
	return s
}

// fresh tells whether the file is surely the one read. A failure is never fresh: its
// cause may be outside the file.
func (s source) fresh() bool { return s.err == nil && s.stamp.Unchanged() }

// same tells whether another read brought the same: the same bytes or the same failure.
func (s source) same(other source) bool {
	if s.err != nil || other.err != nil {
		return s.err != nil && other.err != nil && s.err.Error() == other.err.Error()
	}
	return s.sum == other.sum
}
