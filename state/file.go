package state

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/keymount/keymount/internal/secret"
)

const (
	// stateForm is the purpose and form of a file: a file of another form does not open.
	stateForm = "keymount state, form 1"
	// maxState bounds a file. Two hundred pods take a megabyte.
	maxState = 32 << 20
	// writeAfter is the time from a change to writing the file, with all changes until then;
	// writeAgain is the time after a failure.
	writeAfter = time.Second
	writeAgain = 10 * time.Second
	saltBytes  = 32
	// asideSuffix names files that do not open.
	asideSuffix = ".aside"
	stateSuffix = ".state"
	// bornSuffix names files while they are written.
	bornSuffix = ".new"
	stateMode  = 0o600
)

// Stateful can outlive the process.
type Stateful interface {
	// Snapshot is JSON for a later Restore, with secrets in plain text. It may be called at
	// any time.
	Snapshot() (secret.Bytes, error)
	// Restore takes over the part of a snapshot that has not ended, and returns the number of
	// entries; with an error it takes nothing. It must come before any other call.
	Restore(snapshot secret.Bytes) (int, error)
}

// File is the state of one store in the folder; a nil File keeps nothing. Without the key a
// reader learns nothing from it, and a writer can only restore an older file or destroy it.
type File struct {
	root   *os.Root
	name   string
	key    secret.Bytes // the keys of files are derived from it
	bound  []byte       // hash of node, store and fingerprint: the file does not open with others
	log    *slog.Logger
	signal chan struct{} // holds one element after a change
	failed bool          // the last write

	logins, values Stateful
}

// sealedState is the content of a file, under the encryption; write spells it out.
type sealedState struct{ Logins, Values json.RawMessage }

// Hold sets the content of the file, before [Folder.Restore] and [Folder.During]. nil is
// nothing: a store may have no logins, or no memory.
func (f *File) Hold(logins, values Stateful) {
	if f != nil {
		f.logins, f.values = logins, values
	}
}

// Change has the file written soon. It returns at once.
func (f *File) Change() {
	if f == nil {
		return
	}
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// run writes the file soon after each change until ctx ends, and then once more.
func (f *File) run(ctx context.Context) {
	for pause := writeAfter; f.changed(ctx, pause); {
		pause = f.save(ctx)
	}
	f.save(ctx)
}

// changed waits for a change and then for pause; it is false when ctx ends first.
func (f *File) changed(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-f.signal:
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// save writes the file and returns the pause before the next write. It logs only the first
// failure in a row, and its end.
func (f *File) save(ctx context.Context) time.Duration {
	err := f.write()
	switch {
	case err != nil && !f.failed:
		f.log.LogAttrs(ctx, slog.LevelWarn, "the state is not written: a restart now would make new logins and credentials", slog.String("error", err.Error()))
	case err == nil && f.failed:
		f.log.LogAttrs(ctx, slog.LevelInfo, "the state is written again")
	}
	if f.failed = err != nil; f.failed {
		f.Change()
		return writeAgain
	}
	return writeAfter
}

// restore takes over the content of the file. It puts a file that does not open aside,
// because keymount can serve without it.
func (f *File) restore(ctx context.Context) {
	logins, values, err := f.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		aside := f.name + asideSuffix
		f.log.LogAttrs(ctx, slog.LevelWarn, "the state is put aside: what is not taken over of it is made anew, and what it holds expires",
			slog.String("file", aside), slog.String("error", errors.Join(err, f.root.Rename(f.name, aside)).Error()))
	default:
		f.log.LogAttrs(ctx, slog.LevelInfo, "the state is taken over", slog.Int("logins", logins), slog.Int("credentials", values))
	}
}

func (f *File) read() (logins, values int, err error) {
	file, err := f.root.OpenFile(f.name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would block for ever
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0, 0, errors.Join(errors.New("it is no regular file"), err)
	}
	sealed, err := io.ReadAll(io.LimitReader(file, maxState+1))
	if err != nil {
		return 0, 0, err
	}
	text, err := f.open(sealed)
	if err != nil {
		return 0, 0, err
	}
	var state sealedState
	if json.Unmarshal(text, &state) != nil { // its error may quote a secret
		return 0, 0, errors.New("it is not of the form that this keymount writes")
	}
	// Logins first: a credential of an unknown login has ended.
	if logins, err = restore(f.logins, state.Logins); err != nil {
		return 0, 0, err
	}
	values, err = restore(f.values, state.Values)
	return logins, values, err
}

// write replaces the file atomically.
func (f *File) write() error {
	// Values first: the logins taken afterwards include theirs.
	values, err := snapshot(f.values)
	if err != nil {
		return err
	}
	logins, err := snapshot(f.logins)
	if err != nil {
		return err
	}
	sealed, err := f.seal(slices.Concat([]byte(`{"Logins":`), logins.Reveal(), []byte(`,"Values":`), values.Reveal(), []byte("}")))
	if err != nil {
		return err
	}
	if len(sealed) > maxState {
		return fmt.Errorf("%d bytes are more than it may have (%d)", len(sealed), maxState)
	}
	return f.replace(sealed)
}

func restore(s Stateful, text json.RawMessage) (int, error) {
	if s == nil {
		return 0, nil
	}
	return s.Restore(secret.New(text))
}

func snapshot(s Stateful) (secret.Bytes, error) {
	if s == nil {
		return secret.New([]byte("null")), nil
	}
	return s.Snapshot()
}

// replace writes a file under another name and renames it.
func (f *File) replace(sealed []byte) error {
	born := f.name + bornSuffix
	if err := f.root.Remove(born); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := f.root.OpenFile(born, os.O_WRONLY|os.O_CREATE|os.O_EXCL, stateMode)
	if err != nil {
		return err
	}
	if _, err := file.Write(sealed); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := file.Close(); err != nil {
		return err
	}
	return f.root.Rename(born, f.name)
}

// seal encrypts with a key of this file's own, derived with the salt at its start.
func (f *File) seal(text []byte) ([]byte, error) {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	aead, err := f.aead(salt)
	if err != nil {
		return nil, err
	}
	return aead.Seal(salt, nil, text, f.bound), nil //nolint:gosec // G407: this kind takes no nonce and draws one
}

func (f *File) open(sealed []byte) ([]byte, error) {
	if len(sealed) > maxState {
		return nil, fmt.Errorf("it has more than %d bytes", maxState)
	}
	salt := sealed[:min(saltBytes, len(sealed))]
	aead, err := f.aead(salt)
	if err != nil {
		return nil, err
	}
	text, err := aead.Open(nil, nil, sealed[len(salt):], f.bound)
	if err != nil {
		return nil, errors.New("it does not open: the key in versionKeyFile, the node, or the store's addresses, namespace, auth or session are others, " +
			"another version of keymount has written it, or it is damaged")
	}
	return text, nil
}

func (f *File) aead(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, f.key.Reveal(), salt, stateForm, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use the key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}
