package surrogate

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// JSON reads a text that is JSON into the nodes that a parser of YAML makes of it, and
// returns those of them that have half a character without the other half. Without JSON
// there is no document, and the text may be YAML.
//
// YAML is said to hold all of JSON, and yaml.v3 does not: it refuses \/, the character
// U+007F, a key over 1024 bytes and a line break in front of a colon, and makes a space of
// U+0085.
func JSON(text []byte) (document *yaml.Node, halves map[*yaml.Node]bool) {
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, nil
	}
	r := newReader(text)
	return r.document(), r.halves
}

// Stream reads a text that is JSON, or several objects of JSON one after the other, which no
// parser of YAML takes; none for any other text.
func Stream(text []byte) (documents []*yaml.Node) {
	if one, _ := JSON(text); one != nil {
		return []*yaml.Node{one}
	}
	if !utf8.Valid(text) || !isStream(text) {
		return nil
	}
	r := newReader(text)
	for document := r.document(); document != nil; document = r.document() {
		documents = append(documents, document)
	}
	return documents
}

// isStream tells objects one after the other.
func isStream(text []byte) bool {
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var object json.RawMessage
		if err := decoder.Decode(&object); err != nil {
			return errors.Is(err, io.EOF)
		}
		if object[0] != '{' {
			return false
		}
	}
}

func newReader(text []byte) *reader {
	r := &reader{text: text, decoder: json.NewDecoder(bytes.NewReader(text)), line: 1, column: 1, halves: map[*yaml.Node]bool{}}
	r.decoder.UseNumber()
	return r
}

// document reads the next value as a document; nil at the end of the text.
func (r *reader) document() *yaml.Node {
	root := r.value()
	if root == nil {
		return nil
	}
	return &yaml.Node{Kind: yaml.DocumentNode, Line: root.Line, Column: root.Column, Content: []*yaml.Node{root}}
}

// reader makes nodes of a text that is known to be JSON, and not too deep.
type reader struct {
	text    []byte
	decoder *json.Decoder
	halves  map[*yaml.Node]bool

	line, column int // behind the last token, from 1
	read         int // how much of the text is read
}

// value reads the next value, or nothing at the end of a list or a map.
func (r *reader) value() *yaml.Node {
	token, err := r.decoder.Token()
	if err != nil {
		return nil
	}
	written := r.advance()
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column - utf8.RuneCount(written)}
	switch token := token.(type) {
	case json.Delim:
		return r.collection(n, token)
	case string:
		n.Style, n.Tag, n.Value = yaml.DoubleQuotedStyle, "!!str", token
		if HasHalf(string(written)) {
			r.halves[n] = true
		}
	case json.Number:
		n.Value = string(token)
		if n.Tag = n.ShortTag(); n.Tag != "!!int" { // 1e400 is a text to YAML
			n.Tag = "!!float"
		}
	case bool:
		n.Tag, n.Value = "!!bool", "false"
		if token {
			n.Value = "true"
		}
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n
}

// advance returns the token that was just read, without what stands in front of it.
func (r *reader) advance() []byte {
	read := r.text[r.read:r.decoder.InputOffset()]
	r.read += len(read)
	r.line += bytes.Count(read, []byte("\n"))
	if last := bytes.LastIndexByte(read, '\n'); last >= 0 {
		read, r.column = read[last+1:], 1
	}
	r.column += utf8.RuneCount(read)
	return bytes.TrimLeft(read, " \t\r,:")
}

func (r *reader) collection(n *yaml.Node, begin json.Delim) *yaml.Node {
	n.Style = yaml.FlowStyle
	switch begin {
	case '{':
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	case '[':
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	default:
		return nil
	}
	for child := r.value(); child != nil; child = r.value() {
		n.Content = append(n.Content, child)
	}
	return n
}
