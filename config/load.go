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
// The error holds every mistake of form (names and types) or else every one of
// content, one a line, each beginning with the file's name;
// a [Config] without an error needs no further checks.
func Load(file string) (*Config, error) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", file, err)
	}
	data, err := os.ReadFile(absolute)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w; name the file with --config", err)
	}
	c, err := parse(data, filepath.Dir(absolute))
	if err != nil {
		return nil, prefixed(file, err)
	}
	return c, nil
}

// Parse is Load for a text in memory; file names stay as they are written.
func Parse(data []byte) (*Config, error) { return parse(data, "") }

// parse makes file names absolute before it judges them: what counts is the
// length of the path that the kernel gets to see.
func parse(data []byte, folder string) (*Config, error) {
	c, err := decode(data)
	if err != nil {
		return nil, err
	}
	c.setDefaults()
	if folder != "" {
		c.resolve(folder)
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

func decode(data []byte) (*Config, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%d bytes are more than a configuration may have (%d)", len(data), maxBytes)
	}
	// Limits start with their defaults, so that a 0 in the file is seen as one.
	c := Config{Limits: Limits{
		MountDeadline: defaultMountDeadline, ParallelReads: defaultParallelReads, RotationPollInterval: defaultPollInterval,
	}}
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
	return &c, nil
}

func (c *Config) setDefaults() {
	for i := range c.Stores {
		s := &c.Stores[i]
		s.Name = orDefault(s.Name, DefaultStore)
		if s.Bundle != nil {
			s.Bundle.Audience = orDefault(s.Bundle.Audience, DefaultAudience)
		}
		if s.Vault != nil {
			s.Vault.setDefaults()
			s.Session = orDefault(s.Session, SessionServiceAccount)
			if s.Refresh == nil {
				s.Refresh = new(defaultRefresh)
			}
			if s.Stale == nil {
				s.Stale = new(defaultStale)
			}
			if s.MemoryMiB == nil {
				s.MemoryMiB = new(defaultMemoryMiB)
			}
		}
	}
	if c.Issuers == nil {
		c.Issuers = []Issuer{{Keys: KeysCluster}}
	}
	if c.Sockets == nil {
		c.Sockets = []string{DefaultSocket}
	}
}

func (v *Vault) setDefaults() {
	v.Auth.Method = orDefault(v.Auth.Method, MethodKubernetes)
	v.Auth.Mount = orDefault(v.Auth.Mount, v.Auth.Method)
	v.Auth.Audience = orDefault(v.Auth.Audience, VaultAudience)
}

func orDefault(value, fallback string) string {
	if value == "" {
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
		if v := c.Stores[i].Vault; v != nil {
			files = append(files, &v.CAFile, &v.CertFile, &v.KeyFile)
		}
	}
	for _, file := range files {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(folder, *file)
		}
	}
}

var (
	unknownField = regexp.MustCompile(`(?s)^line (\d+): field (.+) not found in type config\.(\w+)$`)
	wrongType    = regexp.MustCompile("(?s)^line (\\d+): cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.+)$")
	fieldTwice   = regexp.MustCompile(`(?s)^line (\d+): mapping key (".+") already defined at line (\d+)$`)
)

// UnmarshalYAML reads a list of rules, as strictly as the rest, or the word store.
func (a *Access) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode && node.Value == "store" {
		a.Store = true
		return nil
	}
	var mistakes []string
	for _, rule := range node.Content {
		for i := 0; rule.Kind == yaml.MappingNode && i < len(rule.Content); i += 2 {
			if name := rule.Content[i]; !slices.Contains(fields("Rule"), name.Value) {
				mistakes = append(mistakes, fmt.Sprintf("line %d: field %s not found in type config.Rule", name.Line, name.Value))
			}
		}
	}
	err := node.Decode(&a.Rules)
	var types *yaml.TypeError
	switch {
	case errors.As(err, &types):
		mistakes = append(mistakes, types.Errors...)
	case err != nil:
		return err //nolint:wrapcheck // the decoder adds the rest
	}
	if mistakes != nil {
		return &yaml.TypeError{Errors: mistakes}
	}
	return nil
}

// readable turns what yaml.v3 says of Go types into what an operator can act on.
func readable(err error) error {
	var types *yaml.TypeError
	if !errors.As(err, &types) {
		return errors.New(syntaxMistake(strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	mistakes := make([]error, 0, len(types.Errors))
	for _, text := range types.Errors {
		if m := unknownField.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("line %s: unknown field %q%s", m[1], m[2], spelling.Hint(m[2], fields(m[3])))
		} else if m := wrongType.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("line %s: %s", m[1], typeMistake(m[2], m[3], m[4]))
		} else if m := fieldTwice.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("line %s: %s is on line %s already; keep one", m[1], m[2], m[3])
		}
		mistakes = append(mistakes, errors.New(text))
	}
	return errors.Join(mistakes...)
}

// syntaxMistake adds what most often lies behind the parser's words.
func syntaxMistake(text string) string {
	switch {
	case strings.HasSuffix(text, "found character that cannot start any token"):
		return text + "; indent with spaces, never with tabs, and quote a text that begins with @ or a backquote"
	case strings.HasSuffix(text, "mapping values are not allowed in this context"):
		return text + "; check the indentation, and quote a text that holds a colon and a space"
	}
	return text
}

func typeMistake(tag, value, goType string) string {
	is := map[string]string{"str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "seq": "a list", "map": "a map", "timestamp": "a date"}[tag]
	wanted := map[string]string{"bool": "true or false", "int": "a whole number", "string": "a text", "time.Duration": "a duration such as 25s or 1m", "[]string": "a list of texts"}[goType]
	if is == "" {
		is = tag
	}
	if wanted == "" {
		wanted = "a map"
		if strings.HasPrefix(goType, "[]") {
			wanted = "a list"
		}
	}
	if value != "" {
		return fmt.Sprintf("%q is %s where %s belongs", value, is, wanted)
	}
	return fmt.Sprintf("%s stands where %s belongs", is, wanted)
}

// fields are the YAML names of a struct of this package.
func fields(structName string) []string {
	var names []string
	for _, t := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[Store](), reflect.TypeFor[Bundle](),
		reflect.TypeFor[Rule](), reflect.TypeFor[Issuer](), reflect.TypeFor[Limits](),
		reflect.TypeFor[Vault](), reflect.TypeFor[VaultAuth](),
	} {
		if t.Name() != structName {
			continue
		}
		for field := range t.Fields() {
			names = append(names, field.Tag.Get("yaml"))
		}
	}
	return names
}

// prefixed puts the file's name before every line of err.
func prefixed(file string, err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = file + ": " + line
	}
	return errors.New(strings.Join(lines, "\n"))
}
