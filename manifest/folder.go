package manifest

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// ErrNoFiles is the error of [Read] for a folder without a file that it would read.
var ErrNoFiles = errors.New("the folder has no .yaml, .yml or .json file")

// isRead tells the files of a folder that are read by the ends of their names.
func isRead(path string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path))
}

// isSkipped tells the folders in a folder that are never read.
func isSkipped(entry fs.DirEntry) bool { return strings.HasPrefix(entry.Name(), ".") }

// Unread counts the folders below a folder that [Read] reads with deep alone. What cannot be
// looked into has none.
func Unread(folder string) int {
	with := map[string]bool{}
	_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil, entry.IsDir() && path != folder && isSkipped(entry):
			return filepath.SkipDir
		case !entry.IsDir() && path != folder && isRead(path):
			with[filepath.Dir(path)] = true
		}
		return nil
	})
	delete(with, filepath.Clean(folder))
	return len(with)
}
