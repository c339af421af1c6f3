package bundle

import (
	"context"
	"log/slog"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// Settings is an age-encrypted YAML file of paths to keys and values. Both files
// are read again when they change.
type Settings struct {
	// File is the bundle, as `keymount bundle encrypt` writes it. Required.
	File string `yaml:"file"`
	// IdentityFile is the age identity (private key) that opens the bundle, as
	// `keymount bundle keygen` writes it. Required.
	IdentityFile string `yaml:"identityFile"`
	// TokenAudience is the audience of the pods' tokens; the CSIDriver object's
	// tokenRequests must list it. Default: keymount.
	TokenAudience string `yaml:"audience"`
}

// DefaultAudience is the default of TokenAudience.
const DefaultAudience = "keymount"

// Kind is the kind of a bundle.
type Kind struct{}

// Name implements [kind.Kind].
func (Kind) Name() string { return "bundle" }

// Example implements [kind.Kind].
func (Kind) Example() string { return "bundle: {file: ..., identityFile: ...}" }

// New implements [kind.Kind].
func (Kind) New() kind.Settings { return &Settings{} }

// Traits implements [kind.Kind]: a bundle has its secrets at hand.
func (Kind) Traits() kind.Traits {
	var traits kind.Traits
	traits.NoMemory.Refresh = "a bundle is read again when its file changes"
	traits.NoMemory.Stale = "a bundle lies on the node and has no outages"
	traits.NoMemory.MemoryMiB = "a bundle is kept as a whole"
	return traits
}

// Check implements [kind.Settings].
func (s *Settings) Check(m kind.Mistakes) {
	if s.TokenAudience == "" {
		s.TokenAudience = DefaultAudience
	}
	if s.File == "" {
		m.At("file").Add("missing; name the encrypted bundle")
	}
	if s.IdentityFile == "" {
		m.At("identityFile").Add("missing; 'keymount bundle keygen' makes one")
	}
}

// Audience implements [kind.Settings].
func (s *Settings) Audience() string { return s.TokenAudience }

// Files implements [kind.Settings].
func (s *Settings) Files() []*string { return []*string{&s.File, &s.IdentityFile} }

// Fingerprint implements [kind.Settings]. A bundle keeps no state.
func (s *Settings) Fingerprint() []any { return []any{s.File} }

// Path implements [kind.Settings].
func (*Settings) Path(text string) (store.Path, error) { return store.ParsePath(text) }

// IsText implements [kind.Settings]: a secret of a bundle has keys.
func (*Settings) IsText(store.Path) bool { return false }

// Fits implements [kind.Settings]: no other provider has bundles.
func (*Settings) Fits(kind.Place) bool { return false }

// Warn implements [kind.Inspected].
func (*Settings) Warn(kind.Mistakes) {}

// Inspect implements [kind.Inspected]: the identity opens the bundle.
func (s *Settings) Inspect(_ context.Context, m kind.Mistakes) {
	opened := New(s.File, s.IdentityFile, slog.New(slog.DiscardHandler))
	read := opened.readBoth()
	if read.bundle.err != nil {
		amiss(m.At("file"), fault(read.bundle.err, "bundle", s.File, "file"))
	}
	if read.identity.err != nil {
		amiss(m.At("identityFile"), fault(read.identity.err, "identity file", s.IdentityFile, "identityFile"))
		return
	}
	if _, err := ParseIdentities(read.identity.data.Reveal()); err != nil {
		amiss(m.At("identityFile"), invalid(err, "identity file %s", s.IdentityFile))
	} else if read.bundle.err == nil {
		if _, err := opened.open(read); err != nil {
			amiss(m.At("file"), err)
		}
	}
}

// amiss leaves out the reason, which is for those that may try again.
func amiss(m kind.Mistakes, e *store.Error) {
	if e.Cause != nil {
		m.Add("%s: %w", e.Said, e.Cause)
		return
	}
	m.Add("%s", e.Said)
}

// Open implements [kind.Settings].
func (s *Settings) Open(env kind.Env) (kind.Layers, error) {
	opened := New(s.File, s.IdentityFile, env.Log)
	opened.told = env.Loaded
	return kind.Layers{Store: opened, Recaller: opened, Probe: opened.Check}, nil
}
