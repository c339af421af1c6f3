package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Version is that of the records' schema, docs/audit.schema.json. A field may be added
// within a version, none changes its meaning.
const Version = 1

// Kind is the event that a record is about.
type Kind string

// The kinds of records.
const (
	KindBegin      Kind = "begin"      // a process begins its trail
	KindCheckpoint Kind = "checkpoint" // a signature over all before it
	KindEnd        Kind = "end"        // the last checkpoint of a process that was stopped
	KindMount      Kind = "mount"      // a mount delivered something new, or failed
	KindCount      Kind = "count"      // mounts that delivered the same as before, summed
	KindWithdrawn  Kind = "withdrawn"  // a mount was recorded and not answered so
	KindLogin      Kind = "login"      // with a store, for a pod
	KindLease      Kind = "lease"      // of a credential: its life in the store
	KindStale      Kind = "stale"      // a store without an answer: old values begin or end to stand in
	KindConfig     Kind = "config"     // a keymount.yaml was loaded
	KindLost       Kind = "lost"       // records that no sink took
)

// Outcome is the decision about a mount, a secret of it, or a login.
type Outcome string

// The outcomes.
const (
	Granted  Outcome = "granted"
	Denied   Outcome = "denied"
	NotFound Outcome = "not_found"
	Failed   Outcome = "error"
)

// Record is one line of the trail. Its JSON is canonical, see [Canonical]: every struct here
// has its fields in the order of their names in JSON. No name on the top level is one that
// collectors take for their own: time, log, message, level, stream, kubernetes.
type Record struct {
	// At is the time of the event, RFC 3339 in UTC with microseconds. Clocks step back: the
	// order is that of Seq.
	At    string `json:"at"`
	Begin *Begin `json:"begin,omitempty"`
	// Boot names the process: the time of its start and eight random letters.
	Boot       string      `json:"boot"`
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`
	// Class is the name of the SecretProviderClass.
	Class string `json:"class,omitempty"`
	// Code is the gRPC code of the driver's answer.
	Code   string  `json:"code,omitempty"`
	Config *Config `json:"config,omitempty"`
	Counts []Count `json:"counts,omitempty"`
	// Error is the message of the answer, of a login or of a lease.
	Error string `json:"error,omitempty"`
	// Files is the number of files that were delivered.
	Files int    `json:"files,omitempty"`
	Kind  Kind   `json:"kind"`
	Lease *Lease `json:"lease,omitempty"`
	Login *Login `json:"login,omitempty"`
	Lost  *Lost  `json:"lost,omitempty"`
	// Node is the node's name at the API server.
	Node string `json:"node"`
	// Omitted is how many more secrets there were, of a mount that failed.
	Omitted int     `json:"omitted,omitempty"`
	Outcome Outcome `json:"outcome,omitempty"`
	// Part numbers the records of one event that is too large for one, from 1 to Parts; they
	// follow one another.
	Part  int  `json:"part,omitempty"`
	Parts int  `json:"parts,omitempty"`
	Pod   *Pod `json:"pod,omitempty"`
	// Prev is the hash of the record before, base64url of the SHA-256 of its canonical form;
	// empty in the first of a process.
	Prev    string   `json:"prev"`
	Secrets []Secret `json:"secrets,omitempty"`
	// Seq counts the records of a process, from 0 and without gaps.
	Seq            int64           `json:"seq"`
	ServiceAccount *ServiceAccount `json:"serviceAccount,omitempty"`
	Stale          *Stale          `json:"stale,omitempty"`
	Tokens         []Token         `json:"tokens,omitempty"`
	// Us is the time that the mount took, in microseconds.
	Us int64 `json:"us,omitempty"`
	// V is [Version].
	V         int        `json:"v"`
	Withdrawn *Withdrawn `json:"withdrawn,omitempty"`
}

// Begin opens the trail of a process.
type Begin struct {
	// Key is the public half of the first signing key, as golang.org/x/mod/sumdb/note has it.
	Key string `json:"key"`
	// Keymount is the version of the program.
	Keymount string `json:"keymount"`
	// Note is Key, Node and Boot signed with audit.keyFile; empty without one.
	Note string `json:"note,omitempty"`
	// Predecessor is the last checkpoint of the process before; nil where none is known.
	Predecessor *Predecessor `json:"predecessor,omitempty"`
}

// Predecessor is a checkpoint of another process of the node.
type Predecessor struct {
	Boot string `json:"boot"`
	Hash string `json:"hash"` // of the record, as in Prev
	// Number is the checkpoint's.
	Number int64 `json:"number"`
}

// Checkpoint is the signature over the chain so far.
type Checkpoint struct {
	// Next is the public key of the next checkpoint; empty in the last of a process.
	Next string `json:"next,omitempty"`
	// Note is the signed text: what it is, then Kind, Node, Boot, Number, Seq, Prev, At and
	// Next, each on a line.
	Note string `json:"note"`
	// Number counts the checkpoints of a node, over its processes.
	Number int64 `json:"number"`
}

// Pod is the pod as the driver named it. A token proves it where ServiceAccount has a UID.
type Pod struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	UID       string `json:"uid"`
}

// ServiceAccount is that of the pod.
type ServiceAccount struct {
	Name string `json:"name"`
	// UID is empty where no token has proven the pod.
	UID string `json:"uid,omitempty"`
}

// Token is a service account token that proved a pod.
type Token struct {
	Audience string `json:"audience"`
	// ID is its jti: the API server's own audit log has it under
	// authentication.kubernetes.io/credential-id, as JTI=ID.
	ID     string   `json:"id,omitempty"`
	Stores []string `json:"stores"` // that it was for
}

// Secret is one secret of a mount.
type Secret struct {
	// Error is the reason of a refusal or failure, in words.
	Error string `json:"error,omitempty"`
	// Files are the paths in the volume of the files made of it.
	Files []string `json:"files,omitempty"`
	// List is the first list of Rule that does not fit; of denials alone.
	List string `json:"list,omitempty"`
	// Literal is a segment of Path that a rule has to name, since the path is no ordinary
	// secret.
	Literal string `json:"literal,omitempty"`
	// More says that this continues the entry before, with more of its files.
	More bool `json:"more,omitempty"`
	// Outcome is that of the secret alone; Granted also where another secret fails the mount.
	// Empty where the mount ended before it was decided.
	Outcome Outcome `json:"outcome,omitempty"`
	// Path is the one spelling that the rules judge. Where only the login was judged it is
	// the spelling of the class.
	Path string `json:"path"`
	// Pinned is the version that the class asks for.
	Pinned string `json:"pinned,omitempty"`
	// Reason is the store's status: not found, denied by the store, store unavailable, ...
	Reason string `json:"reason,omitempty"`
	// Request is the store's own name for the request; of an earlier one where Source is
	// memory or stale.
	Request string `json:"request,omitempty"`
	Role    string `json:"role,omitempty"`
	// Rule is the place in keymount.yaml of the rule that decided.
	Rule string `json:"rule,omitempty"`
	// Scope is path where the rules judged the path, and login where they judged only the
	// login: the store was not asked what the path is.
	Scope Scope `json:"scope,omitempty"`
	// Source is where the value came from: store, memory or stale.
	Source string `json:"source,omitempty"`
	Store  string `json:"store"`
	// Version is the store's own, and Was that of the mount before, where this process
	// knows it and it was another one.
	Version string `json:"version,omitempty"`
	Was     string `json:"was,omitempty"`
	// Write says that the secret is the answer to a write.
	Write bool `json:"write,omitempty"`
}

// Scope is what the rules judged.
type Scope string

// The scopes.
const (
	ScopeLogin Scope = "login"
	ScopePath  Scope = "path"
)

// Count sums mounts of one volume that delivered the same as before.
type Count struct {
	Class          string `json:"class"`
	Count          int64  `json:"count"`
	First          string `json:"first"` // as At
	Last           string `json:"last"`
	Pod            Pod    `json:"pod"`
	ServiceAccount string `json:"serviceAccount"`
}

// Login is one with a store. Its pod and token are those of the Record.
type Login struct {
	Role  string `json:"role,omitempty"`
	Store string `json:"store"`
}

// Lease is a change in the life of a credential. Its owner is that of the Record.
type Lease struct {
	// Before is the lease that the pod had for the same path, role and store; it is replaced,
	// and left to expire.
	Before string `json:"before,omitempty"`
	// Change is issued, renewed or revoked.
	Change string `json:"change"`
	// Name tells one lease from another: a keyed hash of its id.
	Name string `json:"name"`
	Path string `json:"path,omitempty"` // of an issued one
	// Request is the store's own name for the request.
	Request string `json:"request,omitempty"`
	Role    string `json:"role,omitempty"`
	// Seconds is its life from now on.
	Seconds int64  `json:"seconds,omitempty"`
	Store   string `json:"store"`
}

// Stale is the begin or the end of the time in which old values stand in for a store.
type Stale struct {
	// Cause is why the store gave no answer.
	Cause string `json:"cause,omitempty"`
	// State is begin or end.
	State string `json:"state"`
	Store string `json:"store"`
}

// Config is a loaded keymount.yaml.
type Config struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"` // of the file, in hex, as sha256sum has it
	Stores int    `json:"stores"` // how many there are
}

// Lost counts records that no sink took, and that are not in the trail.
type Lost struct {
	Count int64  `json:"count"`
	First string `json:"first"` // as At
	Last  string `json:"last"`
}

// Withdrawn names a record of a mount that was answered with an error in the end, since
// the record could not be written in time.
type Withdrawn struct {
	Seq int64 `json:"seq"`
}

// timeFormat has a fixed width.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// timeText is a time as records have it.
func timeText(t time.Time) string { return t.UTC().Format(timeFormat) }

// line is the canonical JSON of r, without a newline.
func (r *Record) line() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("a record of kind %s: %w", r.Kind, err)
	}
	return Canonical(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// Read is the record in a line.
func Read(line []byte) (*Record, error) {
	r := new(Record)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, fmt.Errorf("is no record: %w", err)
	}
	if r.V != Version {
		return nil, errVersion(int64(r.V))
	}
	return r, nil
}
