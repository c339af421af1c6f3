// Package config is keymount.yaml, the operator's file: the stores of secrets, the
// rules for reading them and the limits of one mount.
//
// Security lives here and not in a SecretProviderClass, because a pod's author
// can override every parameter of a class. The file is read strictly: unknown
// fields are mistakes, and all mistakes are reported at once, each with its line and place.
// `keymount config check` does that without starting anything, looks into the files that
// are named, and takes the chart's values, too.
//
// Durations are written as 25s, 1m30s or 2h.
package config

// The comments of the structs are the operator's manual, docs/configuration.md.
//go:generate go run -C ../tools/configdoc . -in ../../config -kinds ../../store -out ../../docs/configuration.md

import (
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/store/kind"
)

// Config is the whole of keymount.yaml. Relative file names start at the folder of
// keymount.yaml.
type Config struct {
	// Stores are the stores to read secrets from. At least one.
	Stores []Store `yaml:"stores"`
	// Issuers are the accepted issuers of service account tokens.
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
	// StateFolder keeps logins, credentials and certificates over restarts of keymount. It
	// is an absolute path on a tmpfs, such as /run/keymount/state, so that nothing of it
	// reaches a disk. keymount makes the folder, but not its parent, and refuses one that
	// others may enter. Its files are encrypted with a key derived from VersionKeyFile,
	// which is required with it. Default: none, and each start of keymount makes new
	// logins, credentials and certificates; the old ones are left to expire.
	StateFolder string `yaml:"stateFolder"`
	// Events writes events on the pod, for `kubectl describe pod`: failed mounts, and
	// credentials that end there because the driver does not rotate. The driver itself
	// keeps the old files of a running pod without a word when a later mount fails.
	// keymount needs the right to create and patch events. Default: false.
	Events bool `yaml:"events"`
	// WatchVolumes revokes the credential of a removed pod within seconds; without it the
	// lease lives to its end. It needs --node-name, the right to list and watch the
	// driver's SecretProviderClassPodStatus in all namespaces, and in Vault a policy of the
	// role that allows to update sys/leases/revoke; without the policy the log says so, and
	// the lease expires. Deleting such an object while its pod lives ends the pod's
	// credential, too: the next mount brings another one. Default: false.
	WatchVolumes bool `yaml:"watchVolumes"`
	// Metrics is the address for Prometheus to scrape /metrics on, host:port; without
	// a host it is every address of the machine, or of the pod. It needs no password,
	// and shows the names of stores and the amount of reads, but no secret, path or
	// name of a pod. Default: none, and nothing listens.
	Metrics string `yaml:"metrics"`
	// StatusSocket is the unix socket at which `keymount status` asks this process what it does:
	// stores, volumes, and mounts in flight, with the names of pods and no secret. Its file is
	// for keymount's own user alone; its folder has to be there, and is not the driver's folder
	// of sockets. A path has at most 103 bytes. Default: none.
	StatusSocket string `yaml:"statusSocket"`
	// MemoryMiB bounds the memory of the remembered secrets of all stores together, in MiB,
	// besides the reads in flight. Namespaces share it equally, and each may use more while
	// others leave it. Beyond it the secrets unused for longest are evicted, of the namespace
	// with most, and read again at the next mount; credentials and certificates stay, and a
	// mount that would make another for such a namespace is refused. From 1 to 1024.
	// Default: a fifth of GOMEMLIMIT, which without that variable is four fifths of the
	// memory limit of the cgroup: 40 with the 256 MiB of the chart, which is about sixty
	// secrets of 4 KiB for each of 110 pods. Without any limit: 40.
	MemoryMiB *int `yaml:"memoryMiB"`
	// Audit is the trail of who read which secret: one JSON line for each mount that
	// delivered something new or failed, for each login and each lease. See docs/audit.md.
	// Default: on, to standard output.
	Audit Audit `yaml:"audit"`
	// Limits bound the cost of one mount.
	Limits Limits `yaml:"limits"`

	// Source is the file that was read.
	Source Source `yaml:"-"`
}

// Source names a keymount.yaml.
type Source struct {
	File   string
	SHA256 string // in hex, as sha256sum has it
}

// Store is one place that holds secrets. It names exactly one kind, such as bundle or vault:
// the last rows of the table.
type Store struct {
	// Name is what a class writes under `store`: lower-case letters, digits and
	// dashes, 63 at most. A class without a store gets the one called default.
	// Default: default.
	Name string `yaml:"name"`
	// Access are the rules for reading: which pods may read which secrets. Rules only
	// allow: a read that fits none of them is denied. The word `store` in place of a list
	// leaves every decision to the store's own policies; a bundle has none. Default: none,
	// so everything is denied.
	Access Access `yaml:"access"`
	// Session is the owner of a login: `serviceAccount` (all its pods share one) or `pod`.
	// A bundle has no logins: leave it out. Default: serviceAccount.
	Session string `yaml:"session"`
	// Refresh is the time after which a secret is read again for the pods of one login:
	// load follows secrets and not pods. While a secret stays the same, the time doubles
	// up to refreshMax; after a change, an outage, `keymount refresh` or near a
	// secret's end it is refresh again. 0s reads at every mount; 1h at most. A bundle is
	// read when it changes: leave it out. Default: 1m.
	Refresh *time.Duration `yaml:"refresh"`
	// RefreshMax is the time after which a secret is read again however long it has stayed
	// the same: a rotated secret reaches its file with the first mount after that time,
	// or sooner. With the value of refresh, each secret is read again after refresh. From
	// refresh to 1h, and less than stale, which counts from the last read; a bundle is read
	// when it changes: leave it out. Default: 5m, at most half of stale, and refresh where
	// that is longer or 0s.
	RefreshMax *time.Duration `yaml:"refreshMax"`
	// Stale is the time after its read for which a secret may stand in for a store without
	// an answer, for pods of a service account that this node has served. A denial is
	// an answer and ends that at once. 0s is never; 168h at most. A bundle has no
	// outages: leave it out. Default: 1h.
	Stale *time.Duration `yaml:"stale"`
	// MemoryMiB gives the store a memory of its own, in MiB, apart from the one that
	// stores share: nothing of it is evicted for another store. From 1 to 1024. A bundle
	// needs none: leave it out. Default: none, and the store takes part in what stores share.
	MemoryMiB *int `yaml:"memoryMiB"`
	// TokensWithoutPod accepts tokens bound to no pod, such as those of
	// the secrets-store-sync-controller. Namespace and service account are still
	// checked. Default: false.
	TokensWithoutPod bool `yaml:"tokensWithoutPod"`

	// Kind is the store's kind, and Settings its part of keymount.yaml.
	Kind     kind.Kind     `yaml:"-"`
	Settings kind.Settings `yaml:"-"`

	kinds []kind.Kind // all known ones
	named []string    // the ones in the store's entry
}

// Rule allows the pods that fit Namespaces and ServiceAccounts to read the paths
// that fit Paths. Every list must be there. In a pattern `*` stands for any run
// of characters without a slash, and {namespace} and {serviceAccount} for the
// names of the reading pod. It is no regular expression, and one that nothing can fit is
// a mistake. Within a segment of a path or role, a placeholder stands apart from wildcards
// and other placeholders by a character that names cannot hold, such as `_`: of
// {namespace}-{serviceAccount} pods c-d of b and d of b-c would share one secret.
type Rule struct {
	// Namespaces are patterns of Kubernetes namespaces. Required.
	Namespaces []string `yaml:"namespaces"`
	// ServiceAccounts are patterns of service account names. Required.
	ServiceAccounts []string `yaml:"serviceAccounts"`
	// Roles are patterns of the store's roles. They are cut at slashes as paths are, so
	// that `arn:aws:iam::123456789012:role/{namespace}/*` fits the roles of one folder;
	// the segment `**` stands for any number of segments. The empty pattern `""` is the
	// login without a role, where a kind of store has one. No wildcard fits that login: it
	// is named, as in `["", "**"]` for all. A role with an empty segment, `.` or `..` fits
	// no pattern. Required; a bundle has no roles: leave it out.
	Roles []string `yaml:"roles"`
	// Paths are patterns of secrets; the segment `**` stands for any number of
	// segments, none included. A secret of a KV v2 engine is mount and name, as the
	// vault command shows it, however the class spells it, and never has data/ between them
	// as in Vault's policies; the parts of such an engine
	// that are no secrets (metadata, config and the like) have to be named without a
	// wildcard. Required.
	Paths []string `yaml:"paths"`
	// Writes are patterns of paths that an object may send `args` to, such as
	// pki/issue/{namespace}. Default: none.
	Writes []string `yaml:"writes"`
}

// Access is a list of rules, or the word store.
type Access struct {
	Rules []Rule
	// Store leaves every decision to the store.
	Store bool

	compiled *access.Rules // nil before validation
}

// Issuer is one issuer of service account tokens, with the source of its keys.
type Issuer struct {
	// Keys is the source of the public keys: `cluster` asks the API server of keymount's
	// own service account, `discovery` the issuer's
	// /.well-known/openid-configuration, `file` reads KeysFile. Required.
	Keys string `yaml:"keys"`
	// Issuer is the exact iss of the tokens. Required for discovery and file; with
	// cluster the API server is asked, and must agree when this is given.
	Issuer string `yaml:"issuer"`
	// KeysFile is a JSON Web Key Set, read again at least hourly and when a token
	// names a key missing in it. Required for file, and only for it.
	KeysFile string `yaml:"keysFile"`
	// CAFile holds the PEM certificates of the authorities of an issuer's https server,
	// read once. Only for discovery. Default: the system's.
	CAFile string `yaml:"caFile"`
}

// Audit is where the trail goes, and what happens when it cannot go there.
type Audit struct {
	// Enabled keeps a trail. Default: true.
	Enabled *bool `yaml:"enabled"`
	// Stdout writes the trail to standard output; the log goes to standard error. Default:
	// true, and false with a file.
	Stdout *bool `yaml:"stdout"`
	// File is the file to write the trail to, such as /var/log/keymount/audit.jsonl: in a
	// folder of its own that keymount may write to, since the file is put aside under other
	// names in it. It belongs to one keymount at a time, and another one waits for it for 10 s.
	// Default: none.
	File string `yaml:"file"`
	// MaxSizeMiB is the size of a file at which it is put aside and another one begun, in
	// MiB. From 1 to 10240. Default: 100.
	MaxSizeMiB *int `yaml:"maxSizeMiB"`
	// MaxAge is the age of a file at which it is put aside. From 1m to 8760h. Default: 24h.
	MaxAge *time.Duration `yaml:"maxAge"`
	// Keep is how many files are kept that were put aside; the oldest ones are removed. 0
	// keeps all. Default: 10.
	Keep *int `yaml:"keep"`
	// StateFile holds the last checkpoint, for a trail to standard output alone: with it the
	// next keymount names its predecessor, and `keymount audit verify` tells a restart from
	// a missing piece. A file of the trail needs none. Default: none.
	StateFile string `yaml:"stateFile"`
	// KeyFile holds a key made by `keymount audit keygen`, which signs the begin of each trail:
	// it shows where a trail comes from. It does not bind the root user of the node, who can
	// read it. Default: none.
	KeyFile string `yaml:"keyFile"`
	// OnFailure says what happens when the trail cannot be written for 2 s: `block` refuses
	// mounts that deliver something new, so that no secret leaves without its record, and
	// running pods keep their files; `continue` delivers, and the trail says how many records
	// it lacks. Default: block.
	OnFailure string `yaml:"onFailure"`
	// Sync is how soon a file of the trail is on the disk: `interval` with each checkpoint, so
	// that a loss of power costs a second of it at most and a killed process nothing, or
	// `always` with each write. Default: interval.
	Sync string `yaml:"sync"`
	// Republishes says what is written of mounts that deliver the same as before: `sum` counts
	// them for each volume once an hour, `full` writes a record each. Default: sum.
	Republishes string `yaml:"republishes"`
}

// Limits bound the cost of one mount.
type Limits struct {
	// MountDeadline is the time after which a mount ends, done or not; it also ends one
	// second before the driver's own deadline. From 1s to 110s, since the kubelet gives
	// up after 2 minutes. Default: 25s.
	MountDeadline time.Duration `yaml:"mountDeadline"`
	// RotationPollInterval is the driver's setting of that name. A credential is
	// replaced this interval and three minutes before its end, so that the replacement
	// reaches the pod in time. From 0s to 1h. Default: 2m.
	RotationPollInterval time.Duration `yaml:"rotationPollInterval"`
	// ReadinessBound is how long keymount is not ready, after its start, while a store gives
	// no answer: a rollout waits for that long on each node, and not for ever. What waiting
	// does not mend, such as a bundle that does not open or a certificate that is not
	// trusted, is not ready for as long as it lasts. From 0s to 1h. Default: 2m.
	ReadinessBound time.Duration `yaml:"readinessBound"`
	// ParallelReads bounds the secrets of one mount that are read at a time.
	// From 1 to 64. Default: 64.
	ParallelReads int `yaml:"parallelReads"`
}

// The values of Store.Session.
const (
	SessionServiceAccount = "serviceAccount"
	SessionPod            = "pod"
)

// The values of Audit's fields.
const (
	OnFailureBlock    = "block"
	OnFailureContinue = "continue"
	SyncInterval      = "interval"
	SyncAlways        = "always"
	RepublishesSum    = "sum"
	RepublishesFull   = "full"
)

// The values of Issuer.Keys.
const (
	KeysCluster   = "cluster"
	KeysDiscovery = "discovery"
	KeysFile      = "file"
)

// MostMiB is the most that MemoryMiB may be.
const MostMiB = 1024

// Default values, as the comments above promise them.
const (
	DefaultStore  = "default"
	DefaultSocket = "/var/run/secrets-store-csi-providers/keymount.sock"

	defaultMountDeadline = 25 * time.Second
	defaultRefresh       = time.Minute
	defaultRefreshMax    = 5 * time.Minute
	defaultStale         = time.Hour
	// defaultPollInterval is the driver's own default.
	defaultPollInterval  = 2 * time.Minute
	defaultParallelReads = 64
	// defaultReadiness is longer than it takes to elect another leader of a store.
	defaultReadiness = 2 * time.Minute

	defaultAuditMiB  = 100
	defaultAuditAge  = 24 * time.Hour
	defaultAuditKeep = 10
)
