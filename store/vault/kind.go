package vault

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// Settings is a Vault or an OpenBao.
type Settings struct {
	// Addresses are those of one cluster, https://host:port each. The first is
	// preferred; without an answer the next is asked. Required.
	Addresses []string `yaml:"addresses"`
	// Auth is how pods log in.
	Auth Auth `yaml:"auth"`
	// Namespace is Vault's own namespace that is read in, and {namespace} in it stands for
	// the pod's. Default: the root namespace.
	Namespace string `yaml:"namespace"`
	// Mounts are the engines by mount: kv1, kv2, or other for everything else. A mount
	// missing here is looked up in Vault once, with the pod's token.
	Mounts map[string]string `yaml:"mounts"`
	// CAFile holds the PEM certificates of the servers' authorities, read again when it
	// changes. Default: the system's.
	CAFile string `yaml:"caFile"`
	// CertFile is a client certificate in PEM, read again when it changes. Default: none.
	CertFile string `yaml:"certFile"`
	// KeyFile is its private key. Required with CertFile.
	KeyFile string `yaml:"keyFile"`
	// ServerName is the name in the servers' certificates, in place of the host of the
	// address.
	ServerName string `yaml:"serverName"`
}

// Auth is the auth method that pods log in with.
type Auth struct {
	// Method is `kubernetes` or `jwt`. Default: kubernetes.
	Method string `yaml:"method"`
	// Mount is the method's mount below auth/. Default: the name of Method.
	Mount string `yaml:"mount"`
	// Namespace is Vault's own namespace that the method is mounted in, where that is another
	// than the one that is read in, such as one above it. `root` is the root namespace, and
	// {namespace} stands for the pod's. Default: the namespace of the store.
	Namespace string `yaml:"namespace"`
	// Audience is the audience of the pods' tokens; the CSIDriver object's tokenRequests
	// must list it, and the role accept it. Default: vault.
	Audience string `yaml:"audience"`
}

// The values of Auth.Method, and the default of Auth.Audience.
const (
	MethodKubernetes = "kubernetes"
	MethodJWT        = "jwt"
	DefaultAudience  = "vault"
)

// hostName is one of a certificate, where a wildcard may come first.
var hostName = regexp.MustCompile(`^(\*\.)?[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9_])?)*\.?$`)

// Kind is the kind of a Vault or an OpenBao.
type Kind struct{}

// Name implements [kind.Kind].
func (Kind) Name() string { return "vault" }

// Example implements [kind.Kind].
func (Kind) Example() string { return "vault: {addresses: [...]}" }

// New implements [kind.Kind].
func (Kind) New() kind.Settings { return &Settings{} }

// Traits implements [kind.Kind].
func (Kind) Traits() kind.Traits {
	return kind.Traits{Roles: access.Required, Versions: true, Writes: true, Logins: true, Memory: true, Policies: true}
}

// Check implements [kind.Settings].
func (s *Settings) Check(m kind.Mistakes) {
	s.Auth.setDefaults()
	if len(s.Addresses) == 0 {
		m.At("addresses").Add("missing; name at least one: https://host:port")
	}
	for i, address := range s.Addresses {
		if _, err := kind.Address(address); err != nil || strings.TrimSpace(address) != address {
			m.At(fmt.Sprintf("addresses[%d]", i)).Add("%q is not of the form https://host:port", address)
		}
	}
	for _, mount := range slices.Sorted(maps.Keys(s.Mounts)) {
		if _, err := store.ParsePath(mount); err != nil {
			m.At("mounts").Add("%w", err)
		}
		m.At("mounts."+mount).OneOf(s.Mounts[mount], string(KV1), string(KV2), string(Other))
	}
	m.At("auth.method").OneOf(s.Auth.Method, MethodKubernetes, MethodJWT)
	s.checkMount(m.At("auth.mount"))
	checkNamespace(m.At("namespace"), s.Namespace)
	checkNamespace(m.At("auth.namespace"), s.Auth.Namespace)
	if s.ServerName != "" && !isHost(s.ServerName) {
		m.At("serverName").Add("%q is no name of a host; write the one in the servers' certificates, without https:// and without a port", s.ServerName)
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		m.At("certFile").Add("goes with keyFile; write both or none")
	}
}

// checkNamespace takes a namespace of Vault as a path whose slashes at the ends do not count.
func checkNamespace(m kind.Mistakes, text string) {
	if rest := strings.ReplaceAll(text, "{namespace}", ""); strings.ContainsAny(rest, "{}") {
		m.Add("%q: braces hold {namespace}, nothing else", text)
		return
	}
	path := strings.TrimSuffix(strings.TrimPrefix(text, "/"), "/")
	if path == "" {
		return
	}
	if _, err := store.ParsePath(path); err != nil {
		m.Add("%w", err)
	}
}

// isHost tells what a certificate can be made out to.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	return hostName.MatchString(text)
}

func (s *Settings) checkMount(m kind.Mistakes) {
	mount := s.Auth.Mount
	if name := kind.AuthMount(mount); name != strings.Trim(mount, "/") && name != "" {
		m.Add("%q is more than the name of the mount; write %q", mount, name)
		return
	}
	if _, err := store.ParsePath(mount); err != nil {
		m.Add("%w", err)
	}
}

func (a *Auth) setDefaults() {
	if a.Method == "" {
		a.Method = MethodKubernetes
	}
	if a.Mount == "" {
		a.Mount = a.Method
	}
	if a.Audience == "" {
		a.Audience = DefaultAudience
	}
}

// Audience implements [kind.Settings].
func (s *Settings) Audience() string { return s.Auth.Audience }

// Files implements [kind.Settings].
func (s *Settings) Files() []*string { return []*string{&s.CAFile, &s.CertFile, &s.KeyFile} }

// Fingerprint implements [kind.Settings].
func (s *Settings) Fingerprint() []any {
	fingerprint := []any{s.Addresses, s.Namespace, s.Auth.Method, s.Auth.Mount}
	if s.Auth.Namespace != "" { // else the state files of older versions would not open
		fingerprint = append(fingerprint, s.Auth.Namespace)
	}
	return fingerprint
}

// loginNamespace is where pods log in.
func (s *Settings) loginNamespace() string {
	if s.Auth.Namespace == "" {
		return s.Namespace
	}
	return kind.Rootless(s.Auth.Namespace)
}

// Path implements [kind.Settings]: a class writes a path as the vault command shows it,
// or as the API has it. Resolve makes one spelling of both, once the mount is known.
func (*Settings) Path(text string) (store.Path, error) { return store.ParsePath(text) }

// IsText implements [kind.Settings]: an engine that is not key/value may answer with one
// text.
func (s *Settings) IsText(path store.Path) bool {
	segments := path.Segments()
	for n := len(segments); n > 0; n-- {
		if engine, known := s.Mounts[strings.Join(segments[:n], "/")]; known {
			return Engine(engine) == Other && endsInText(path.String())
		}
	}
	return len(segments) > 1 && endsInText(path.String())
}

// Fits implements [kind.Settings]. A place is of kind "vault"; it may have address,
// namespace (empty is the root), mount (of the auth method) and audience. The pod's
// namespace is "pod".
func (s *Settings) Fits(place kind.Place) bool {
	says := func(part string, fits func(string) bool) bool {
		text, said := place[part]
		return !said || fits(text)
	}
	return place["kind"] == Kind{}.Name() &&
		says("address", s.isAddress) &&
		says("namespace", func(text string) bool {
			return kind.Rootless(text) == kind.Rootless(Namespace(s.Namespace, place["pod"]))
		}) &&
		says("mount", func(text string) bool { return strings.Trim(text, "/") == strings.Trim(s.Auth.Mount, "/") }) &&
		says("audience", func(text string) bool { return text == s.Auth.Audience })
}

func (s *Settings) isAddress(text string) bool {
	wanted, err := kind.Address(text)
	return err == nil && slices.ContainsFunc(s.Addresses, func(own string) bool {
		address, err := kind.Address(own)
		return err == nil && address == wanted
	})
}

// Open implements [kind.Settings].
func (s *Settings) Open(env kind.Env) (kind.Layers, error) {
	return s.open(env, s.options(env.Log, env.Answers))
}

func (s *Settings) open(env kind.Env, o Options) (kind.Layers, error) {
	conn, err := NewConn(o, time.Now)
	if err != nil {
		return kind.Layers{}, err
	}
	opened := New(conn, s.Namespace, s.engines()).LoggedInIn(s.loginNamespace())
	return kind.Layers{
		Store: opened, Resolver: opened, Leaser: opened,
		Login: Method{Conn: conn, Mount: s.Auth.Mount, Namespace: s.loginNamespace(), Now: env.Now},
		Probe: conn.Probe,
	}, nil
}

// engines are those of keymount.yaml.
func (s *Settings) engines() map[string]Engine {
	engines := make(map[string]Engine, len(s.Mounts))
	for mount, engine := range s.Mounts {
		engines[mount] = Engine(engine)
	}
	return engines
}

func (s *Settings) options(log *slog.Logger, answers *room.Answers) Options {
	return Options{Addresses: s.Addresses, CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile, ServerName: s.ServerName, Log: log, Answers: answers}
}
