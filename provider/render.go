package provider

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// File is one file of the answer.
type File struct {
	Path     string
	Mode     int32
	Store    string // that the content is from
	Contents secret.Bytes
}

// Render makes the files of a mount, sorted by path. values holds the secret of
// each object by its index; an object without one is optional and absent. It is
// pure: the same input gives the same files.
func Render(objects []Object, values map[int]store.Value) ([]File, error) {
	var r rendering
	var failures []error
	for i, o := range objects {
		value, ok := values[i]
		if !ok {
			continue
		}
		if err := r.object(o, value); err != nil {
			failures = append(failures, fmt.Errorf("objects[%d]: secret %q of store %q: %w", o.Index, o.Path, o.Store, err))
		}
	}
	slices.SortFunc(r.files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return r.files, errors.Join(failures...)
}

// rendering gathers the files of one mount.
type rendering struct {
	files []File
	taken layout
}

func (r *rendering) object(o Object, value store.Value) error {
	if o.Key != "" {
		return r.key(o, value)
	}
	return r.allKeys(o, value)
}

func (r *rendering) key(o Object, value store.Value) error {
	part, err := value.Data.Get(o.Key)
	switch {
	case err != nil && o.Optional:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w; check the key, or say optional: true", store.ErrNotFound, err)
	}
	return r.write(o, o.File, part)
}

func (r *rendering) allKeys(o Object, value store.Value) error {
	keys := value.Data.Keys()
	if keys == nil {
		return fmt.Errorf("%w: it is not a map of keys to values; name a key", store.ErrInvalid)
	}
	var failures []error
	for _, key := range keys {
		failures = append(failures, r.childOf(o, value, key))
	}
	return errors.Join(failures...)
}

func (r *rendering) childOf(o Object, value store.Value, key string) error {
	path := key
	if o.File != "." {
		path = o.File + "/" + key
	}
	if err := checkKeyAsFile(key, path); err != nil {
		return fmt.Errorf("%w: key %q cannot be a file: %w", store.ErrInvalid, key, err)
	}
	part, _ := value.Data.Child(key)
	return r.write(o, path, part)
}

func (r *rendering) write(o Object, path string, part secret.Tree) error {
	if err := r.taken.addFile(path, o.Index); err != nil {
		return fmt.Errorf("%w: file %w", store.ErrInvalid, err)
	}
	contents, err := part.Text()
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	r.files = append(r.files, File{Path: path, Mode: o.Mode, Store: o.Store, Contents: contents})
	return nil
}
