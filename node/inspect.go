package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store/kind"
)

// Inspect looks into the files that keymount.yaml names, as Open and the first mounts
// would: whether they are there, can be read, and are what they have to be. It asks
// nothing over a network.
func Inspect(ctx context.Context, c *config.Config) []kind.Mistake {
	m := kind.NewMistakes()
	for i := range c.Stores {
		s := &c.Stores[i]
		kind.Inspect(ctx, s.Settings, m.At("stores").Index(i).At(s.Kind.Name()))
	}
	for i, issuer := range c.Issuers {
		inspectIssuer(ctx, issuer, m.At("issuers").Index(i))
	}
	if c.VersionKeyFile != "" {
		_, err := provider.ReadVersionKey(c.VersionKeyFile)
		if cause := errors.Unwrap(err); cause != nil { // the place names the field
			err = fmt.Errorf("%s: %w", c.VersionKeyFile, cause)
		}
		report(m.At("versionKeyFile"), c.VersionKeyFile, err)
	}
	if c.Audit.KeyFile != "" {
		_, err := audit.ReadKey(c.Audit.KeyFile)
		report(m.At("audit").At("keyFile"), c.Audit.KeyFile, errors.Unwrap(err)) // the place names the field
	}
	return m.All()
}

func inspectIssuer(ctx context.Context, i config.Issuer, m kind.Mistakes) {
	if i.KeysFile != "" {
		_, _, err := auth.FileKeys{Issuer: i.Issuer, File: i.KeysFile}.Keys(ctx)
		report(m.At("keysFile"), i.KeysFile, err)
	}
	if i.CAFile != "" {
		_, err := auth.NewDiscoveryKeys(i.Issuer, i.CAFile)
		report(m.At("caFile"), i.CAFile, errors.Unwrap(err)) // the place names the field
	}
}

// report notes what a file is not, if it is anything.
func report(m kind.Mistakes, file string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		m.Add("%s does not exist; put it there, or correct the name", file)
	case errors.Is(err, fs.ErrPermission):
		m.Add("%s: permission denied; let keymount's user read it", file)
	case isFolder(file):
		m.Add("%s is a folder; name a file in it", file)
	default:
		m.Add("%w", err)
	}
}

func isFolder(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.IsDir()
}

// Warn is what keymount.yaml may say and seldom means.
func Warn(c *config.Config) []kind.Mistake {
	m := kind.NewMistakes()
	for i := range c.Stores {
		s := &c.Stores[i]
		place := m.At("stores").Index(i)
		kind.Warn(s.Settings, place.At(s.Kind.Name()))
		for n, rule := range s.Access.Rules {
			place := place.At("access").Index(n)
			warnRegular(place.At("roles"), rule.Roles)
			warnRegular(place.At("paths"), rule.Paths)
			warnRegular(place.At("writes"), rule.Writes)
		}
	}
	return m.All()
}

// warnRegular tells of patterns that look like regular expressions: paths and roles may
// have such names, unlike namespaces.
func warnRegular(m kind.Mistakes, patterns []string) {
	for i, text := range patterns {
		for _, sign := range []string{".*", ".+", "]+", "]*", ")+", ")*", "^", "$", "|"} {
			if strings.Contains(text, sign) {
				m.Index(i).Add(`%q looks like a regular expression; in a pattern only "*" has a meaning, any characters but a slash`, text)
				break
			}
		}
	}
}
