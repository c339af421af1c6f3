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
	// that classes ask for: keymount.sock serves `provider: keymount`. On vault.sock
	// and openbao.sock classes of those providers are read as they are, see
	// docs/migration.md; every other socket has keymount's own syntax. A path has
	// at most 103 bytes. Default: /var/run/secrets-store-csi-providers/keymount.sock.
	Sockets []string `yaml:"sockets"`
	// VersionKeyFile holds at least 32 random bytes, the same on every node; the
	// versions of files are derived from it. Without it each start of keymount
	// makes a key of its own: every file then gets a new version at each restart,
	// and versions differ between nodes.
	VersionKeyFile string `yaml:"versionKeyFile"`
	// StateFolder is where logins, credentials and certificates outlive keymount, such as
	// /run/keymount/state: an absolute path on a tmpfs, so that nothing of it reaches a
	// disk. keymount makes the folder, but not the one that it is in, and refuses one that
	// others may enter. What is in it is encrypted with a key that is derived from
	// VersionKeyFile, which is required with it. Default: none, and each start of keymount
	// makes new logins, credentials and certificates; the old ones are left to expire.
	StateFolder string `yaml:"stateFolder"`
	// Events tells of failed mounts on the pod, where `kubectl describe pod` shows it,
	// and of credentials that end there because the driver does not rotate.
	// The driver keeps the old files of a running pod when a later mount fails, and
	// tells nobody. It needs the right to create and patch events. Default: false.
	Events bool `yaml:"events"`
	// WatchVolumes gives the credential of a pod that is gone back within seconds; without
	// it a lease that nobody renews any more lives to its end. It needs --node-name, the
	// right to list and watch the driver's SecretProviderClassPodStatus in all
	// namespaces, and in Vault a policy of the role that allows to update
	// sys/leases/revoke; where that is missing the log says so, and the lease expires. Who
	// deletes such an object while its pod lives ends the pod's credential: the next mount
	// brings another one. Default: false.
	WatchVolumes bool `yaml:"watchVolumes"`
	// Metrics is the address that Prometheus scrapes /metrics on, host:port; without
	// a host it is every address of the machine, or of the pod. Who reaches it needs
	// no password, and learns the names of stores and how much is read, but no
	// secret, path or name of a pod. Default: none, and nothing is counted.
	Metrics string `yaml:"metrics"`
	// Limits bound what one mount may cost.
	Limits Limits `yaml:"limits"`
}

// Store is one place that holds secrets. It names exactly one kind: bundle or vault.
type Store struct {
	// Name is what a class writes under `store`: lower-case letters, digits and
	// dashes, 63 at most. A class that names no store gets the one called default.
	// Default: default.
	Name string `yaml:"name"`
	// Bundle reads an age-encrypted file.
	Bundle *Bundle `yaml:"bundle"`
	// Vault reads from Vault or OpenBao.
	Vault *Vault `yaml:"vault"`
	// Access are the rules of who may read what. Rules only allow: what none of
	// them fits is denied. The word `store` in place of a list leaves every decision
	// to the store's own policies; a bundle has none. Default: none, so everything is
	// denied.
	Access Access `yaml:"access"`
	// Session says who shares a login: `serviceAccount` (all pods of one) or `pod`. A
	// bundle has no logins: leave it out. Default: serviceAccount.
	Session string `yaml:"session"`
	// Refresh is how long a secret counts before it is read again for the pods of one
	// login: load follows secrets and not pods. A rotated secret reaches its file with
	// the first mount after that time. 0s reads at every mount; 1h at most. A bundle is
	// read when it changes: leave it out. Default: 1m.
	Refresh *time.Duration `yaml:"refresh"`
	// Stale is how long after it was read a secret may stand in for a store that gives
	// no answer, for pods of a service account that this node has served. A denial is
	// an answer and ends that at once. 0s is never; 168h at most. A bundle has no
	// outages: leave it out. Default: 1h.
	Stale *time.Duration `yaml:"stale"`
	// MemoryMiB is how much memory what was read may take, in MiB, beside what is being
	// read. Beyond it, what was asked for longest ago is forgotten, and read again at the
	// next mount; credentials and certificates go last, since the next mount makes others,
	// and the log says so. From 1 to 1024. A bundle needs none: leave it out. Default: 7,
	// which is ten secrets of 4 KiB for each of 110 pods.
	MemoryMiB *int `yaml:"memoryMiB"`
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
	// segments, none included. A secret of a KV v2 engine is mount and name, as the
	// vault command shows it, however the class spells it; the parts of such an engine
	// that are no secrets (metadata, config and the like) have to be named without a
	// wildcard. Required.
	Paths []string `yaml:"paths"`
	// Writes are patterns of paths that an object may send `args` to, such as
	// pki/issue/{namespace}. Default: none.
	Writes []string `yaml:"writes"`
}

// Vault is a Vault or an OpenBao.
type Vault struct {
	// Addresses are those of one cluster, https://host:port each. The first is
	// preferred; the next is taken when one gives no answer. Required.
	Addresses []string `yaml:"addresses"`
	// Auth is how pods log in.
	Auth VaultAuth `yaml:"auth"`
	// Namespace is Vault's own namespace, and {namespace} in it stands for the pod's.
	// Default: the root namespace.
	Namespace string `yaml:"namespace"`
	// Mounts say which engine is mounted where: kv1, kv2, or other for everything
	// else. What is not written here is looked up in Vault once, with the pod's token.
	Mounts map[string]string `yaml:"mounts"`
	// CAFile holds the PEM certificates that the servers are trusted by, read again
	// when it changes. Default: the system's.
	CAFile string `yaml:"caFile"`
	// CertFile is a client certificate in PEM, read again when it changes. Default: none.
	CertFile string `yaml:"certFile"`
	// KeyFile is its private key. Required with CertFile.
	KeyFile string `yaml:"keyFile"`
	// ServerName is the name that the servers' certificates must hold, in place of
	// the host of the address.
	ServerName string `yaml:"serverName"`
}

// VaultAuth is the auth method that pods log in with.
type VaultAuth struct {
	// Method is `kubernetes` or `jwt`. Default: kubernetes.
	Method string `yaml:"method"`
	// Mount is where the method is mounted below auth/. Default: the name of Method.
	Mount string `yaml:"mount"`
	// Audience is what a pod's token must be made for; the CSIDriver object's
	// tokenRequests must list it, and the role accept it. Default: vault.
	Audience string `yaml:"audience"`
}

// Access is a list of rules, or the word store.
type Access struct {
	Rules []Rule
	// Store leaves every decision to the store.
	Store bool
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
	// RotationPollInterval is the driver's setting of that name. A credential is
	// replaced so long before its end, and three minutes more, that the replacement
	// reaches the pod in time. From 0s to 1h. Default: 2m.
	RotationPollInterval time.Duration `yaml:"rotationPollInterval"`
	// ParallelReads is how many secrets of one mount are read at a time.
	// From 1 to 64. Default: 64.
	ParallelReads int `yaml:"parallelReads"`
}

// The values of VaultAuth.Method and Store.Session.
const (
	MethodKubernetes      = "kubernetes"
	MethodJWT             = "jwt"
	SessionServiceAccount = "serviceAccount"
	SessionPod            = "pod"
)

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
	// VaultAudience is the default of VaultAuth.Audience.
	VaultAudience = "vault"
	DefaultSocket = "/var/run/secrets-store-csi-providers/keymount.sock"

	defaultMountDeadline = 25 * time.Second
	defaultRefresh       = time.Minute
	defaultStale         = time.Hour
	defaultMemoryMiB     = 7
	// defaultPollInterval is the driver's own default.
	defaultPollInterval  = 2 * time.Minute
	defaultParallelReads = 64
)
