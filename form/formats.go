package form

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/spelling"
)

// Format is the form of a whole secret in one file.
type Format string

// The formats. Each sorts its keys and ends in a newline; dotenv and properties without
// keys are empty.
const (
	// JSON is compact, with numbers as the store gave them. It holds any secret.
	JSON Format = "json"
	// YAML reads the same with parsers of YAML 1.1 and 1.2: a text that either
	// could take for something else is quoted. It holds any secret.
	YAML Format = "yaml"
	// Dotenv is one KEY='value' per line, for secrets that are maps. It reads the
	// same when a shell sources it and in the libraries of that name; a value that they
	// disagree about is refused.
	Dotenv Format = "dotenv"
	// Properties is for java.util.Properties, in plain ASCII, for secrets that are maps.
	Properties Format = "properties"
)

// maxText is what all files of a mount may have together.
const maxText = 4 << 20

var errTooLong = fmt.Errorf("makes a text of more than %d bytes, which is more than the driver takes", maxText)

// Formats are the names of all formats.
func Formats() []string {
	return []string{string(JSON), string(YAML), string(Dotenv), string(Properties)}
}

// ParseFormat reads the name of a format.
func ParseFormat(text string) (Format, error) {
	if err := oneOf(text, "format", Formats()); err != nil {
		return "", err
	}
	return Format(text), nil
}

// oneOf is an error that lists the known names when text is none of them.
func oneOf(text, what string, known []string) error {
	if slices.Contains(known, text) {
		return nil
	}
	return fmt.Errorf("%q is no %s%s; there are %s", text, what, spelling.Hint(text, known), strings.Join(known, ", "))
}

// Write writes the whole secret. In dotenv and properties a nested value is
// compact JSON and null is empty. The error names every key that the format
// cannot hold, and holds no value.
func Write(f Format, t secret.Tree) (secret.Bytes, error) {
	var text []byte
	var err error
	switch f {
	case JSON:
		text, err = compactJSON(t.Reveal())
	case YAML:
		text, err = writeYAML(t.Reveal())
	case Dotenv:
		text, err = writeLines(t, f, dotenvLine)
	case Properties:
		text, err = writeLines(t, f, propertiesLine)
	default:
		_, err = ParseFormat(string(f))
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) { // no keys are no lines
		text = append(text, '\n')
	}
	return secret.New(text), nil
}

// mostFailures bounds the keys in one error: a secret may have any number of them.
const mostFailures = 20

// writeLines writes a map as one line for each of its keys.
func writeLines(t secret.Tree, f Format, line func(key, value string) (string, error)) ([]byte, error) {
	if _, ok := t.Reveal().(map[string]any); !ok {
		return nil, fmt.Errorf("%s holds keys with values, and the secret is not a map; take format json or yaml", f)
	}
	var b bytes.Buffer
	var failures []error
	for _, key := range t.Keys() {
		child, _ := t.Child(key)
		value, err := flat(child.Reveal())
		var written string
		if err == nil {
			written, err = line(key, value)
		}
		if err != nil {
			if failures = append(failures, fmt.Errorf("key %q %w", spelling.CutName(key), err)); len(failures) == mostFailures {
				failures = append(failures, errors.New("and maybe more"))
				break
			}
			continue
		}
		if b.WriteString(written); b.Len() > maxText {
			return nil, errTooLong
		}
	}
	return b.Bytes(), errors.Join(failures...)
}

// flat is a value on one line of a format of texts alone.
func flat(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	default:
		text, err := compactJSON(v)
		return string(text), err
	}
}

// compactJSON is v without a newline at the end.
func compactJSON(v any) ([]byte, error) {
	if err := checkUTF8(v, "json"); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		// encoding/json may quote the value: leave its error out.
		return nil, errors.New("cannot be written as json")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// checkUTF8 finds a text that JSON and YAML would have to change. encoding/json
// replaces such bytes without a word, and a changed secret is a wrong one.
func checkUTF8(v any, format string) error {
	place, found := secret.Find(v, notUTF8)
	if found == "" {
		return nil
	}
	if place != "" {
		found = fmt.Sprintf("at %q: %s", place, found)
	}
	return fmt.Errorf("%s, which %s cannot hold; give it a file of its own", found, format)
}

func notUTF8(part any) string {
	switch part := part.(type) {
	case string:
		if !utf8.ValidString(part) {
			return "is not UTF-8"
		}
	case map[string]any:
		for key := range part {
			if !utf8.ValidString(key) {
				return "a key is not UTF-8"
			}
		}
	}
	return ""
}
