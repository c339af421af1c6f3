package class

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
)

// checkFile checks a path by the driver's own rules. The driver enforces them only
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
	if err := spelling.Plain(path); err != nil {
		return err
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

// CheckKey checks a key of a secret, which becomes the name of the file at path, by
// the rules for files of a class.
func CheckKey(key, path string) error {
	if strings.Contains(key, "/") {
		return errors.New("it holds a slash")
	}
	if !utf8.ValidString(key) {
		return errors.New("it is not UTF-8")
	}
	return checkFile(path)
}

// checkClashes finds objects with the same file, or with a file where another has a
// folder. The files in a folder of keys are known only after reading. field is the
// dialect's name of the file.
func checkClashes(objects []Object, nodes []*yaml.Node, field string, m *mistakes) {
	var taken Layout
	for _, o := range objects {
		if o.File == "" {
			continue
		}
		var err error
		if o.Folder {
			err = taken.addFolder(o.File, o.Index)
		} else {
			err = taken.AddFile(o.File, o.Index)
		}
		if err != nil {
			m.add(inText(o.Index, field, fieldOf(nodes[o.Index], field)), Clash, "%s: %w", field, err)
		}
	}
}

// fieldOf is the value of an object's field, or the object.
func fieldOf(object *yaml.Node, field string) *yaml.Node {
	for i := 0; i+1 < len(object.Content); i += 2 {
		if object.Content[i].Value == field {
			return object.Content[i+1]
		}
	}
	return object
}

// Layout is the tree of files of a mount, with the object of each.
type Layout struct {
	files   map[string]int
	folders map[string]int
}

// NewLayout is empty, and has room for so many files.
func NewLayout(files int) *Layout { return &Layout{files: make(map[string]int, files)} }

// AddFile puts an object's file into the tree. Its error names the object in the way.
func (l *Layout) AddFile(path string, object int) error {
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

func (l *Layout) addFolder(path string, object int) error {
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
