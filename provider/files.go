package provider

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// checkFile holds a path against the driver's own rules, which it enforces only
// after the secrets were read, in Validate and in its atomic writer.
func checkFile(path string) error {
	const maxPath, maxElement = 4096, 255
	switch {
	case path == "":
		return errors.New("is empty")
	case strings.HasPrefix(path, "/"):
		return fmt.Errorf("%q is absolute; it starts at the root of the mount, write it without the slash", path)
	case len(path) > maxPath:
		return fmt.Errorf("%d bytes are more than a path may have (%d)", len(path), maxPath)
	case strings.HasPrefix(path, ".."):
		return fmt.Errorf("%q starts with two dots, which the driver keeps to itself", path)
	case strings.ContainsRune(path, 0):
		return fmt.Errorf("%q holds a NUL", path)
	}
	for element := range strings.SplitSeq(path, "/") {
		switch {
		case element == "" || element == "." || element == "..":
			return fmt.Errorf("%q is not a clean path; write it without empty, \".\" and \"..\" parts", path)
		case len(element) > maxElement:
			return fmt.Errorf("a name of %d bytes is more than a file may have (%d)", len(element), maxElement)
		}
	}
	return nil
}

// checkKeyAsFile is checkFile for a key that becomes a file's name.
func checkKeyAsFile(key, path string) error {
	if strings.Contains(key, "/") {
		return errors.New("it holds a slash")
	}
	if !utf8.ValidString(key) {
		return errors.New("it is not UTF-8")
	}
	return checkFile(path)
}

// checkClashes finds objects that want the same file, or a file where another
// wants a folder. What is in a folder of keys is known only after reading.
// field is what the class calls the file.
func checkClashes(objects []Object, field string, m *mistakes) {
	var taken layout
	for _, o := range objects {
		if o.File == "" {
			continue
		}
		var err error
		if o.Folder {
			err = taken.addFolder(o.File, o.Index)
		} else {
			err = taken.addFile(o.File, o.Index)
		}
		if err != nil {
			m.add("objects[%d]: %s: %w", o.Index, field, err)
		}
	}
}

// layout is the tree of files of a mount, and which object put them there.
type layout struct {
	files   map[string]int
	folders map[string]int
}

func (l *layout) addFile(path string, object int) error {
	if first, ok := l.files[path]; ok {
		return fmt.Errorf("%q is also written by objects[%d]", path, first)
	}
	if first, ok := l.folders[path]; ok {
		return fmt.Errorf("%q is a folder for objects[%d]", path, first)
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		if err := l.addFolder(path[:i], object); err != nil {
			return err
		}
	}
	if l.files == nil {
		l.files = map[string]int{}
	}
	l.files[path] = object
	return nil
}

func (l *layout) addFolder(path string, object int) error {
	if path == "." {
		return nil
	}
	for end := range len(path) + 1 {
		if end < len(path) && path[end] != '/' {
			continue
		}
		if first, ok := l.files[path[:end]]; ok {
			return fmt.Errorf("%q is a file of objects[%d] and cannot be a folder, too", path[:end], first)
		}
		if l.folders == nil {
			l.folders = map[string]int{}
		}
		if _, ok := l.folders[path[:end]]; !ok {
			l.folders[path[:end]] = object
		}
	}
	return nil
}
