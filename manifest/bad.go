package manifest

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	// maxSearched bounds a text that is searched for its first bad line.
	maxSearched = 64 << 10
	// mostOpen is how many lines a list in brackets, or a text in quotes, may go on for.
	mostOpen = 32
	// mostRounds bounds the search.
	mostRounds = 20
)

// BadLine is the place of the first line that makes a text none of YAML, whatever follows; the
// zero Position where there is none, or the text is too long to tell. A parser names the line
// where it gives up, or where the list or map around that begins.
func BadLine(text []byte) Position {
	if len(text) > maxSearched || isYAML(text) {
		return Position{}
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	good := 0 // lines that are YAML by themselves
	for range mostRounds {
		bad := firstBad(lines, good)
		good = closed(lines, bad)
		if good == 0 {
			line := string(lines[bad-1])
			return Position{bad, len([]rune(line)) - len([]rune(strings.TrimLeft(line, " \t"))) + 1}
		}
	}
	return Position{}
}

// firstBad halves the lines behind the good ones until one is left that makes them bad.
func firstBad(lines [][]byte, good int) int {
	bad := len(lines)
	for bad-good > 1 {
		if middle := (good + bad) / 2; isYAML(bytes.Join(lines[:middle], nil)) {
			good = middle
		} else {
			bad = middle
		}
	}
	return bad
}

// closed is the number of lines that are YAML again, because something is closed behind a
// bad one; 0 where nothing mends it.
func closed(lines [][]byte, bad int) int {
	for n := bad + 1; n <= min(bad+mostOpen, len(lines)-1); n++ {
		if isYAML(bytes.Join(lines[:n], nil)) {
			return n
		}
	}
	return 0
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
