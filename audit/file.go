package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// lockLimit is how long a file of another keymount is waited for: a rollout may start a
	// process before the one it replaces has ended.
	lockLimit = 10 * time.Second
	lockPause = 100 * time.Millisecond
	// fileMode lets no other user read the trail, which names secrets.
	fileMode = 0o600
	// maxUnsigned is more than the lines after the last checkpoint take.
	maxUnsigned = (checkpointRecords + 8) * (maxLine + 1)
)

// FileOptions are those of a [File].
type FileOptions struct {
	Path string
	// MaxSize in bytes and MaxAge are when a file is put aside and another begun, at the next
	// checkpoint.
	MaxSize int64
	MaxAge  time.Duration
	// Keep is how many files are kept that were put aside; 0 keeps all.
	Keep int
	// Always syncs every write to the disk; otherwise each checkpoint is.
	Always bool
	Now    func() time.Time
}

// File is a sink that rotates its file. Files put aside have the time and the number of
// their last checkpoint in their names: audit.jsonl becomes
// audit-20260102T150405Z-000000000042.jsonl.
type File struct {
	o     FileOptions
	lock  *os.File
	file  *os.File // nil after a failure to open it
	size  int64
	torn  bool // the file ends within a line of another process
	part  bool // the file ends within a line of this one
	began time.Time
	last  *Predecessor // in the file, or in the newest one put aside
}

// OpenFile opens the file, and waits for a while for the lock on it: path.lock.
func OpenFile(ctx context.Context, o FileOptions) (*File, error) {
	f := &File{o: o}
	if err := f.takeLock(ctx); err != nil {
		return nil, err
	}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, f.lock.Close())
	}
	var err error
	if f.last, err = f.findLast(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// takeLock keeps two processes from writing one file.
func (f *File) takeLock(ctx context.Context) error {
	var err error
	if f.lock, err = os.OpenFile(f.o.Path+".lock", os.O_CREATE|os.O_RDWR, fileMode); err != nil {
		return fmt.Errorf("audit.file: %w; keymount needs a folder that it may write to", err)
	}
	late := time.After(lockLimit)
	for {
		locked, err := flock(f.lock)
		switch {
		case err != nil:
			return fmt.Errorf("audit.file: lock %s: %w", f.lock.Name(), errors.Join(err, f.lock.Close()))
		case locked:
			return nil
		}
		select {
		case <-time.After(lockPause):
		case <-late:
			return errors.Join(fmt.Errorf("audit.file: another keymount writes %s; stop that one, or name another file", f.o.Path), f.lock.Close())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), f.lock.Close())
		}
	}
}

// open begins to append. Nothing is written yet: a full disk is no reason not to start.
func (f *File) open() error {
	file, err := os.OpenFile(f.o.Path, os.O_CREATE|os.O_RDWR|os.O_APPEND, fileMode)
	if err != nil {
		return fmt.Errorf("audit.file: %w", err)
	}
	about, err := file.Stat()
	if err == nil && !about.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", f.o.Path)
	}
	if err != nil {
		return fmt.Errorf("audit.file: %w", errors.Join(err, file.Close()))
	}
	f.file, f.size, f.began = file, about.Size(), f.o.Now()
	f.torn = f.size > 0 && !endsLine(file, f.size)
	return nil
}

func endsLine(file *os.File, size int64) bool {
	var last [1]byte
	_, err := file.ReadAt(last[:], size-1)
	return err == nil && last[0] == '\n'
}

// Last is the last checkpoint of the processes before; nil where there is none.
func (f *File) Last() *Predecessor { return f.last }

// findLast looks for the last checkpoint, in the file and in the newest one put aside.
func (f *File) findLast() (*Predecessor, error) {
	last, err := lastCheckpoint(f.file)
	if last != nil || err != nil {
		return last, err
	}
	aside, err := f.aside()
	if err != nil || len(aside) == 0 {
		return nil, err
	}
	newest, err := os.Open(aside[len(aside)-1])
	if err != nil {
		return nil, fmt.Errorf("audit.file: %w", err)
	}
	defer newest.Close() //nolint:errcheck // it was only read
	return lastCheckpoint(newest)
}

// lastCheckpoint reads a file from its end.
func lastCheckpoint(file *os.File) (*Predecessor, error) {
	about, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit.file: %w", err)
	}
	from := max(0, about.Size()-maxUnsigned)
	text, err := io.ReadAll(io.NewSectionReader(file, from, about.Size()-from))
	if err != nil {
		return nil, fmt.Errorf("audit.file: %w", err)
	}
	for _, line := range slices.Backward(bytes.Split(text, []byte("\n"))) {
		r, err := Read(line)
		if err != nil || r.Checkpoint == nil {
			continue
		}
		return &Predecessor{Boot: r.Boot, Hash: Hash(line), Number: r.Checkpoint.Number}, nil
	}
	return nil, nil //nolint:nilnil // none is no error
}

// aside are the files put aside, the oldest first.
func (f *File) aside() ([]string, error) {
	begin, end := f.nameParts()
	entries, err := os.ReadDir(filepath.Dir(f.o.Path))
	if err != nil {
		return nil, fmt.Errorf("audit.file: %w", err)
	}
	var names []string
	for _, e := range entries { // sorted by name, and so by time
		middle, ok := strings.CutPrefix(e.Name(), begin)
		if middle, ok2 := strings.CutSuffix(middle, end); ok && ok2 && isAside(middle) {
			names = append(names, filepath.Join(filepath.Dir(f.o.Path), e.Name()))
		}
	}
	return names, nil
}

// nameParts are what stands before and after the time in the name of a file put aside.
func (f *File) nameParts() (begin, end string) {
	base := filepath.Base(f.o.Path)
	end = filepath.Ext(base)
	return strings.TrimSuffix(base, end) + "-", end
}

const asideTime = "20060102T150405Z"

func isAside(middle string) bool {
	at, number, ok := strings.Cut(middle, "-")
	_, err := time.Parse(asideTime, at)
	return ok && err == nil && number != "" && strings.Trim(number, "0123456789") == ""
}

// Name implements [Sink].
func (f *File) Name() string { return f.o.Path }

// Write implements [Sink].
func (f *File) Write(lines []byte) (int, error) {
	if err := f.reopen(); err != nil {
		return 0, err
	}
	if f.torn { // what a killed process left is no record, and the next one has a line of its own
		if _, err := f.file.WriteString("\n"); err != nil {
			return 0, fmt.Errorf("audit.file: %w", err)
		}
		f.torn = false
	}
	n, err := f.file.Write(lines)
	if n > 0 {
		f.size += int64(n)
		f.part = lines[n-1] != '\n'
	}
	if err == nil && f.o.Always {
		err = f.file.Sync()
	}
	if err != nil {
		return n, fmt.Errorf("audit.file: %w", err)
	}
	return n, nil
}

// reopen follows its name, where another program has removed or renamed the file.
func (f *File) reopen() error {
	if f.file == nil {
		return f.open()
	}
	named, err := os.Stat(f.o.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("audit.file: %w", err)
	}
	open, failed := f.file.Stat()
	if err == nil && failed == nil && os.SameFile(named, open) {
		return nil
	}
	_ = f.file.Close() // what it took is written
	f.file = nil
	if err := f.open(); err != nil {
		return err
	}
	if f.part {
		f.part = false
		return errAnew
	}
	return nil
}

// Checkpoint implements [Sink].
func (f *File) Checkpoint(last Predecessor) error {
	if f.file == nil {
		return nil // nothing was written since
	}
	if err := f.file.Sync(); err != nil {
		return fmt.Errorf("audit.file: %w", err)
	}
	if age := f.o.Now().Sub(f.began); f.size < f.o.MaxSize && 0 <= age && age < f.o.MaxAge { // a clock may be set back
		return nil
	}
	return f.rotate(last.Number)
}

// rotate puts the file aside, and removes the oldest.
func (f *File) rotate(number int64) error {
	begin, end := f.nameParts()
	name := fmt.Sprintf("%s%s-%012d%s", begin, f.o.Now().UTC().Format(asideTime), number, end)
	if err := os.Rename(f.o.Path, filepath.Join(filepath.Dir(f.o.Path), name)); err != nil {
		return fmt.Errorf("audit.file: %w", err)
	}
	_ = f.file.Close() // it was synced
	f.file = nil
	aside, err := f.aside()
	if err != nil || f.o.Keep == 0 {
		return err
	}
	for _, old := range aside[:max(0, len(aside)-f.o.Keep)] {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("audit.file: %w", err)
		}
	}
	return nil
}

// Close implements [Sink].
func (f *File) Close() error {
	var err error
	if f.file != nil {
		err = f.file.Close()
	}
	return errors.Join(err, f.lock.Close())
}

// flock takes the lock of a file for this process; false where another has it.
func flock(file *os.File) (bool, error) {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
