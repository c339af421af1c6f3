package cli

import (
	"strings"
	"unicode/utf8"
)

// width is that of help and of messages, in columns.
const width = 100

// hanging is before the further lines of a message.
const hanging = "    "

// wrapped breaks the lines of a text at spaces so that they fit. The first one begins behind
// so many columns, and what is broken off is indented.
func wrapped(text string, taken int, indent string) string {
	var out strings.Builder
	column := taken
	for i, word := range strings.Split(text, " ") {
		length := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+length > width:
			out.WriteString("\n" + indent)
			column = len(indent)
		default:
			out.WriteString(" ")
			column++
		}
		out.WriteString(word)
		column += length
		if end := strings.LastIndexByte(word, '\n'); end >= 0 {
			column = utf8.RuneCountInString(word[end+1:])
		}
	}
	return out.String()
}

// folded is an error whose text a person reads in lines that fit. Some are the texts of
// Kubernetes' events, which have no lines.
type folded struct{ error }

func (f folded) Unwrap() error { return f.error }

func fold(err error) error {
	if err == nil {
		return nil
	}
	return folded{err}
}
