package convert

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// here is the file of an object that makes one for each key of its secret.
const here = "./"

// part keeps the files of a class apart. A key that several objects make is that of the last
// one, as in the old tool's Secret. Which keys a folder has the input does not tell: where
// others make files beside it, or another folder, it gets a place of its own.
func (cl *draft) part() {
	cl.entries = cl.lastOfEach()
	for i := range cl.entries {
		e := &cl.entries[i]
		if e.file != here || i == len(cl.entries)-1 && !cl.hasFiles() {
			continue // of folders alone the last one wins
		}
		e.file = cl.freeFolder(path.Base(e.path))
		e.comments = append(e.comments, "In a folder of its own: a key that another object makes, too, would keep the class from mounting.")
		cl.lost(e.at, e.field, fmt.Sprintf("which keys %q has is not known; one that is made from elsewhere, too, was overwritten from there, and two files of one name would keep the class from mounting", e.path),
			fmt.Sprintf("its files are in %s; write file: ./ where it shares no key with the others, or an object for each key", e.file))
	}
}

// lastOfEach are the objects without those that a later one overwrites, and without files
// that a folder has as well, from the same key of the same secret.
func (cl *draft) lastOfEach() (left []entry) {
	for i, e := range cl.entries {
		isOverwritten := slices.ContainsFunc(cl.entries[i+1:], func(o entry) bool {
			return o.file == e.file && (o.file != here || o.sameSecret(e))
		})
		isTwice := e.file != here && e.key == e.file && slices.ContainsFunc(cl.entries, func(o entry) bool { return o.file == here && o.sameSecret(e) })
		if !isOverwritten && !isTwice {
			left = append(left, e)
		}
	}
	return left
}

// sameSecret tells whether both read the same secret in the same way.
func (e entry) sameSecret(o entry) bool {
	return e.path == o.path && e.version == o.version && e.origin == o.origin && e.role == o.role && e.encoding == o.encoding &&
		e.template == "" && o.template == "" && e.args == nil && o.args == nil
}

func (cl *draft) hasFiles() bool {
	return slices.ContainsFunc(cl.entries, func(e entry) bool { return !strings.HasSuffix(e.file, "/") })
}

// freeFolder is a folder that no object has, called after a secret.
func (cl *draft) freeFolder(name string) string {
	free := name + "/"
	for n := 2; slices.ContainsFunc(cl.entries, func(e entry) bool { return strings.Trim(e.file, "/") == strings.Trim(free, "/") }); n++ {
		free = fmt.Sprintf("%s-%d/", name, n)
	}
	return free
}
