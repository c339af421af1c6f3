package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
)

// maxSocketPath leaves room for the suffix a socket is born with; the kernel
// allows 107 bytes.
const maxSocketPath = 103

var (
	storeName    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	providerSock = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,30}\.sock$`)
)

// mistakes collects what is wrong, each with its place in the file.
type mistakes struct {
	place string
	all   *[]error
}

// at is the same collection for a place further in.
func (m mistakes) at(place string) mistakes {
	if m.place != "" && place != "" {
		place = m.place + "." + place
	}
	return mistakes{place: place, all: m.all}
}

func (m mistakes) add(format string, args ...any) {
	*m.all = append(*m.all, fmt.Errorf("%s: %w", m.place, fmt.Errorf(format, args...)))
}

func (c *Config) validate() error {
	var all []error
	m := mistakes{all: &all}
	c.validateStores(m.at("stores"))
	c.validateIssuers(m)
	c.validateSockets(m)
	c.validateMetrics(m.at("metrics"))
	c.validateState(m.at("stateFolder"))
	c.Limits.validate(m.at("limits"))
	return errors.Join(all...)
}

func (c *Config) validateStores(m mistakes) {
	if len(c.Stores) == 0 {
		m.add("none; name at least one")
	}
	seen := map[string]int{}
	for i := range c.Stores {
		name := c.Stores[i].Name
		place := mistakes{fmt.Sprintf("%s[%d]", m.place, i), m.all}
		c.Stores[i].validate(place)
		if first, twice := seen[name]; twice {
			place.at("name").add("%q is also the name of stores[%d]", name, first)
		}
		seen[name] = i
	}
}

func (s Store) validate(m mistakes) {
	if !storeName.MatchString(s.Name) {
		m.at("name").add("%q is not made of lower-case letters, digits and dashes, 63 at most", s.Name)
	}
	switch {
	case s.Bundle != nil && s.Vault != nil:
		m.add("is a bundle and a vault; make two stores of it")
		return
	case s.Vault != nil:
		s.Vault.validate(m.at("vault"))
		oneOf(m.at("session"), s.Session, SessionServiceAccount, SessionPod)
	case s.Bundle != nil:
		s.Bundle.validate(m.at("bundle"))
		if s.Session != "" {
			m.at("session").add("a bundle has no logins; remove it")
		}
		if s.Access.Store {
			m.at("access").add("store leaves the decision to the store's own policies, and a bundle has none; write rules")
		}
	default:
		// Whether a rule needs roles depends on the kind: judge them once it is there.
		m.add("says no kind of store; add bundle: {file: ..., identityFile: ...} or vault: {addresses: [...]}")
		return
	}
	s.validateMemory(m)
	if _, err := s.compile(m.at("access").place); err != nil {
		*m.all = append(*m.all, err)
	}
}

// validateMemory checks how long what was read counts, and how much of it.
func (s Store) validateMemory(m mistakes) {
	const longestRefresh, longestStale, mostMiB = time.Hour, 7 * 24 * time.Hour, 1024
	if s.Bundle != nil && s.Refresh != nil {
		m.at("refresh").add("a bundle is read again when its file changes; remove it")
	}
	if s.Bundle != nil && s.Stale != nil {
		m.at("stale").add("a bundle lies on the node and has no outages; remove it")
	}
	if s.Bundle != nil && s.MemoryMiB != nil {
		m.at("memoryMiB").add("a bundle is kept as a whole; remove it")
	}
	if s.Vault != nil && (*s.Refresh < 0 || *s.Refresh > longestRefresh) {
		m.at("refresh").add("%s is not from 0s to 1h", *s.Refresh)
	}
	if s.Vault != nil && (*s.Stale < 0 || *s.Stale > longestStale) {
		m.at("stale").add("%s is not from 0s to 168h", *s.Stale)
	}
	if s.Vault != nil && (*s.MemoryMiB < 1 || *s.MemoryMiB > mostMiB) {
		m.at("memoryMiB").add("%d is not from 1 to 1024", *s.MemoryMiB)
	}
}

// Rules are the store's access rules, compiled.
func (s Store) Rules() (access.Rules, error) { return s.compile("access") }

func (s Store) compile(place string) (access.Rules, error) {
	if s.Access.Store {
		return access.Open(), nil
	}
	rules := make([]access.Rule, len(s.Access.Rules))
	for i, r := range s.Access.Rules {
		rules[i] = access.Rule(r)
	}
	return access.Compile(place, rules, s.HasRoles())
}

// HasRoles tells whether a class may name a role of this store.
func (s Store) HasRoles() bool { return s.Bundle == nil }

// Audience is what a token for this store must be made for.
func (s Store) Audience() string {
	if s.Vault != nil {
		return s.Vault.Auth.Audience
	}
	return s.Bundle.Audience
}

func (v Vault) validate(m mistakes) {
	if len(v.Addresses) == 0 {
		m.at("addresses").add("missing; name at least one: https://host:port")
	}
	for i, address := range v.Addresses {
		u, err := url.Parse(address)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			m.at(fmt.Sprintf("addresses[%d]", i)).add("%q is not of the form https://host:port", address)
		}
	}
	for _, mount := range slices.Sorted(maps.Keys(v.Mounts)) {
		if _, err := store.ParsePath(mount); err != nil {
			m.at("mounts").add("%w", err)
		}
		oneOf(m.at("mounts."+mount), v.Mounts[mount], "kv1", "kv2", "other")
	}
	oneOf(m.at("auth.method"), v.Auth.Method, MethodKubernetes, MethodJWT)
	if _, err := store.ParsePath(v.Auth.Mount); err != nil {
		m.at("auth.mount").add("%w", err)
	}
	if (v.CertFile == "") != (v.KeyFile == "") {
		m.at("certFile").add("goes with keyFile; write both or none")
	}
}

func oneOf(m mistakes, value string, known ...string) {
	if !slices.Contains(known, value) {
		m.add("%q is none of %s%s", value, strings.Join(known, ", "), spelling.Hint(value, known))
	}
}

func (b Bundle) validate(m mistakes) {
	if b.File == "" {
		m.at("file").add("missing; name the encrypted bundle")
	}
	if b.IdentityFile == "" {
		m.at("identityFile").add("missing; 'keymount bundle keygen' makes one")
	}
}

func (c *Config) validateIssuers(m mistakes) {
	if len(c.Issuers) == 0 {
		m.at("issuers").add("an empty list accepts no token; remove it to accept this cluster's")
	}
	seen := map[string]int{}
	for i, issuer := range c.Issuers {
		place := m.at(fmt.Sprintf("issuers[%d]", i))
		issuer.validate(place)
		name := issuer.Issuer
		if name == "" && issuer.Keys == KeysCluster {
			name = KeysCluster
		}
		if first, twice := seen[name]; twice && name != "" {
			place.add("%q is also issuers[%d]; tokens have one place to be checked", name, first)
		}
		seen[name] = i
	}
}

func (i Issuer) validate(m mistakes) {
	known := []string{KeysCluster, KeysDiscovery, KeysFile}
	switch i.Keys {
	case "":
		m.at("keys").add("missing; it is one of %s", strings.Join(known, ", "))
		return
	case KeysCluster:
	case KeysDiscovery:
		if u, err := url.Parse(i.Issuer); err != nil || u.Scheme != "https" || u.Host == "" {
			m.at("issuer").add("%q is not an https URL, which keys: discovery needs", i.Issuer)
		}
	case KeysFile:
		if i.Issuer == "" {
			m.at("issuer").add("missing; write the exact iss of the tokens")
		}
		if i.KeysFile == "" {
			m.at("keysFile").add("missing; name a JSON Web Key Set")
		}
	default:
		m.at("keys").add("%q is none of %s%s", i.Keys, strings.Join(known, ", "), spelling.Hint(i.Keys, known))
		return
	}
	if i.KeysFile != "" && i.Keys != KeysFile {
		m.at("keysFile").add("is only for keys: file; remove it")
	}
	if i.CAFile != "" && i.Keys != KeysDiscovery {
		m.at("caFile").add("is only for keys: discovery; remove it")
	}
}

func (c *Config) validateSockets(m mistakes) {
	if len(c.Sockets) == 0 {
		m.at("sockets").add("an empty list serves nobody; remove it to serve %s", DefaultSocket)
	}
	seen := map[string]bool{}
	for i, socket := range c.Sockets {
		place := m.at(fmt.Sprintf("sockets[%d]", i))
		name := socket[strings.LastIndexByte(socket, '/')+1:]
		switch {
		case len(socket) > maxSocketPath:
			place.add("%d bytes are more than a socket's path may have (%d)", len(socket), maxSocketPath)
		case !providerSock.MatchString(name):
			place.add("the driver never looks for %q; name it after the provider of the classes: letters, digits, - and _, 30 at most, then .sock", name)
		case seen[socket]:
			place.add("%q is listed twice", socket)
		}
		seen[socket] = true
	}
}

func (c *Config) validateMetrics(m mistakes) {
	if c.Metrics == "" {
		return
	}
	_, port, err := net.SplitHostPort(c.Metrics)
	number, notNumber := strconv.ParseUint(port, 10, 16)
	if err != nil || notNumber != nil || number == 0 {
		m.add(`%q is not of the form host:port; write ":9090" for every address, or "127.0.0.1:9090" for this machine alone`, c.Metrics)
	}
}

func (c *Config) validateState(m mistakes) {
	if c.StateFolder == "" {
		return
	}
	if !filepath.IsAbs(c.StateFolder) {
		m.add("%q is not an absolute path; name a folder on a tmpfs, such as /run/keymount/state", c.StateFolder)
	}
	if c.VersionKeyFile == "" {
		m.add("needs versionKeyFile, which what it holds is encrypted with")
	}
}

func (l Limits) validate(m mistakes) {
	if l.MountDeadline < time.Second || l.MountDeadline > 110*time.Second {
		m.at("mountDeadline").add("%s is not from 1s to 110s", l.MountDeadline)
	}
	if l.RotationPollInterval < 0 || l.RotationPollInterval > time.Hour {
		m.at("rotationPollInterval").add("%s is not from 0s to 1h", l.RotationPollInterval)
	}
	if l.ParallelReads < 1 || l.ParallelReads > 64 {
		m.at("parallelReads").add("%d is not from 1 to 64", l.ParallelReads)
	}
}
