// Package config is keymount.yaml, the operator's file: where secrets are read
// from, who may read them and what one mount may cost.
//
// Security lives here and not in a SecretProviderClass, because a pod's author
// can override every parameter of a class. The file is read strictly: unknown
// fields are mistakes, and all mistakes are reported at once, each with its place.
// `keymount config check` does that without starting anything.
//
// Durations are written as 25s, 1m30s or 2h.
package config

// The comments of the structs are the operator's manual, docs/configuration.md.
//go:generate go run -C ../tools/configdoc . -in ../../config -out ../../docs/configuration.md

import "time"

// Config is the whole of keymount.yaml. Relative file names start at the folder
// that keymount.yaml is in.
type Config struct {
	// Stores are where secrets are read from. At least one.
	Stores []Store `yaml:"stores"`
	// Issuers are whose service account tokens are accepted.
	// Default: the API server of the cluster keymount runs in.
	Issuers []Issuer `yaml:"issuers"`
	// Sockets are the unix sockets to listen on, each named after the provider
	// that classes ask for: keymount.sock serves `provider: keymount`. A path has
	// at most 103 bytes. Default: /var/run/secrets-store-csi-providers/keymount.sock.
	Sockets []string `yaml:"sockets"`
	// VersionKeyFile holds at least 32 random bytes, the same on every node; the
	// versions of files are derived from it. Without it each start of keymount
	// makes a key of its own: every file then gets a new version at each restart,
	// and versions differ between nodes.
	VersionKeyFile string `yaml:"versionKeyFile"`
	// Limits bound what one mount may cost.
	Limits Limits `yaml:"limits"`
}

// Store is one place that holds secrets. It names exactly one kind: bundle.
type Store struct {
	// Name is what a class writes under `store`: lower-case letters, digits and
	// dashes, 63 at most. A class that names no store gets the one called default.
	// Default: default.
	Name string `yaml:"name"`
	// Bundle reads an age-encrypted file.
	Bundle *Bundle `yaml:"bundle"`
	// Access are the rules of who may read what. Rules only allow: what none of
	// them fits is denied. Default: none, so everything is denied.
	Access []Rule `yaml:"access"`
	// TokensWithoutPod accepts tokens that are bound to no pod, such as those of
	// the secrets-store-sync-controller. Namespace and service account are still
	// checked. Default: false.
	TokensWithoutPod bool `yaml:"tokensWithoutPod"`
}

// Bundle is an age-encrypted YAML file of paths to keys and values. Both files
// are read again when they change.
type Bundle struct {
	// File is the bundle, as `keymount bundle encrypt` writes it. Required.
	File string `yaml:"file"`
	// IdentityFile is the age identity (private key) that opens the bundle, as
	// `keymount bundle keygen` writes it. Required.
	IdentityFile string `yaml:"identityFile"`
	// Audience is what a pod's token must be made for; the CSIDriver object's
	// tokenRequests must list it. Default: keymount.
	Audience string `yaml:"audience"`
}

// Rule allows the pods that fit Namespaces and ServiceAccounts to read the paths
// that fit Paths. Every list must be there. In a pattern `*` stands for any run
// of characters without a slash, and {namespace} and {serviceAccount} for the
// names of whoever asks.
type Rule struct {
	// Namespaces are patterns of Kubernetes namespaces. Required.
	Namespaces []string `yaml:"namespaces"`
	// ServiceAccounts are patterns of service account names. Required.
	ServiceAccounts []string `yaml:"serviceAccounts"`
	// Roles are patterns of the store's roles. A bundle has none: leave it out.
	Roles []string `yaml:"roles"`
	// Paths are patterns of secrets; the segment `**` stands for any number of
	// segments, none included. Required.
	Paths []string `yaml:"paths"`
}

// Issuer is one issuer of service account tokens and where its keys are.
type Issuer struct {
	// Keys is where the public keys come from: `cluster` asks the API server that
	// keymount's own service account belongs to, `discovery` the issuer's
	// /.well-known/openid-configuration, `file` reads KeysFile. Required.
	Keys string `yaml:"keys"`
	// Issuer is the exact iss of the tokens. Required for discovery and file; with
	// cluster the API server is asked, and must agree when this is given.
	Issuer string `yaml:"issuer"`
	// KeysFile is a JSON Web Key Set, read again at least hourly and when a token
	// names a key that is not in it. Required for file, and only for it.
	KeysFile string `yaml:"keysFile"`
	// CAFile holds the PEM certificates that an issuer's https server is trusted
	// by, read once. Only for discovery. Default: the system's.
	CAFile string `yaml:"caFile"`
}

// Limits bound what one mount may cost.
type Limits struct {
	// MountDeadline is when a mount ends, done or not; it also ends one second
	// before the caller's own deadline. From 1s to 110s, since the kubelet gives
	// up after 2 minutes. Default: 25s.
	MountDeadline time.Duration `yaml:"mountDeadline"`
	// ParallelReads is how many secrets of one mount are read at a time.
	// From 1 to 64. Default: 8.
	ParallelReads int `yaml:"parallelReads"`
}

// The values of Issuer.Keys.
const (
	KeysCluster   = "cluster"
	KeysDiscovery = "discovery"
	KeysFile      = "file"
)

// Default values, as the comments above promise them.
const (
	DefaultStore    = "default"
	DefaultAudience = "keymount"
	DefaultSocket   = "/var/run/secrets-store-csi-providers/keymount.sock"

	defaultMountDeadline = 25 * time.Second
	defaultParallelReads = 8
)
