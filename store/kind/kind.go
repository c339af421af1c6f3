// Package kind is the contract of a kind of store with keymount: its part of keymount.yaml,
// its traits, its spelling of paths, and how to open it. A kind lives in its own package, and
// package all lists it; nothing else knows its name, except the dialect of classes written
// for it.
package kind

import (
	"context"
	"log/slog"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// Kind is a kind of store.
type Kind interface {
	// Name is the key of its settings in a store of keymount.yaml.
	Name() string
	Traits() Traits
	// Example is a text to add to a store without a kind, for an operator, such as "bundle:
	// {file: ...}".
	Example() string
	// New returns a pointer to empty settings, a struct with yaml tags.
	New() Settings
}

// Traits are the abilities of a kind of store, whatever its settings. They decide which
// fields a store of keymount.yaml and an object of a class have.
type Traits struct {
	// Roles tells whether a login takes a role.
	Roles access.Need
	// Versions: old versions can be read.
	Versions bool
	// Writes: paths answer to args.
	Writes bool
	// Logins: pods log in, and can share a login.
	Logins bool
	// Memory: answers are remembered, because reads go over a network.
	Memory bool
	// NoMemory has, for messages of a store without memory, the reasons against refresh,
	// stale and memoryMiB.
	NoMemory struct{ Refresh, Stale, MemoryMiB string }
	// Policies: the store has policies of its own, and a rule can leave the decision to them.
	Policies bool
}

// Settings are a kind's part of a store in keymount.yaml, read and not yet opened.
type Settings interface {
	Configured
	Spelling
	// Open makes the store ready for requests. A store out of reach is no error: it may come.
	Open(env Env) (Layers, error)
}

// Configured is a store's part of keymount.yaml, of any kind.
type Configured interface {
	// Check fills in the defaults, and notes the mistakes, each at its place.
	Check(m Mistakes)
	// Audience is the audience that a pod's token must have. It is not empty after Check.
	Audience() string
	// Files are the names of files in the settings, to be made absolute; empty ones are
	// passed over.
	Files() []*string
	// Fingerprint identifies the store and the way to log in, as values for JSON: state with
	// another fingerprint is not used.
	Fingerprint() []any
}

// Spelling is how classes name the paths of a store and the store itself. Its methods are
// pure.
type Spelling interface {
	// Path is the one spelling of a path in a class or a template. Rules, memory and the
	// store see nothing else.
	Path(text string) (store.Path, error)
	// IsText tells whether the answer for a path may be one text without keys, so that a
	// file can be made of it as it is.
	IsText(path store.Path) bool
	// Fits tells whether a class of another provider means this store.
	Fits(place Place) bool
}

// Place is the address of a store in a class of another provider: its parts, by names known
// to the kind. It leaves out the parts that the class leaves out.
type Place map[string]string

// Env is the environment for Open.
type Env struct {
	Log *slog.Logger
	// Now is the wall clock, for the life of logins and leases.
	Now func() time.Time
	// Loaded is told of each load of what a store reads as a whole: nil, or why it failed.
	// A nil Loaded is told nothing.
	Loaded func(err error)
	// Answers is the room of all answers in the process; nil for one of the store's own.
	Answers *room.Answers
}

// Layers are an opened store. A missing ability is nil: abilities are declared here, and not
// found by assertion.
type Layers struct {
	store.Store
	store.Resolver
	store.Leaser
	store.Recaller
	// Login exchanges a pod's token for the store's own; nil for a store without logins.
	Login login.Method
	// Probe tells whether the store can be used, without a pod; nil where only a pod's login
	// can tell. It is called at the start, and again and again. Its error is
	// [store.Unavailable] where there was no answer, and waiting may bring one, and
	// [store.Invalid] where a person has to put something right.
	Probe func(context.Context) error
}
