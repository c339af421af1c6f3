package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
)

// maxBytes bounds keymount.yaml; a ConfigMap cannot hold more either.
const maxBytes = 1 << 20

// Load reads keymount.yaml, fills in the defaults and makes file names absolute.
// The error holds every mistake, one a line, each beginning with the file's name.
func Load(file string) (*Config, error) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", file, err)
	}
	data, err := os.ReadFile(absolute)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w; name the file with --config", err)
	}
	c, err := Parse(data)
	if err != nil {
		return nil, prefixed(file, err)
	}
	c.resolve(filepath.Dir(absolute))
	return c, nil
}

// Parse is Load for a text in memory; file names stay as they are written.
func Parse(data []byte) (*Config, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%d bytes are more than a configuration may have (%d)", len(data), maxBytes)
	}
	var c Config
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	err := decoder.Decode(&c)
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("is empty; see docs/configuration.md for an example")
	case err != nil:
		return nil, readable(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one YAML document; keep one")
	}
	c.setDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &c, nil
}

func (c *Config) setDefaults() {
	for i := range c.Stores {
		s := &c.Stores[i]
		s.Name = orDefault(s.Name, DefaultStore)
		if s.Bundle != nil {
			s.Bundle.Audience = orDefault(s.Bundle.Audience, DefaultAudience)
		}
	}
	if c.Issuers == nil {
		c.Issuers = []Issuer{{Keys: KeysCluster}}
	}
	if c.Sockets == nil {
		c.Sockets = []string{DefaultSocket}
	}
	c.Limits.MountDeadline = orDefault(c.Limits.MountDeadline, defaultMountDeadline)
	c.Limits.ParallelReads = orDefault(c.Limits.ParallelReads, defaultParallelReads)
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func (c *Config) resolve(folder string) {
	files := []*string{&c.VersionKeyFile}
	for i := range c.Sockets {
		files = append(files, &c.Sockets[i])
	}
	for i := range c.Issuers {
		files = append(files, &c.Issuers[i].KeysFile, &c.Issuers[i].CAFile)
	}
	for i := range c.Stores {
		if b := c.Stores[i].Bundle; b != nil {
			files = append(files, &b.File, &b.IdentityFile)
		}
	}
	for _, file := range files {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(folder, *file)
		}
	}
}

var (
	unknownField = regexp.MustCompile(`^line (\d+): field (.+) not found in type config\.(\w+)$`)
	wrongType    = regexp.MustCompile("^line (\\d+): cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.+)$")
)

// readable turns what yaml.v3 says of Go types into what an operator can act on.
func readable(err error) error {
	var types *yaml.TypeError
	if !errors.As(err, &types) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	mistakes := make([]error, 0, len(types.Errors))
	for _, text := range types.Errors {
		if m := unknownField.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("line %s: unknown field %q%s", m[1], m[2], spelling.Hint(m[2], fields(m[3])))
		} else if m := wrongType.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("line %s: %s", m[1], typeMistake(m[2], m[3], m[4]))
		}
		mistakes = append(mistakes, errors.New(text))
	}
	return errors.Join(mistakes...)
}

func typeMistake(kind, value, goType string) string {
	if goType == "[]config.Rule" && value == "store" {
		return "access: store leaves the decision to the store's own policies, and a bundle has none; write rules"
	}
	kinds := map[string]string{"str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "seq": "a list", "map": "a map", "null": "nothing"}
	wanted := map[string]string{"bool": "true or false", "int": "a whole number", "string": "a text", "time.Duration": "a duration such as 25s or 1m", "[]string": "a list of texts"}
	want, known := wanted[goType]
	if !known {
		want = "a map"
		if strings.HasPrefix(goType, "[]") {
			want = "a list"
		}
	}
	if value != "" {
		return fmt.Sprintf("%q is %s where %s belongs", value, kinds[kind], want)
	}
	return fmt.Sprintf("%s stands where %s belongs", kinds[kind], want)
}

// fields are the YAML names of a struct of this package.
func fields(structName string) []string {
	var names []string
	for _, t := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[Store](), reflect.TypeFor[Bundle](),
		reflect.TypeFor[Rule](), reflect.TypeFor[Issuer](), reflect.TypeFor[Limits](),
	} {
		for i := range t.NumField() {
			if t.Name() == structName {
				names = append(names, t.Field(i).Tag.Get("yaml"))
			}
		}
	}
	return slices.Clip(names)
}

// prefixed puts the file's name before every line of err.
func prefixed(file string, err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = file + ": " + line
	}
	return errors.New(strings.Join(lines, "\n"))
}
