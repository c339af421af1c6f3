package config

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/internal/spelling"
)

// maxSocketPath leaves room for the suffix a socket is born with; the kernel
// allows 107 bytes.
const maxSocketPath = 103

var (
	storeName    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	providerSock = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,30}\.sock$`)
)

func (c *Config) validate() error {
	mistakes := []error{c.validateStores()}
	for i, issuer := range c.Issuers {
		mistakes = append(mistakes, within(fmt.Sprintf("issuers[%d]", i), issuer.validate()))
	}
	if len(c.Issuers) == 0 {
		mistakes = append(mistakes, errors.New("issuers: an empty list accepts no token; remove it to accept this cluster's"))
	}
	mistakes = append(mistakes, c.validateSockets(), within("limits", c.Limits.validate()))
	return errors.Join(mistakes...)
}

func (c *Config) validateStores() error {
	if len(c.Stores) == 0 {
		return errors.New("stores: none; name at least one")
	}
	var mistakes []error
	seen := map[string]int{}
	for i, s := range c.Stores {
		place := fmt.Sprintf("stores[%d]", i)
		mistakes = append(mistakes, within(place, s.validate()))
		if first, twice := seen[s.Name]; twice {
			mistakes = append(mistakes, fmt.Errorf("%s.name: %q is also the name of stores[%d]", place, s.Name, first))
		}
		seen[s.Name] = i
	}
	return errors.Join(mistakes...)
}

func (s Store) validate() error {
	var mistakes []error
	if !storeName.MatchString(s.Name) {
		mistakes = append(mistakes, fmt.Errorf("name: %q is not made of lower-case letters, digits and dashes, 63 at most", s.Name))
	}
	if s.Bundle == nil {
		mistakes = append(mistakes, errors.New("says no kind of store; add bundle: {file: ..., identityFile: ...}"))
	} else {
		mistakes = append(mistakes, within("bundle", s.Bundle.validate()))
	}
	_, err := s.Rules()
	return errors.Join(append(mistakes, err)...)
}

// Rules compiles the store's access rules.
func (s Store) Rules() (access.Rules, error) {
	rules := make([]access.Rule, len(s.Access))
	for i, r := range s.Access {
		rules[i] = access.Rule(r)
	}
	compiled, err := access.Compile(rules, s.HasRoles())
	return compiled, joined("access", err)
}

// HasRoles tells whether a class may name a role of this store.
func (s Store) HasRoles() bool { return s.Bundle == nil }

// Audience is what a token for this store must be made for.
func (s Store) Audience() string { return s.Bundle.Audience }

func (b Bundle) validate() error {
	var mistakes []error
	if b.File == "" {
		mistakes = append(mistakes, errors.New("file: missing; name the encrypted bundle"))
	}
	if b.IdentityFile == "" {
		mistakes = append(mistakes, errors.New("identityFile: missing; `keymount bundle keygen` makes one"))
	}
	return errors.Join(mistakes...)
}

func (i Issuer) validate() error {
	var mistakes []error
	missing := func(field, value, why string) {
		if value == "" {
			mistakes = append(mistakes, fmt.Errorf("%s: missing; %s", field, why))
		}
	}
	excess := func(field, value, only string) {
		if value != "" {
			mistakes = append(mistakes, fmt.Errorf("%s: is only for keys: %s; remove it", field, only))
		}
	}
	switch i.Keys {
	case KeysCluster:
		excess("keysFile", i.KeysFile, KeysFile)
		excess("caFile", i.CAFile, KeysDiscovery)
	case KeysDiscovery:
		if u, err := url.Parse(i.Issuer); err != nil || u.Scheme != "https" || u.Host == "" {
			mistakes = append(mistakes, fmt.Errorf("issuer: %q is not an https URL, which keys: discovery needs", i.Issuer))
		}
		excess("keysFile", i.KeysFile, KeysFile)
	case KeysFile:
		missing("issuer", i.Issuer, "write the exact iss of the tokens")
		missing("keysFile", i.KeysFile, "name a JSON Web Key Set")
		excess("caFile", i.CAFile, KeysDiscovery)
	default:
		known := []string{KeysCluster, KeysDiscovery, KeysFile}
		mistakes = append(mistakes, fmt.Errorf("keys: %q is none of %s%s", i.Keys, strings.Join(known, ", "), spelling.Hint(i.Keys, known)))
	}
	return errors.Join(mistakes...)
}

func (c *Config) validateSockets() error {
	if len(c.Sockets) == 0 {
		return errors.New("sockets: an empty list serves nobody; remove it to serve " + DefaultSocket)
	}
	var mistakes []error
	seen := map[string]bool{}
	for i, socket := range c.Sockets {
		name := socket[strings.LastIndexByte(socket, '/')+1:]
		switch {
		case len(socket) > maxSocketPath:
			mistakes = append(mistakes, fmt.Errorf("sockets[%d]: %d bytes are more than a socket's path may have (%d)", i, len(socket), maxSocketPath))
		case !providerSock.MatchString(name):
			mistakes = append(mistakes, fmt.Errorf("sockets[%d]: the driver never looks for %q; name it after the provider of the classes: letters, digits, - and _, 30 at most, then .sock", i, name))
		case seen[socket]:
			mistakes = append(mistakes, fmt.Errorf("sockets[%d]: %q is listed twice", i, socket))
		}
		seen[socket] = true
	}
	return errors.Join(mistakes...)
}

func (l Limits) validate() error {
	var mistakes []error
	if l.MountDeadline < time.Second || l.MountDeadline > 110*time.Second {
		mistakes = append(mistakes, fmt.Errorf("mountDeadline: %s is not from 1s to 110s", l.MountDeadline))
	}
	if l.ParallelReads < 1 || l.ParallelReads > 64 {
		mistakes = append(mistakes, fmt.Errorf("parallelReads: %d is not from 1 to 64", l.ParallelReads))
	}
	return errors.Join(mistakes...)
}

// within puts a place and a dot (or, before prose, a colon) before each mistake.
func within(place string, err error) error {
	return eachLine(err, func(line string) string {
		if field, _, ok := strings.Cut(line, ":"); ok && !strings.Contains(field, " ") {
			return place + "." + line
		}
		return place + ": " + line
	})
}

// joined puts a place right before each mistake, which begins with an index.
func joined(place string, err error) error {
	return eachLine(err, func(line string) string { return place + line })
}

func eachLine(err error, change func(string) string) error {
	if err == nil {
		return nil
	}
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = change(line)
	}
	return errors.New(strings.Join(lines, "\n"))
}
