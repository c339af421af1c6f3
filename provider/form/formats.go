package form

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/spelling"
)

// Format is how a whole secret is written into one file.
type Format string

// The formats. Each sorts its keys and ends in a newline.
const (
	// JSON is compact, with numbers as the store gave them. It holds any secret.
	JSON Format = "json"
	// YAML reads the same with parsers of YAML 1.1 and 1.2: a text that either
	// could take for something else is quoted. It holds any secret.
	YAML Format = "yaml"
	// Dotenv is one KEY='value' per line, for secrets that are maps. It reads the
	// same when a shell sources it and in the libraries of that name; what they
	// disagree about is refused.
	Dotenv Format = "dotenv"
	// Properties is what java.util.Properties reads, in plain ASCII, for secrets
	// that are maps.
	Properties Format = "properties"
)

// ParseFormat reads the name of a format.
func ParseFormat(text string) (Format, error) {
	known := []string{string(JSON), string(YAML), string(Dotenv), string(Properties)}
	if err := oneOf(text, "format", known); err != nil {
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
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	return secret.New(text), nil
}

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
			failures = append(failures, fmt.Errorf("key %q %w", key, err))
			continue
		}
		b.WriteString(written)
	}
	return b.Bytes(), errors.Join(failures...)
}

// flat is a value on one line of a format that knows texts alone.
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
	if err := checkUTF8(v, ""); err != nil {
		return nil, fmt.Errorf("%w, which json cannot hold; give it a file of its own", err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		// encoding/json may quote what it could not encode: leave it out.
		return nil, errors.New("cannot be written as json")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// checkUTF8 finds a text that JSON and YAML would have to change. encoding/json
// replaces such bytes without a word, and a changed secret is a wrong one.
func checkUTF8(v any, at string) error {
	switch v := v.(type) {
	case string:
		if !utf8.ValidString(v) {
			return errors.New(named(at) + "is not UTF-8")
		}
	case []any:
		for i, e := range v {
			if err := checkUTF8(e, below(at, strconv.Itoa(i))); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, e := range v {
			if !utf8.ValidString(k) {
				return fmt.Errorf("%sa key is not UTF-8", named(at))
			}
			if err := checkUTF8(e, below(at, k)); err != nil {
				return err
			}
		}
	}
	return nil
}

func below(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

func named(at string) string {
	if at == "" {
		return ""
	}
	return fmt.Sprintf("at %q: ", at)
}
