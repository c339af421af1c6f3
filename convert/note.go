package convert

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/manifest"
)

// Note is something to know about the conversion, at its place in the input.
type Note struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Object string `json:"object,omitempty"` // kind, namespace and name
	Field  string `json:"field,omitempty"`
	// Lost: there is no counterpart. Other notes are for a human to look at.
	Lost    bool   `json:"lost"`
	Text    string `json:"why"`
	Instead string `json:"instead,omitempty"`
}

// Place is the beginning of a note in a report: where it is, and in which object.
func (n Note) Place() string {
	text := n.File
	if n.Line > 0 {
		text += fmt.Sprintf(":%d", n.Line)
	}
	if n.Object != "" {
		text += ": " + n.Object
	}
	return text
}

// titled names an object in notes.
func titled(o manifest.Object) string {
	name := cmp.Or(o.Name, "(without a name)")
	if o.Namespace != "" {
		name = o.Namespace + "/" + name
	}
	return spelling.Visible(spelling.CutName(o.Kind + " " + name))
}

// source is an object with a note to make about its fields.
type source struct {
	c      *conversion
	object manifest.Object
}

// field is a node of the object; nil where there is none.
func (s source) field(names ...string) *yaml.Node { return manifest.Field(s.object.Node, names...) }

// text is the text of a field.
func (s source) text(names ...string) string { return manifest.Text(s.field(names...)) }

func (s source) note(lost bool, at *yaml.Node, field, text, instead string) {
	if at == nil {
		at = s.object.Node
	}
	n := Note{
		File: s.object.File.Name, Line: at.Line, Column: at.Column, Object: titled(s.object),
		Field: spelling.Visible(field), Lost: lost, Text: spelling.Visible(strings.TrimSpace(text)), Instead: spelling.Visible(instead),
	}
	if s.c.told[n] {
		return // a store is read again for each secret that names it
	}
	s.c.told[n] = true
	s.c.result.Notes = append(s.c.result.Notes, n)
}

// lost notes that a field has no counterpart.
func (s source) lost(at *yaml.Node, field, text, instead string) {
	s.note(true, at, field, text, instead)
}

// look notes something for a human to look at.
func (s source) look(at *yaml.Node, field, text, instead string) {
	s.note(false, at, field, text, instead)
}

// report notes the failures of a template, and what to look at in it, with their lines in
// the file.
func (s source) report(text *yaml.Node, field string, failures, remarks []failure) {
	for i, f := range slices.Concat(failures, remarks) {
		at, of := *text, field
		switch {
		case text.Style == yaml.LiteralStyle && f.line > 0:
			at.Line, at.Column = text.Line+f.line, 0
		case f.line > 1:
			of += " line " + strconv.Itoa(f.line)
		}
		s.note(i < len(failures), &at, of, "template: "+f.text, f.instead)
	}
}
