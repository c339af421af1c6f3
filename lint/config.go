package lint

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// known is what a keymount.yaml says.
type known struct {
	*config.Config

	stores map[string]class.Store
}

// readConfigs reads those among the files, and the one that the classes are held against.
func (c *checker) readConfigs(files []*manifest.File) {
	c.configs = map[*manifest.File]bool{}
	var good []*config.Config
	for _, f := range files {
		if c.isConfig(f) && (c.o.Config == nil || !f.Same(c.o.Config)) {
			if read := c.readConfig(f); read != nil {
				good = append(good, read)
			}
		}
	}
	if c.o.Config != nil {
		good = []*config.Config{c.readConfig(c.o.Config)}
	}
	if len(good) != 1 || good[0] == nil {
		return // none, or no one
	}
	c.config = &known{good[0], map[string]class.Store{}}
	for _, s := range good[0].Stores {
		c.config.stores[s.Name] = class.Store{Traits: s.Kind.Traits(), Settings: s.Settings}
	}
}

// isConfig tells a keymount.yaml, or values of the chart with one in them.
func (c *checker) isConfig(f *manifest.File) bool {
	if len(f.Objects) == 0 || f.Objects[0].Kind != "" || f.Objects[0].APIVersion != "" {
		return false
	}
	node := f.Objects[0].Node
	return c.hasStore(manifest.Field(node, "stores")) || c.hasStore(manifest.Field(node, "config", "stores"))
}

// hasStore tells a list of stores from one of something else by the fields that no other
// program has.
func (c *checker) hasStore(list *yaml.Node) bool {
	return slices.ContainsFunc(items(list), func(store *yaml.Node) bool {
		isKind := func(k kind.Kind) bool { return manifest.Key(store, k.Name()) != nil }
		return manifest.Key(store, "access") != nil || slices.ContainsFunc(c.o.Kinds, isKind)
	})
}

func (c *checker) readConfig(f *manifest.File) (read *config.Config) {
	c.configs[f] = true
	text := config.New(f.Name, f.Text)
	c.contained(f, nil, func() {
		var err error
		read, err = text.Config(c.o.Kinds)
		for _, m := range config.Mistakes(err) {
			c.ofConfig(f, m, Error)
		}
		if err == nil && c.o.Warn != nil {
			for _, m := range text.Placed(c.o.Warn(read)) {
				c.ofConfig(f, m, Warning)
			}
		}
	})
	return read
}

func (c *checker) ofConfig(f *manifest.File, m config.Mistake, severity Severity) {
	text := m.Text
	if m.Place != "" {
		text = m.Place + ": " + text
	}
	c.at(f, manifest.Position{Line: m.Line, Column: m.Column}, "config", severity, "%s", text)
}

// serves tells whether keymount answers for classes of a provider.
func (k *known) serves(provider string) bool {
	return slices.ContainsFunc(k.Sockets, func(socket string) bool {
		return socket[strings.LastIndexByte(socket, '/')+1:] == provider+".sock"
	})
}

// storesFor are the stores that classes in a dialect are held against: those of
// keymount.yaml, or any where it does not serve the dialect, or there is none.
func (c *checker) storesFor(d class.Dialect) map[string]class.Store {
	if c.config != nil && (d == class.DialectKeymount || c.config.serves(string(d))) {
		return c.config.stores
	}
	return map[string]class.Store{class.AnyStore: {
		Traits: kind.Traits{Roles: access.Optional, Versions: true, Writes: true}, Settings: anySettings{c.o.Kinds},
	}}
}

// anySettings spell paths as some kind of store does.
type anySettings struct{ kinds []kind.Kind }

// Audience is unknown.
func (anySettings) Audience() string { return "" }

// Fits is for any store.
func (anySettings) Fits(kind.Place) bool { return true }

// Path is the spelling of the first kind that has one.
func (a anySettings) Path(text string) (path store.Path, err error) {
	for _, k := range a.kinds {
		if path, err = k.New().Path(text); err == nil {
			return path, nil
		}
	}
	if err != nil {
		return path, err //nolint:wrapcheck // it says what is wrong
	}
	return store.ParsePath(text) //nolint:wrapcheck // likewise
}

// IsText is true where some kind of store may answer with a text.
func (a anySettings) IsText(path store.Path) bool {
	return slices.ContainsFunc(a.kinds, func(k kind.Kind) bool { return k.New().IsText(path) })
}
