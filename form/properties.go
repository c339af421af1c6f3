package form

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// propertiesLine is key=value, escaped for java.util.Properties.load, which reads
// Latin-1: all but printable ASCII becomes \uXXXX, in UTF-16.
func propertiesLine(key, value string) (string, error) {
	if key == "" {
		return "", errors.New("is empty, which readers of properties disagree about; take format json")
	}
	if !utf8.ValidString(key) || !utf8.ValidString(value) {
		return "", errors.New("is not UTF-8, or its value is not, which properties cannot hold; give it a file of its own")
	}
	var b strings.Builder
	for _, r := range key {
		writeProperty(&b, r, strings.ContainsRune(" :=#!", r))
	}
	b.WriteByte('=')
	for i, r := range value {
		writeProperty(&b, r, i == 0 && r == ' ') // the reader skips space in front
	}
	b.WriteByte('\n')
	return b.String(), nil
}

func writeProperty(b *strings.Builder, r rune, escape bool) {
	const short = "\t\n\r\f\\"
	switch i := strings.IndexRune(short, r); {
	case i >= 0:
		b.WriteByte('\\')
		b.WriteByte(`tnrf\`[i])
	case escape:
		b.WriteByte('\\')
		b.WriteRune(r)
	case ' ' <= r && r <= '~':
		b.WriteRune(r)
	default:
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(b, `\u%04X`, unit)
		}
	}
}
