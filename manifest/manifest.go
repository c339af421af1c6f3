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
	"io"
	"io/fs"
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

	info  fs.FileInfo // nil for a text in memory
	lines [][]byte    // of Text, once one is asked for
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

// Parse reads a text in memory, with a name for messages.
func Parse(name string, text []byte) *File {
	f := &File{Name: name, Text: text}
	if documents := surrogate.Stream(text); len(documents) > 0 {
		for _, document := range documents {
			f.add(document)
		}
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
