package manifest

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxSearched bounds the lines of a text that are searched for its first bad one.
const maxSearched = 500

// BadLine is the place of the first line that makes a text none of YAML, whatever follows; the
// zero Position where there is none, or the text is too long to tell. A parser names the line
// where it gives up, or where the list or map around that begins.
func BadLine(text []byte) Position {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(lines) > maxSearched || isYAML(text) {
		return Position{}
	}
	end := len(text)
	for n := len(lines); n > 0; n-- {
		if end -= len(lines[n-1]); isYAML(text[:end]) {
			bad := string(lines[n-1])
			return Position{n, len([]rune(bad)) - len([]rune(strings.TrimLeft(bad, " \t"))) + 1}
		}
	}
	return Position{1, 1}
}

func isYAML(text []byte) bool {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		err := decoder.Decode(new(yaml.Node))
		if err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}
