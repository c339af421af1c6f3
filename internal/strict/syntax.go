package strict

import (
	"bytes"
	"errors"
	"regexp"
	"strconv"
	"strings"
)

// yaml.v3 reports a text without meaning as words alone, so this file searches them: the
// one place to do so.

// Syntax is yaml.v3's failure to read a text at all, in its own words. With cure the usual
// cause is added.
func Syntax(err error, cure bool) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	switch {
	case !cure:
	case strings.HasSuffix(text, "found character that cannot start any token"):
		text += "; indent with spaces, never with tabs, and quote a text that begins with @ or a backquote"
	case strings.HasSuffix(text, "mapping values are not allowed in this context"):
		text += "; check the indentation, and quote a text that holds a colon and a space"
	}
	return errors.New(text)
}

// SyntaxLine is [Syntax] with its cure, and apart from it the line where yaml.v3 stopped; 0
// where it gives none.
func SyntaxLine(err error) (line int, said error) {
	said = Syntax(err, true)
	found := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(said.Error())
	if found == nil {
		return 0, said
	}
	line, _ = strconv.Atoi(found[1])
	return line, errors.New(said.Error()[len(found[0]):])
}

// ErrAlias is what to tell where a text with secrets has an alias.
var ErrAlias = errors.New("aliases (*) are refused; write the value out, or quote a text that starts with *")

// SyntaxUnquoted is the line of yaml.v3's failure to read a text with secrets, 0 where it
// gives none, and words of ours: its own may quote a value.
func SyntaxUnquoted(data []byte, err error) (line int, said error) {
	if anchor := regexp.MustCompile(`(?s)unknown anchor '(.*)' referenced`).FindStringSubmatch(err.Error()); anchor != nil {
		before, _, _ := bytes.Cut(data, []byte("*"+anchor[1]))
		return 1 + bytes.Count(before, []byte("\n")), ErrAlias
	}
	at := regexp.MustCompile(`line (\d+)`).FindStringSubmatch(err.Error())
	if at == nil {
		return 0, errors.New("is not YAML; look for control characters, bytes that are not UTF-8 and special characters without quotes")
	}
	line, _ = strconv.Atoi(at[1])
	return line, errors.New("is not YAML; look at the indentation, and quote texts with special characters")
}
