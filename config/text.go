package config

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/strict"
	"github.com/keymount/keymount/store/kind"
)

const (
	// maxBytes bounds keymount.yaml; a ConfigMap cannot hold more either.
	maxBytes = 1 << 20
	// chartFolder is where the chart puts the files that its values name.
	chartFolder = "/etc/keymount"
	// chartKey is that of keymount.yaml in the chart's values, and chartVersionKey the file
	// that the chart adds.
	chartKey        = "config"
	chartVersionKey = "version.key"
)

// Text is a keymount.yaml as it is written, or the chart's values with one in it.
type Text struct {
	name   string // of the file, for messages
	folder string // that file names are relative to; empty leaves them as they are
	data   []byte

	node   *yaml.Node // that is keymount.yaml; nil before Config
	values bool       // node is only a part of the text
}

// Open reads the text in a file.
func Open(file string) (*Text, error) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", file, err)
	}
	opened, err := os.Open(absolute)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w; name the file with --config", err)
	}
	defer func() { _ = opened.Close() }() // nothing was written
	t, err := Read(file, opened)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w; name the file with --config", err)
	}
	t.folder = filepath.Dir(absolute)
	return t, nil
}

// Read reads a text, with a name for messages. It may be a pipe or a device, and one that is
// too long has mistakes.
func Read(name string, from io.Reader) (*Text, error) {
	const most = 2 << 20 // more than is taken, so that it is refused for its length
	data, err := io.ReadAll(io.LimitReader(from, most))
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller says what it is
	}
	return New(name, data), nil
}

// New is a text in memory, with a name for messages or without one.
func New(name string, data []byte) *Text { return &Text{name: name, data: data} }

// Values tells whether the text is that of the chart's values. It is known after Config.
func (t *Text) Values() bool { return t.values }

// Mistake is one thing to put right in a text.
type Mistake struct {
	File   string
	Line   int    // 0 is that of no line
	Column int    // 0 is that of none
	Place  string // such as stores[0].access; empty for what is wrong with the form
	Text   string
}

func (m Mistake) Error() string {
	text := m.Text
	if m.Place != "" {
		text = m.Place + ": " + text
	}
	if m.Line > 0 {
		text = fmt.Sprintf("line %d: %s", m.Line, text)
	}
	if m.File != "" {
		text = m.File + ": " + text
	}
	return text
}

// Config reads the text as [Load] does, but for the chart's values: keymount.yaml is what
// stands there under config, with what the chart adds to it.
func (t *Text) Config(kinds []kind.Kind) (*Config, error) {
	if len(t.data) > maxBytes {
		return nil, t.mistake(0, fmt.Errorf("%d bytes are more than a configuration may have (%d)", len(t.data), maxBytes))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(t.data))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, t.mistake(0, errors.New("is empty; see docs/configuration.md for an example"))
	case err != nil:
		return nil, t.mistake(strict.SyntaxLine(err))
	}
	if t.node = valuesOf(&document); t.node != nil {
		t.values, t.folder = true, chartFolder
	} else {
		t.node = &document
	}
	c, mistakes := decode(t.node, kinds)
	if len(mistakes) > 0 {
		return nil, t.formed(mistakes)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, t.mistake(0, errors.New("holds more than one YAML document; keep one"))
	}
	return t.complete(c)
}

// complete makes file names absolute before it judges them: what counts is the
// length of the path that the kernel gets to see.
func (t *Text) complete(c *Config) (*Config, error) {
	if t.values && c.VersionKeyFile == "" {
		c.VersionKeyFile = chartVersionKey
	}
	c.Source = Source{File: t.name, SHA256: fmt.Sprintf("%x", sha256.Sum256(t.data))}
	c.setDefaults()
	mistakes := c.notPlain()
	if t.folder != "" {
		c.resolve(t.folder)
	}
	if mistakes = append(mistakes, elsewhere(c.validate(), mistakes)...); len(mistakes) > 0 {
		return nil, join(t.Placed(mistakes))
	}
	return c, nil
}

// valuesOf is keymount.yaml in the chart's values; nil for what is a keymount.yaml itself.
func valuesOf(document *yaml.Node) *yaml.Node {
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil
	}
	var found *yaml.Node
	top := document.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		switch {
		case top[i].Value == "stores":
			return nil
		case top[i].Value == chartKey && top[i+1].Kind == yaml.MappingNode:
			found = top[i+1]
		}
	}
	return found
}

// Placed gives mistakes of content their lines, and that order, once Config has read the
// text.
func (t *Text) Placed(mistakes []kind.Mistake) []Mistake {
	placed := make([]Mistake, len(mistakes))
	for i, m := range mistakes {
		place := m.Place
		if t.values {
			place = chartKey + "." + place
		}
		at := strict.Find(t.node, m.Place)
		placed[i] = Mistake{t.name, at.Line, at.Column, place, m.Err.Error()}
	}
	slices.SortStableFunc(placed, func(a, b Mistake) int { return cmp.Compare(a.Line, b.Line) })
	return placed
}

func join(mistakes []Mistake) error {
	errs := make([]error, len(mistakes))
	for i, m := range mistakes {
		errs[i] = m
	}
	return errors.Join(errs...)
}

// formed are mistakes of form, which know their lines.
func (t *Text) formed(mistakes []error) error {
	errs := make([]error, len(mistakes))
	for i, err := range mistakes {
		m, _ := errors.AsType[strict.Mistake](err)
		errs[i] = Mistake{File: t.name, Line: m.Line, Column: m.Column, Text: m.Text}
	}
	return errors.Join(errs...)
}

// mistake is one of the whole text.
func (t *Text) mistake(line int, err error) error {
	return Mistake{File: t.name, Line: line, Text: err.Error()}
}

// Mistakes are those in an error of [Text.Config]; none of another error.
func Mistakes(err error) []Mistake {
	var all []Mistake
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() {
			all = append(all, Mistakes(one)...)
		}
	} else if m, ok := errors.AsType[Mistake](err); ok {
		all = append(all, m)
	}
	return all
}
