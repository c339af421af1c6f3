package config

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/strict"
	"github.com/keymount/keymount/store/kind"
)

// Load reads keymount.yaml with stores of these kinds, fills in the defaults and makes
// file names absolute. The error holds every mistake of form (names and types) or else
// every one of content, one a line, each a [Mistake] and beginning with the file's name; a
// [Config] without an error needs no further checks.
func Load(file string, kinds []kind.Kind) (*Config, error) {
	text, err := Open(file)
	if err != nil {
		return nil, err
	}
	return text.Config(kinds)
}

// Parse is Load for a text in memory; file names stay as written.
func Parse(data []byte, kinds []kind.Kind) (*Config, error) { return New("", data).Config(kinds) }

// decode reads a node of a document. Its mistakes have their lines.
func decode(node *yaml.Node, kinds []kind.Kind) (*Config, []error) {
	// Limits start with their defaults, so that a 0 in the file is seen as one.
	c := Config{Limits: defaultLimits()}
	knowKinds := func(entry any) {
		if s, ok := entry.(*Store); ok {
			s.kinds = kinds
		}
	}
	return &c, strict.Decode(node, &c, knowKinds)
}

func defaultLimits() Limits {
	return Limits{
		MountDeadline: defaultMountDeadline, ParallelReads: defaultParallelReads, RotationPollInterval: defaultPollInterval, ReadinessBound: defaultReadiness,
	}
}

// Assume is a keymount.yaml with stores of these kinds by name, in which nothing else is
// said: their rules allow everything, and what has no default is empty.
func Assume(stores map[string]kind.Kind) *Config {
	c := &Config{Limits: defaultLimits()}
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		s := Store{Name: name, Kind: stores[name], Settings: stores[name].New(), Access: Access{Store: true}}
		s.Settings.Check(kind.NewMistakes()) // which fills in the defaults
		rules, _ := s.compile("stores")      // there are none to be wrong
		s.Access.compiled = &rules
		c.Stores = append(c.Stores, s)
	}
	c.setDefaults()
	return c
}

// refreshMaxOf is the default of refreshMax. It leaves half of stale, which counts from the
// last read, for an outage.
func refreshMaxOf(refresh, stale time.Duration) time.Duration {
	most := defaultRefreshMax
	switch {
	case refresh == 0: // so every mount reads
		return 0
	case stale > 0:
		most = min(most, stale/2)
	}
	return max(refresh, most)
}

func (c *Config) setDefaults() {
	for i := range c.Stores {
		s := &c.Stores[i]
		s.Name = orDefault(s.Name, DefaultStore)
		if s.Kind == nil {
			continue
		}
		if s.Kind.Traits().Logins {
			s.Session = orDefault(s.Session, SessionServiceAccount)
		}
		if s.Kind.Traits().Memory {
			s.Refresh, s.Stale = cmp.Or(s.Refresh, new(defaultRefresh)), cmp.Or(s.Stale, new(defaultStale))
			s.RefreshMax = cmp.Or(s.RefreshMax, new(refreshMaxOf(*s.Refresh, *s.Stale)))
		}
	}
	c.Audit.setDefaults()
	if c.Issuers == nil {
		c.Issuers = []Issuer{{Keys: KeysCluster}}
	}
	if c.Sockets == nil {
		c.Sockets = []string{DefaultSocket}
	}
}

func (a *Audit) setDefaults() {
	a.Enabled = cmp.Or(a.Enabled, new(true))
	a.Stdout = cmp.Or(a.Stdout, new(a.File == ""))
	a.OnFailure, a.Sync, a.Republishes = orDefault(a.OnFailure, OnFailureBlock), orDefault(a.Sync, SyncInterval), orDefault(a.Republishes, RepublishesSum)
	if a.File != "" {
		a.MaxSizeMiB, a.MaxAge, a.Keep = cmp.Or(a.MaxSizeMiB, new(defaultAuditMiB)), cmp.Or(a.MaxAge, new(defaultAuditAge)), cmp.Or(a.Keep, new(defaultAuditKeep))
	}
}

// MoreFields implements [strict.More]: a store has a field for each kind.
func (s *Store) MoreFields() []string {
	names := make([]string, len(s.kinds))
	for i, k := range s.kinds {
		names[i] = k.Name()
	}
	return names
}

// MoreField implements [strict.More].
func (s *Store) MoreField(name string) any {
	s.named = append(s.named, name)
	s.Kind = s.kinds[slices.Index(s.MoreFields(), name)]
	s.Settings = s.Kind.New()
	return s.Settings
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

func (c *Config) resolve(folder string) {
	files := []*string{&c.VersionKeyFile, &c.StatusSocket, &c.Audit.File, &c.Audit.StateFile, &c.Audit.KeyFile}
	for i := range c.Sockets {
		files = append(files, &c.Sockets[i])
	}
	for i := range c.Issuers {
		files = append(files, &c.Issuers[i].KeysFile, &c.Issuers[i].CAFile)
	}
	for i := range c.Stores {
		if settings := c.Stores[i].Settings; settings != nil {
			files = append(files, settings.Files()...)
		}
	}
	for _, file := range files {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(folder, *file)
		}
	}
}

// DecodeStrict implements [strict.Self].
func (a *Access) DecodeStrict(node *yaml.Node, decode func(node *yaml.Node, into any)) {
	if a.Store = node.Kind == yaml.ScalarNode && node.Value == "store"; !a.Store {
		decode(node, &a.Rules)
	}
}
