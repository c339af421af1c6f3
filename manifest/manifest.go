// Package manifest reads Kubernetes objects from files, as kubectl does: several documents
// in one file, lists, JSON, folders and standard input. An object keeps its nodes, so that
// what is wrong in it has a line and a column.
//
// [Read] makes a [File] of each, with its objects. [Object.Class] is a
// SecretProviderClass, and [Object.Pod] a pod or the template of a workload's pods.
package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/strict"
	"github.com/keymount/keymount/internal/surrogate"
)

const (
	// Stdin names standard input among the files.
	Stdin = "-"
	// StdinName is what messages call it.
	StdinName = "standard input"
	// maxBytes bounds one file. An API server takes no object of more than 1.5 MiB.
	maxBytes = 16 << 20
)

// File is a file with its objects.
type File struct {
	Name    string
	Text    []byte
	Objects []Object
	// Mistakes are of the form: with one, the objects behind it could not be read.
	Mistakes []Mistake

	lines [][]byte // of Text, once one is asked for
}

// Position is a place in a file. Both count from 1, and 0 is unknown.
type Position struct{ Line, Column int }

// Mistake is one thing to put right.
type Mistake struct {
	Position

	Text string
}

// Object is one object of a file. The text fields are empty where the file does not say
// them, or not as a text.
type Object struct {
	File                              *File
	Node                              *yaml.Node // a map for an object of Kubernetes
	APIVersion, Kind, Namespace, Name string
}

// Read reads the named files, and every .yaml, .yml and .json in a folder, in the order of
// their names; with deep also in the folders below. Its error is about a file that cannot
// be read at all.
func Read(names []string, deep bool, stdin io.Reader) ([]*File, error) {
	var files []*File
	for _, name := range names {
		found, err := read(name, deep, stdin)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

func read(name string, deep bool, stdin io.Reader) ([]*File, error) {
	if name == Stdin {
		f, err := readFrom(StdinName, stdin)
		return []*File{f}, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, errors.Unwrap(err))
	}
	if !info.IsDir() {
		f, err := open(name)
		return []*File{f}, err
	}
	var files []*File
	err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != name && (!deep || isSkipped(entry)):
			return filepath.SkipDir
		case entry.IsDir() || !isRead(path):
			return nil
		}
		f, err := open(path)
		files = append(files, f)
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("read %s: %w", name, ErrNoFiles)
	}
	return files, err
}

func open(name string) (*File, error) {
	opened, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, errors.Unwrap(err))
	}
	defer func() { _ = opened.Close() }() // nothing was written
	return readFrom(name, opened)
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

// Parse reads a text in memory, with a name for messages.
func Parse(name string, text []byte) *File {
	f := &File{Name: name, Text: text}
	if document, _ := surrogate.JSON(text); document != nil {
		f.add(document)
		return f
	}
	hidden := surrogate.Hide(text)
	decoder := yaml.NewDecoder(bytes.NewReader(hidden.Text))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		switch {
		case errors.Is(err, io.EOF):
			return f
		case err != nil:
			line, err := strict.SyntaxLine(err)
			f.Mistakes = append(f.Mistakes, Mistake{Position{line, min(line, 1)}, err.Error()})
			return f
		}
		hidden.Restore(&document)
		f.add(&document)
	}
}

// add adds the object of a document, or those of a list.
func (f *File) add(document *yaml.Node) {
	for _, node := range document.Content {
		if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
			continue // nothing between two separators
		}
		o := f.object(node)
		items := Field(node, "items")
		if items == nil || items.Kind != yaml.SequenceNode || !strings.HasSuffix(o.Kind, "List") {
			f.Objects = append(f.Objects, o)
			continue
		}
		for _, item := range items.Content {
			one := f.object(item)
			one.Kind = cmp.Or(one.Kind, strings.TrimSuffix(o.Kind, "List"))
			one.APIVersion = cmp.Or(one.APIVersion, o.APIVersion)
			f.Objects = append(f.Objects, one)
		}
	}
}

func (f *File) object(node *yaml.Node) Object {
	return Object{
		File: f, Node: node,
		APIVersion: Text(Field(node, "apiVersion")), Kind: Text(Field(node, "kind")),
		Namespace: Text(Field(node, "metadata", "namespace")), Name: Text(Field(node, "metadata", "name")),
	}
}

// Field is a field of a map, or one further in; nil where there is none.
func Field(node *yaml.Node, names ...string) *yaml.Node {
	for _, name := range names {
		if node = field(node, name); node == nil {
			return nil
		}
	}
	return node
}

func field(node *yaml.Node, name string) *yaml.Node {
	if node = Resolved(node); node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for _, e := range entries(node, new(maxMerges)) {
		if e.key.Value == name {
			return Resolved(e.value)
		}
	}
	return nil
}

// entry is a field of a map.
type entry struct{ key, value *yaml.Node }

// maxMerges bounds the maps merged into one: a few lines could stand for millions.
const maxMerges = 1000

// entries are the fields of a map, and behind them those of the maps merged into it (<<), as
// long as there are merges left.
func entries(node *yaml.Node, left *int) (all []entry) {
	var merged []entry
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Value != "<<" || key.ShortTag() != "!!merge" {
			all = append(all, entry{key, value})
			continue
		}
		from := []*yaml.Node{value}
		if value = Resolved(value); value.Kind == yaml.SequenceNode {
			from = value.Content
		}
		for _, m := range from {
			if m = Resolved(m); m.Kind == yaml.MappingNode && *left > 0 {
				*left--
				merged = append(merged, entries(m, left)...)
			}
		}
	}
	return append(all, merged...)
}

// Resolved is the node that an alias stands for, or the node itself.
func Resolved(node *yaml.Node) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// Text is the text of a scalar; empty for any other node, nil and null.
func Text(node *yaml.Node) string {
	if node == nil || node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		return ""
	}
	return node.Value
}

// At is the position of a node; the zero Position for nil.
func At(node *yaml.Node) Position {
	if node == nil {
		return Position{}
	}
	return Position{node.Line, node.Column}
}
