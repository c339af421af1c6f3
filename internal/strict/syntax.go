package strict

import (
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

// SyntaxAt is the place of yaml.v3's failure, such as "line 3", without its words, which may
// quote a value; empty where yaml.v3 gives no place.
func SyntaxAt(err error) string { return regexp.MustCompile(`line \d+`).FindString(err.Error()) }

// UnknownAnchor is the name in an alias to an anchor that the text lacks, and false for
// another failure of yaml.v3.
func UnknownAnchor(err error) (name string, ok bool) {
	match := regexp.MustCompile(`unknown anchor '(.*)' referenced`).FindStringSubmatch(err.Error())
	if match == nil {
		return "", false
	}
	return match[1], true
}
