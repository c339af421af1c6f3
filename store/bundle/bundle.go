// Package bundle is the store without a server: one YAML document of secrets,
// encrypted with age, in a file on the node. The file may live in Git, in a
// ConfigMap or on a disk; the identity that opens it is a file of its own. The
// document is decrypted in memory only.
//
// An age file tells the number of its recipients and not their keys. Writing one again
// for the same recipients takes the keys, and a list beside the file could be lost, or
// be lengthened by a user with the right to write the file and not to read it. So
// [Encrypt] puts the list inside, as a comment before the document, which readers of
// YAML pass over:
//
//	# keymount recipients: age1... age1...
//
// [Recipients] believes the list only as long as it fits the file around it.
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

	"github.com/keymount/keymount/internal/regular"
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
	told         func(error) // of each load; nil is none

	loading sync.Mutex            // held during a load
	current atomic.Pointer[state] // nil before the first load; stored under loading
}

// state is the result of one load. It is never changed.
type state struct {
	bundle, identity source
	document         Document
	loaded           bool         // document comes from a file, this one or an earlier one
	fault            *store.Error // the failure to load these files; nil without one
}

// New returns the store in file, to be opened by one of the identities in
// identityFile. It reads nothing; see [Bundle.Check].
func New(file, identityFile string, log *slog.Logger) *Bundle {
	return &Bundle{file: file, identityFile: identityFile, log: log, now: time.Now}
}

// Check loads the files if they have changed and tells whether they are good.
// The error is a [*store.Error] and says what to do.
func (b *Bundle) Check(ctx context.Context) error {
	if fault := b.latest(ctx).fault; fault != nil {
		return fault
	}
	return nil
}

// Read implements [store.Store]. A bundle knows no roles and lets every caller
// read everything: the access rules alone restrict it.
func (b *Bundle) Read(ctx context.Context, _ store.Caller, ref store.Ref) (store.Value, error) {
	if err := readable(ctx, ref); err != nil {
		return store.Value{}, err
	}
	s := b.latest(ctx)
	if !s.loaded {
		// The fault may name secrets of others, and a mount's error is for all to read.
		return store.Value{}, s.fault.Reason.Errorf("the bundle cannot be loaded; keymount's log on this node says why")
	}
	return s.document.read(ref)
}

// readable refuses what no document can answer.
func readable(ctx context.Context, ref store.Ref) error {
	if ctx.Err() != nil {
		return &store.Error{Reason: store.Unavailable, Said: fmt.Sprintf("read %q", ref.Path), Cause: context.Cause(ctx)}
	}
	if ref.Version != "" {
		return store.Invalid.Errorf("a bundle keeps no versions; remove version: %s", ref.Version)
	}
	return nil
}

func (d Document) read(ref store.Ref) (store.Value, error) {
	data, ok := d.Get(ref.Path)
	if !ok {
		return store.Value{}, store.NotFound.Errorf("the bundle has nothing at %q", ref.Path)
	}
	return store.Value{Data: data}, nil
}

func (d Document) recall(ref store.Ref) (store.Value, bool) {
	data, ok := d.Get(ref.Path)
	return store.Value{Data: data}, ok && ref.Version == ""
}

// Recall implements [store.Recaller], as long as the files are surely the ones that the
// document was made from.
func (b *Bundle) Recall(_ store.Caller, ref store.Ref) (store.Value, bool) {
	s := b.current.Load()
	if !s.fresh() || !s.loaded {
		return store.Value{}, false
	}
	return s.document.recall(ref)
}

// latest returns the state of the files as they are now.
func (b *Bundle) latest(ctx context.Context) *state {
	if s := b.current.Load(); s.fresh() {
		return s
	}
	b.loading.Lock()
	defer b.loading.Unlock()
	old := b.current.Load()
	if old.fresh() { // another read loaded meanwhile
		return old
	}
	s := b.load(ctx, old).forget()
	b.current.Store(s)
	return s
}

// fresh tells whether the files are surely the ones s was made from.
func (s *state) fresh() bool { return s != nil && s.bundle.fresh() && s.identity.fresh() }

// load reads the files; it decrypts them only if they differ from old.
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
		b.tell(err)
		b.logFault(ctx, s)
		return s
	}
	s.document, s.loaded = document, true
	b.tell(nil)
	b.log.LogAttrs(ctx, slog.LevelInfo, "bundle loaded",
		slog.String("file", b.file), slog.Int("paths", len(document.secrets)))
	return s
}

// tell says what came of a load.
func (b *Bundle) tell(err error) {
	if b.told != nil {
		b.told(err)
	}
}

func (b *Bundle) readBoth() *state {
	return &state{bundle: b.read(b.file, MaxCiphertext), identity: b.read(b.identityFile, maxIdentity)}
}

// logFault alone tells a fault in full, once for each change.
func (b *Bundle) logFault(ctx context.Context, s *state) {
	log := b.log.With(slog.String("file", b.file), slog.String("identity_file", b.identityFile), slog.Any("error", s.fault))
	if s.loaded {
		log.LogAttrs(ctx, slog.LevelError, "cannot load the changed bundle; the secrets read before stay in use")
		return
	}
	log.LogAttrs(ctx, slog.LevelError, "cannot load the bundle; nothing is read from it until it is mended")
}

// forget drops the bytes; their sums stay.
func (s *state) forget() *state {
	s.bundle.data, s.identity.data = secret.Bytes{}, secret.Bytes{}
	return s
}

// open decrypts and parses the files as read.
func (b *Bundle) open(s *state) (Document, *store.Error) {
	if err := s.bundle.err; err != nil {
		return Document{}, fault(err, "bundle", b.file, "file")
	}
	if err := s.identity.err; err != nil {
		return Document{}, fault(err, "identity file", b.identityFile, "identityFile")
	}
	identities, err := ParseIdentities(s.identity.data.Reveal())
	if err != nil {
		return Document{}, invalid(err, "identity file %s", b.identityFile)
	}
	plaintext, err := Decrypt(s.bundle.data.Reveal(), identities)
	if err != nil {
		return Document{}, invalid(err, "bundle %s, opened with the identities in %s", b.file, b.identityFile)
	}
	document, err := Parse(plaintext)
	if err != nil {
		return Document{}, invalid(err, "bundle %s, decrypted", b.file)
	}
	return document, nil
}

// fault gives a failure to read a file its reason: [store.Invalid] if a person has to
// put it right, [store.Unavailable] if it may pass by itself, as a file not yet mounted.
func fault(err error, what, file, field string) *store.Error {
	var wrong regular.WrongFile
	switch {
	case errors.As(err, &wrong):
		return invalid(wrong, "%s %s", what, file)
	case errors.Is(err, fs.ErrPermission):
		return store.Invalid.Errorf("%s %s: permission denied; let keymount's user read it", what, file)
	case errors.Is(err, fs.ErrNotExist):
		return store.Unavailable.Errorf("%s %s does not exist; put it there, or correct bundle.%s in keymount.yaml", what, file, field)
	default:
		return &store.Error{Reason: store.Unavailable, Said: what, Cause: err}
	}
}

func invalid(cause error, format string, args ...any) *store.Error {
	e := store.Invalid.Errorf(format, args...)
	e.Cause = cause
	return e
}
