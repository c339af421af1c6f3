package config

import (
	"cmp"
	"fmt"
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
	"github.com/keymount/keymount/store/kind"
)

// maxSocketPath leaves room for the suffix a socket is born with; the kernel
// allows 107 bytes.
const maxSocketPath = 103

var (
	storeName    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	providerSock = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,30}\.sock$`)
)

func (c *Config) validate() []kind.Mistake {
	m := kind.NewMistakes()
	c.validateStores(m.At("stores"))
	c.validateIssuers(m)
	c.validateSockets(m)
	c.validateStatus(m.At("statusSocket"))
	c.validateMetrics(m.At("metrics"))
	c.validateState(m.At("stateFolder"))
	validateMiB(m.At("memoryMiB"), c.MemoryMiB)
	c.Audit.validate(m.At("audit"))
	c.Limits.validate(m.At("limits"))
	return m.All()
}

func (c *Config) validateStores(m kind.Mistakes) {
	if len(c.Stores) == 0 {
		m.Add("none; name at least one")
	}
	seen := map[string]int{}
	for i := range c.Stores {
		name := c.Stores[i].Name
		place := m.Index(i)
		c.Stores[i].validate(place)
		if first, twice := seen[name]; twice {
			place.At("name").Add("%q is also the name of stores[%d]", name, first)
		}
		seen[name] = i
	}
}

func (s *Store) validate(m kind.Mistakes) {
	if !storeName.MatchString(s.Name) {
		m.At("name").Add("%q is not made of lower-case letters, digits and dashes, 63 at most", s.Name)
	}
	slices.SortFunc(s.named, func(a, b string) int { return slices.Index(s.MoreFields(), a) - slices.Index(s.MoreFields(), b) })
	switch len(s.named) {
	case 0:
		// Rules are checked once there is a kind: it decides whether they need roles.
		m.Add("says no kind of store; add %s", s.examples())
		return
	case 1:
	default:
		m.Add("is a %s; make %s stores of it", strings.Join(s.named, " and a "), words(len(s.named)))
		return
	}
	s.Settings.Check(m.At(s.Kind.Name()))
	s.validateSession(m.At("session"))
	if s.Access.Store && !s.Kind.Traits().Policies {
		m.At("access").Add("store leaves the decision to the store's own policies, and a %s has none; write rules", s.Kind.Name())
	}
	s.validateMemory(m)
	rules, err := s.compile(m.At("access").Place())
	if err != nil {
		m.Join(err)
		return
	}
	s.Access.compiled = &rules
}

// examples are the kinds of store, as written in keymount.yaml.
func (s *Store) examples() string {
	examples := make([]string, len(s.kinds))
	for i, k := range s.kinds {
		examples[i] = k.Example()
	}
	last := len(examples) - 1
	if last < 1 {
		return strings.Join(examples, "")
	}
	return strings.Join(examples[:last], ", ") + " or " + examples[last]
}

func words(n int) string {
	if n == 2 {
		return "two"
	}
	return strconv.Itoa(n)
}

func (s *Store) validateSession(m kind.Mistakes) {
	switch {
	case s.Kind.Traits().Logins:
		m.OneOf(s.Session, SessionServiceAccount, SessionPod)
	case s.Session != "":
		m.Add("a %s has no logins; remove it", s.Kind.Name())
	}
}

// validateMemory checks the bounds of remembered secrets: their age and size.
func (s *Store) validateMemory(m kind.Mistakes) {
	const longestRefresh, longestStale = time.Hour, 7 * 24 * time.Hour
	if !s.Kind.Traits().Memory {
		why := s.Kind.Traits().NoMemory
		refuse := func(field string, there bool, why string) {
			if there {
				m.At(field).Add("%s; remove it", cmp.Or(why, "a "+s.Kind.Name()+" is asked every time"))
			}
		}
		refuse("refresh", s.Refresh != nil, why.Refresh)
		refuse("refreshMax", s.RefreshMax != nil, why.Refresh)
		refuse("stale", s.Stale != nil, why.Stale)
		refuse("memoryMiB", s.MemoryMiB != nil, why.MemoryMiB)
		return
	}
	switch refresh, most := *s.Refresh, *s.RefreshMax; {
	case refresh < 0 || refresh > longestRefresh:
		m.At("refresh").Add("%s is not from 0s to 1h", refresh)
	case most > longestRefresh:
		m.At("refreshMax").Add("%s is more than 1h", most)
	case most < refresh:
		m.At("refreshMax").Add("%s is less than refresh, which is %s; raise it, or lower refresh", most, refresh)
	case most > refresh && *s.Stale > 0 && most >= *s.Stale:
		m.At("refreshMax").Add("%s leaves nothing of stale, which is %s and counts from the last read; lower refreshMax, or raise stale", most, *s.Stale)
	case refresh == 0 && most > 0:
		m.At("refreshMax").Add("with refresh: 0s every mount reads; remove it, or raise refresh")
	}
	if *s.Stale < 0 || *s.Stale > longestStale {
		m.At("stale").Add("%s is not from 0s to 168h", *s.Stale)
	}
	validateMiB(m.At("memoryMiB"), s.MemoryMiB)
}

func validateMiB(m kind.Mistakes, mib *int) {
	if mib != nil && (*mib < 1 || *mib > MostMiB) {
		m.Add("%d is not from 1 to %d", *mib, MostMiB)
	}
}

func (a *Audit) validate(m kind.Mistakes) {
	const mostMiB, leastAge, mostAge = 10240, time.Minute, 365 * 24 * time.Hour
	m.At("onFailure").OneOf(a.OnFailure, OnFailureBlock, OnFailureContinue)
	m.At("sync").OneOf(a.Sync, SyncInterval, SyncAlways)
	m.At("republishes").OneOf(a.Republishes, RepublishesSum, RepublishesFull)
	if *a.Enabled && !*a.Stdout && a.File == "" {
		m.Add("goes nowhere; name a file, remove stdout: false, or write enabled: false")
	}
	if a.File == "" {
		a.validateWithoutFile(m)
		return
	}
	if a.StateFile != "" {
		m.At("stateFile").Add("the file of the trail holds what it would; remove it")
	}
	if *a.MaxSizeMiB < 1 || *a.MaxSizeMiB > mostMiB {
		m.At("maxSizeMiB").Add("%d is not from 1 to %d", *a.MaxSizeMiB, mostMiB)
	}
	if *a.MaxAge < leastAge || *a.MaxAge > mostAge {
		m.At("maxAge").Add("%s is not from 1m to 8760h", *a.MaxAge)
	}
	if *a.Keep < 0 {
		m.At("keep").Add("%d is less than 0, which keeps all", *a.Keep)
	}
}

func (a *Audit) validateWithoutFile(m kind.Mistakes) {
	refuse := func(field string, there bool) {
		if there {
			m.At(field).Add("is about a file, and audit names none; add file, or remove it")
		}
	}
	refuse("maxSizeMiB", a.MaxSizeMiB != nil)
	refuse("maxAge", a.MaxAge != nil)
	refuse("keep", a.Keep != nil)
}

// Rules are the store's access rules, compiled when keymount.yaml was read. For any
// other Store they allow nothing.
func (s *Store) Rules() access.Rules {
	if s.Access.compiled == nil {
		return access.Rules{}
	}
	return *s.Access.compiled
}

func (s *Store) compile(place string) (access.Rules, error) {
	if s.Access.Store {
		return access.Open(place), nil
	}
	rules := make([]access.Rule, len(s.Access.Rules))
	for i, r := range s.Access.Rules {
		rules[i] = access.Rule(r)
	}
	traits := s.Kind.Traits()
	return access.Compile(place, rules, access.Kind{Roles: traits.Roles, Writes: traits.Writes, Never: kind.Never(s.Settings)})
}

func (c *Config) validateIssuers(m kind.Mistakes) {
	if len(c.Issuers) == 0 {
		m.At("issuers").Add("an empty list accepts no token; remove it to accept this cluster's")
	}
	seen := map[string]int{}
	for i, issuer := range c.Issuers {
		place := m.At(fmt.Sprintf("issuers[%d]", i))
		issuer.validate(place)
		name := issuer.Issuer
		if name == "" && issuer.Keys == KeysCluster {
			name = KeysCluster
		}
		if first, twice := seen[name]; twice && name != "" {
			place.Add("%q is also issuers[%d]; tokens have one place to be checked", name, first)
		}
		seen[name] = i
	}
}

func (i Issuer) validate(m kind.Mistakes) {
	known := []string{KeysCluster, KeysDiscovery, KeysFile}
	switch i.Keys {
	case "":
		m.At("keys").Add("missing; it is one of %s", strings.Join(known, ", "))
		return
	case KeysCluster:
	case KeysDiscovery:
		if u, err := url.Parse(i.Issuer); err != nil || u.Scheme != "https" || u.Host == "" {
			m.At("issuer").Add("%q is not an https URL, which keys: discovery needs", i.Issuer)
		}
	case KeysFile:
		if i.Issuer == "" {
			m.At("issuer").Add("missing; write the exact iss of the tokens")
		}
		if i.KeysFile == "" {
			m.At("keysFile").Add("missing; name a JSON Web Key Set")
		}
	default:
		m.At("keys").Add("%q is none of %s%s", i.Keys, strings.Join(known, ", "), spelling.Hint(i.Keys, known))
		return
	}
	if i.KeysFile != "" && i.Keys != KeysFile {
		m.At("keysFile").Add("is only for keys: file; remove it")
	}
	if i.CAFile != "" && i.Keys != KeysDiscovery {
		m.At("caFile").Add("is only for keys: discovery; remove it")
	}
}

func (c *Config) validateSockets(m kind.Mistakes) {
	if len(c.Sockets) == 0 {
		m.At("sockets").Add("an empty list serves nobody; remove it to serve %s", DefaultSocket)
	}
	seen := map[string]bool{}
	for i, socket := range c.Sockets {
		place := m.At(fmt.Sprintf("sockets[%d]", i))
		name := socket[strings.LastIndexByte(socket, '/')+1:]
		switch {
		case len(socket) > maxSocketPath:
			place.Add("%d bytes are more than a socket's path may have (%d)", len(socket), maxSocketPath)
		case !providerSock.MatchString(name):
			place.Add("the driver never looks for %q; name it after the provider of the classes: letters, digits, - and _, 30 at most, then .sock", name)
		case seen[socket]:
			place.Add("%q is listed twice", socket)
		}
		seen[socket] = true
	}
}

func (c *Config) validateStatus(m kind.Mistakes) {
	folder := func(path string) string { return path[:strings.LastIndexByte(path, '/')+1] }
	switch {
	case c.StatusSocket == "":
	case len(c.StatusSocket) > maxSocketPath:
		m.Add("%d bytes are more than a socket's path may have (%d)", len(c.StatusSocket), maxSocketPath)
	case slices.ContainsFunc(c.Sockets, func(socket string) bool { return folder(socket) == folder(c.StatusSocket) }):
		m.Add("%q is in the folder of the driver's sockets, each of which a class can name as its provider; name one in another folder, such as /run/keymount/status.sock", c.StatusSocket)
	}
}

func (c *Config) validateMetrics(m kind.Mistakes) {
	if c.Metrics == "" {
		return
	}
	_, port, err := net.SplitHostPort(c.Metrics)
	number, notNumber := strconv.ParseUint(port, 10, 16)
	if err != nil || notNumber != nil || number == 0 {
		m.Add(`%q is not of the form host:port; write ":9090" for every address, or "127.0.0.1:9090" for this machine alone`, c.Metrics)
	}
}

func (c *Config) validateState(m kind.Mistakes) {
	if c.StateFolder == "" {
		return
	}
	if !filepath.IsAbs(c.StateFolder) {
		m.Add("%q is not an absolute path; name a folder on a tmpfs, such as /run/keymount/state", c.StateFolder)
	}
	if c.VersionKeyFile == "" {
		m.Add("needs versionKeyFile, which what it holds is encrypted with")
	}
}

func (l Limits) validate(m kind.Mistakes) {
	if l.MountDeadline < time.Second || l.MountDeadline > 110*time.Second {
		m.At("mountDeadline").Add("%s is not from 1s to 110s", l.MountDeadline)
	}
	if l.RotationPollInterval < 0 || l.RotationPollInterval > time.Hour {
		m.At("rotationPollInterval").Add("%s is not from 0s to 1h", l.RotationPollInterval)
	}
	if l.ReadinessBound < 0 || l.ReadinessBound > time.Hour {
		m.At("readinessBound").Add("%s is not from 0s to 1h", l.ReadinessBound)
	}
	if l.ParallelReads < 1 || l.ParallelReads > 64 {
		m.At("parallelReads").Add("%d is not from 1 to 64", l.ParallelReads)
	}
}
