// Package bundle is the store without a server: one YAML document of secrets,
// encrypted with age, in a file on the node. The file may live in Git, in a
// ConfigMap or on a disk; the identity that opens it is a file of its own. The
// document is decrypted in memory only.
//
// Who can open a bundle is not to be read off an age file, only how many they are.
// To write one again for the same people their recipients have to be known, and a
// list beside the file could be lost, or be lengthened by somebody who may write
// the file and not read it. So [Encrypt] puts the list inside, as a comment before
// the document that any reader of YAML passes over:
//
//	# keymount recipients: age1... age1...
//
// [Recipients] believes it only as long as it fits the file around it.
package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// Bundle is a [store.Store] that reads from a bundle file. It sees a new file, or
// a new identity, at the next read. When the new files cannot be opened it goes
// on with the document it has, and says so in the log once.
type Bundle struct {
	file         string
	identityFile string
	log          *slog.Logger
	now          func() time.Time

	loading sync.Mutex            // held by the one that loads
	current atomic.Pointer[state] // nil before the first load; stored under loading
}

// state is what one load found. It is never changed.
type state struct {
	bundle, identity source
	document         Document
	loaded           bool  // document comes from a file, this one or an earlier one
	fault            error // why it does not come from these files; wraps a kind of package store
}

// New returns the store in file, which one of the identities in identityFile
// opens. It reads nothing; see [Bundle.Check].
func New(file, identityFile string, log *slog.Logger) *Bundle {
	return &Bundle{file: file, identityFile: identityFile, log: log, now: time.Now}
}

// Check loads the files if they have changed and tells whether they are good.
// The error wraps a kind of package store and says what to do.
func (b *Bundle) Check(ctx context.Context) error {
	return b.latest(ctx).fault
}

// Read implements [store.Store]. A bundle knows no roles and lets every session
// read everything: who may read what is for the access rules alone.
func (b *Bundle) Read(ctx context.Context, _ store.Session, ref store.Ref) (store.Value, error) {
	if ctx.Err() != nil {
		return store.Value{}, fmt.Errorf("%w: read %q: %w", store.ErrUnavailable, ref.Path, context.Cause(ctx))
	}
	if ref.Version != "" {
		return store.Value{}, fmt.Errorf("%w: a bundle keeps no versions; remove version: %s", store.ErrInvalid, ref.Version)
	}
	s := b.latest(ctx)
	if !s.loaded {
		// The fault may name secrets of others, and a mount's error is for all to read.
		return store.Value{}, fmt.Errorf("%w: the bundle cannot be loaded; keymount's log on this node says why", kindOf(s.fault))
	}
	data, ok := s.document.Get(ref.Path)
	if !ok {
		return store.Value{}, fmt.Errorf("%w: the bundle has nothing at %q", store.ErrNotFound, ref.Path)
	}
	return store.Value{Data: data}, nil
}

// latest returns the state of the files as they are now.
func (b *Bundle) latest(ctx context.Context) *state {
	if s := b.current.Load(); s.fresh() {
		return s
	}
	b.loading.Lock()
	defer b.loading.Unlock()
	old := b.current.Load()
	if old.fresh() { // somebody else loaded meanwhile
		return old
	}
	s := b.load(ctx, old).forget()
	b.current.Store(s)
	return s
}

// fresh tells whether the files are surely those that s was made from.
func (s *state) fresh() bool { return s != nil && s.bundle.fresh() && s.identity.fresh() }

// load reads the files; it decrypts only what differs from old.
func (b *Bundle) load(ctx context.Context, old *state) *state {
	s := b.readBoth()
	if old != nil {
		s.document, s.loaded = old.document, old.loaded
		if s.bundle.same(old.bundle) && s.identity.same(old.identity) {
			s.fault = old.fault
			return s
		}
	}
	document, err := b.open(s)
	if err != nil {
		// Two files that change together may be read one old, one new.
		if again := b.readBoth(); !again.bundle.same(s.bundle) || !again.identity.same(s.identity) {
			again.document, again.loaded = s.document, s.loaded
			s = again
			document, err = b.open(s)
		}
	}
	if err != nil {
		s.fault = err
		b.logFault(ctx, s)
		return s
	}
	s.document, s.loaded = document, true
	b.log.LogAttrs(ctx, slog.LevelInfo, "bundle loaded",
		slog.String("file", b.file), slog.Int("paths", len(document.secrets)))
	return s
}

func (b *Bundle) readBoth() *state {
	return &state{bundle: b.read(b.file, MaxCiphertext), identity: b.read(b.identityFile, maxIdentity)}
}

// logFault is the only place where a fault is told in full, once for each change.
func (b *Bundle) logFault(ctx context.Context, s *state) {
	log := b.log.With(slog.String("file", b.file), slog.String("identity_file", b.identityFile), slog.Any("error", s.fault))
	if s.loaded {
		log.LogAttrs(ctx, slog.LevelError, "cannot load the changed bundle; the secrets read before stay in use")
		return
	}
	log.LogAttrs(ctx, slog.LevelError, "cannot load the bundle; nothing is read from it until it is mended")
}

// kindOf is the kind of a fault without its text.
func kindOf(fault error) error {
	if errors.Is(fault, store.ErrUnavailable) {
		return store.ErrUnavailable
	}
	return store.ErrInvalid
}

// forget drops the bytes; their sums stay.
func (s *state) forget() *state {
	s.bundle.data, s.identity.data = secret.Bytes{}, secret.Bytes{}
	return s
}

// open decrypts and parses what was read.
func (b *Bundle) open(s *state) (Document, error) {
	if err := s.bundle.err; err != nil {
		return Document{}, fault(err, "bundle", b.file, "file")
	}
	if err := s.identity.err; err != nil {
		return Document{}, fault(err, "identity file", b.identityFile, "identityFile")
	}
	identities, err := ParseIdentities(s.identity.data.Reveal())
	if err != nil {
		return Document{}, fmt.Errorf("%w: identity file %s: %w", store.ErrInvalid, b.identityFile, err)
	}
	plaintext, err := Decrypt(s.bundle.data.Reveal(), identities)
	if err != nil {
		return Document{}, fmt.Errorf("%w: bundle %s, opened with the identities in %s: %w", store.ErrInvalid, b.file, b.identityFile, err)
	}
	document, err := Parse(plaintext)
	if err != nil {
		return Document{}, fmt.Errorf("%w: bundle %s, decrypted: %w", store.ErrInvalid, b.file, err)
	}
	return document, nil
}

// fault gives a failure to read a file its kind: what a person has to put right
// is invalid, what may come by itself, a file not yet mounted too, is unavailable.
func fault(err error, what, file, field string) error {
	var wrong wrongFileError
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("%w: %s %s: %w", store.ErrInvalid, what, file, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s %s: permission denied; let keymount's user read it", store.ErrInvalid, what, file)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s %s does not exist; put it there, or correct bundle.%s in keymount.yaml", store.ErrUnavailable, what, file, field)
	default:
		return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, what, err)
	}
}
