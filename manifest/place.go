package manifest

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Inside is the place in the file of a line and a column of a scalar's own text, both from
// 1. Where the text is folded over several lines, it is the place of the scalar itself.
func (f *File) Inside(scalar *yaml.Node, line, column int) Position {
	if scalar == nil || line < 1 || column < 1 {
		return At(scalar)
	}
	var at Position
	var found bool
	switch {
	case scalar.Style&yaml.LiteralStyle != 0:
		at, found = f.inLiteral(scalar, line, column)
	case scalar.Style&yaml.FoldedStyle == 0:
		at, found = f.inFlow(scalar, line, column)
	}
	if !found {
		return At(scalar)
	}
	return at
}

// Line is a line of the file, from 1, without its end; empty where there is none.
func (f *File) Line(n int) string {
	if f.lines == nil {
		f.lines = bytes.Split(f.Text, []byte("\n"))
	}
	if n < 1 || n > len(f.lines) {
		return ""
	}
	return strings.TrimSuffix(string(f.lines[n-1]), "\r")
}

// inLiteral finds a place of a block that begins with a |: a line of the text is a line of
// the file without its indentation, whatever decides about that.
func (f *File) inLiteral(scalar *yaml.Node, line, column int) (Position, bool) {
	lines := strings.Split(scalar.Value, "\n")
	if line > len(lines) {
		return Position{}, false
	}
	written := f.Line(scalar.Line + line)
	indentation, found := strings.CutSuffix(written, lines[line-1])
	return Position{scalar.Line + line, utf8.RuneCountInString(indentation) + column}, found
}

// inFlow finds a place of a plain or quoted text that is on one line of the file.
func (f *File) inFlow(scalar *yaml.Node, line, column int) (Position, bool) {
	written := []rune(f.Line(scalar.Line))
	if scalar.Column < 1 || scalar.Column > len(written) {
		return Position{}, false
	}
	begin := scalar.Column - 1
	rest := written[begin:]
	if scalar.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 {
		found := line == 1 && strings.HasPrefix(string(rest), scalar.Value)
		return Position{scalar.Line, scalar.Column + column - 1}, found
	}
	quote := rest[0]
	if quote != '"' && quote != '\'' {
		return Position{}, false // of an anchor or a tag
	}
	atLine, atColumn := 1, 1
	for i := 1; i < len(rest); {
		if atLine == line && atColumn == column {
			return Position{scalar.Line, scalar.Column + i}, true
		}
		length, isBreak := character(rest[i:], quote)
		if length == 0 {
			break
		}
		i, atColumn = i+length, atColumn+1
		if isBreak {
			atLine, atColumn = atLine+1, 1
		}
	}
	return Position{}, false
}

// character is the length of the first character of a quoted text as it is written, and
// whether it is a line break; 0 at the end of the text.
func character(rest []rune, quote rune) (length int, isBreak bool) {
	switch {
	case quote == '\'' && rest[0] == quote && len(rest) > 1 && rest[1] == quote:
		return 2, false
	case rest[0] == quote:
		return 0, false
	case quote == '\'' || rest[0] != '\\' || len(rest) < 2:
		return 1, false
	}
	switch rest[1] {
	case 'n':
		return 2, true
	case 'x':
		return 4, false
	case 'U':
		return 10, false
	case 'u':
		const escape, half = 6, `\ud`
		if len(rest) > 2*escape && strings.EqualFold(string(rest[:3]), half) && strings.EqualFold(string(rest[escape:escape+3]), half) {
			return 2 * escape, false // the two halves of one character
		}
		return escape, false
	}
	return 2, false
}
