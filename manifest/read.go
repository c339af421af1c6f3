package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Read reads the named files, and every .yaml, .yml and .json in a folder, in the order of
// their names; with deep also in the folders below. A file that is named twice, by one name
// or by two, is read once. Its error is about a file that cannot be read at all.
func Read(names []string, deep bool, stdin io.Reader) ([]*File, error) {
	r := reading{deep: deep, stdin: stdin, seen: map[sized][]*File{}}
	for _, name := range names {
		if err := r.read(name); err != nil {
			return nil, err
		}
	}
	return r.files, nil
}

// Same tells whether two files are one, whatever their names.
func (f *File) Same(other *File) bool {
	if f.info != nil && other.info != nil {
		return os.SameFile(f.info, other.info)
	}
	return f.Name == other.Name
}

// reading gathers files.
type reading struct {
	deep  bool
	stdin io.Reader
	files []*File
	seen  map[sized][]*File
}

// sized finds files that may be the same among many.
type sized struct{ bytes, changed int64 }

func (r *reading) read(name string) error {
	if name == Stdin {
		return r.readStdin()
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", name, errors.Unwrap(err))
	case !info.IsDir():
		return r.open(filepath.Clean(name))
	}
	return r.readFolder(name)
}

func (r *reading) readStdin() error {
	if slices.ContainsFunc(r.files, func(f *File) bool { return f.Name == StdinName && f.info == nil }) {
		return nil
	}
	f, err := readFrom(StdinName, r.stdin)
	r.files = append(r.files, f)
	return err
}

func (r *reading) readFolder(name string) error {
	isEmpty := true
	err := filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != name && (!r.deep || isSkipped(entry)):
			return filepath.SkipDir
		case entry.IsDir() || !isRead(path):
			return nil
		}
		isEmpty = false
		return r.open(path)
	})
	if err == nil && isEmpty {
		err = fmt.Errorf("read %s: %w", name, ErrNoFiles)
	}
	return err
}

// open reads a file that was not read before.
func (r *reading) open(name string) error {
	opened, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, errors.Unwrap(err))
	}
	defer func() { _ = opened.Close() }() // nothing was written
	info, err := opened.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", name, errors.Unwrap(err))
	}
	key, this := sized{info.Size(), info.ModTime().UnixNano()}, &File{info: info}
	if slices.ContainsFunc(r.seen[key], this.Same) {
		return nil
	}
	f, err := readFrom(name, opened)
	if err != nil {
		return err
	}
	f.info = info
	r.seen[key], r.files = append(r.seen[key], f), append(r.files, f)
	return nil
}

func readFrom(name string, from io.Reader) (*File, error) {
	text, err := io.ReadAll(io.LimitReader(from, maxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case len(text) > maxBytes:
		return nil, fmt.Errorf("read %s: the file has more than %d MiB", name, maxBytes>>20)
	}
	return Parse(name, text), nil
}
