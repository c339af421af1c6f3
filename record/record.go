// Package record is the outcome of a mount as a value.
//
// Package provider gathers a [Mount] while it answers the driver, and hands it to its
// Recorders before the answer goes out: the log, metrics and events of package observe
// are made of it. A record holds names, times, versions and errors, and no secret.
package record

import (
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/store"
)

// Mount is one answered call of the driver, whatever came of it.
type Mount struct {
	// Pod is the pod as the driver named it. Only the Identity of a Read proves it; fields
	// left out by the driver are empty.
	Pod auth.Pod
	// Class is the name of the SecretProviderClass; empty where the call could not be
	// read.
	Class string
	// Dialect is the syntax of the class, which the socket decides.
	Dialect class.Dialect
	// Reads are the secrets of the class, in its order, each once, with those denied,
	// absent or not reached. Empty where the class has a mistake or the pod was not proven.
	Reads []Read
	// Files is the number of files made of the secrets; 0 where none were made.
	Files int
	// Delivered are the files of the answer with their versions, as the driver gets them: keyed
	// hashes that change with path or content. Empty where there are none.
	Delivered []File
	// Warnings are for the pod's owner: of the class, of the stores, and of the files.
	Warnings []string
	// Began is when the call arrived.
	Began time.Time
	// Took is the time from Began to the outcome, without the Recorders.
	Took time.Duration
	// First is true until this process has mounted the volume: the pod cannot start before
	// this mount is answered.
	First bool
	// Code is the answer's gRPC code.
	Code codes.Code
	// Message is the error in the answer to the driver; empty where there is none.
	Message string
	// Err is why there are no files; nil where they were delivered.
	Err error
	// Bug is the panics of the Recorders before this one. They do not change the answer;
	// nil for none.
	Bug error
}

// File is one file of an answer.
type File struct{ Path, Version string }

// Warning is all Warnings as one text, empty for none. It fits, see [Fit].
func (m *Mount) Warning() string { return Fit(strings.Join(m.Warnings, "; ")) }

// Stale is why old values are among what a mount delivers, by store; nil where none is.
func (m *Mount) Stale() map[string]string {
	var stale map[string]string
	for i := range m.Reads {
		if r := &m.Reads[i]; r.Source == Stale {
			if stale == nil {
				stale = map[string]string{}
			}
			stale[r.Secret.Store] = r.Cause
		}
	}
	return stale
}

// Read is one secret of a mount.
type Read struct {
	// Secret is the secret as the class names it: store, role, path, and the version that
	// it is pinned to, without arguments and parameters, which may hold anything. Where two
	// spellings are one secret, it is the first of them.
	Secret *class.Secret
	// Write says that the secret is the answer to a write, which had arguments.
	Write bool
	// Identity is the pod as its token proves it to the secret's store, the same for all
	// reads of a store.
	Identity *auth.Identity
	// Rule is the decision of the operator's rules; zero where it was not reached. In a
	// store to be asked for the path's one spelling, it is about the login alone until the
	// store has answered.
	Rule access.Decision
	// Path is the one spelling that the rules have judged; zero where they judged only the
	// login.
	Path store.Path
	// Literal is a segment of Path that a rule has to name; empty for an ordinary secret.
	Literal string
	// Version is the store's own for the delivered value; empty where the store counts
	// none, and without a value.
	Version string
	// RequestID is the store's own name for the request behind the value or the error,
	// maybe of an earlier mount; empty where the store gave none.
	RequestID string
	// Source is the origin of the value; empty where there is none.
	Source Source
	// Read is when the store was asked for the value; zero where nothing is remembered.
	Read time.Time
	// Ends is the end of the value, as it is known now; zero for one without.
	Ends time.Time
	// Cause is why the store gave no answer; of a stale value alone.
	Cause string
	// Files are the paths, in the volume, of the files made of the secret; empty where none
	// were made.
	Files []string
	// Err is the reason for a missing value, also for an absent and optional secret; nil
	// with a value, and where the mount ended before the read.
	Err error
}

// Denied tells whether the operator's rules do not allow the read.
func (r *Read) Denied() bool { return errors.Is(r.Err, access.ErrDenied) }

// Source is the origin of a value.
type Source string

// The sources of a value.
const (
	FromStore  Source = "store"  // it was read for this mount
	FromMemory Source = "memory" // it was read before, and still counts
	Stale      Source = "stale"  // the last good value, since the store gave no answer
)

// maxText keeps a text readable in an event; Kubernetes cuts at 1 KiB.
const maxText = 8 << 10

// Fit cuts a text to the size of a gRPC status, an event and a log line.
func Fit(text string) string { return Within(text, maxText) }

// Within makes a text one of at most so many bytes, and of the words that say so.
func Within(text string, most int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	end := most
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + " ... (cut)"
}
