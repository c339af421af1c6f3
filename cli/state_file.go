package cli

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
	"syscall"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

const (
	// stateForm is what a file is, and in which form: another one does not open.
	stateForm = "keymount state, form 1"
	// maxState bounds a file. What two hundred pods have is a megabyte.
	maxState = 32 << 20
	// writeAfter is how long after a change the file is written, with what has changed
	// meanwhile; writeAgain is how long after a failure.
	writeAfter = time.Second
	writeAgain = 10 * time.Second
	saltBytes  = 32
	// asideSuffix is for files that do not open.
	asideSuffix = ".aside"
	stateSuffix = ".state"
	// bornSuffix is for files that are being written.
	bornSuffix = ".new"
	stateMode  = 0o600
)

// stateFile is what one store has in the folder. Whoever can read it without the key
// learns nothing, and whoever can write to it can make it an older one or none.
type stateFile struct {
	root   *os.Root
	name   string
	key    secret.Bytes // that those of files are derived from
	whose  []byte       // it does not open for anybody else
	log    *slog.Logger
	signal chan struct{} // holds one when something has changed
	failed bool          // the last time that it was to be written

	logins, values store.Stateful
}

// sealedState is what is in a file, under the encryption.
type sealedState struct{ Logins, Values json.RawMessage }

// hold says what is to be in the file; values is a [store.Stateful], as what Keep makes.
func (f *stateFile) hold(logins store.Stateful, values store.Store) {
	if f != nil {
		f.logins = logins
		f.values, _ = values.(store.Stateful)
	}
}

// change says that the file is to be written soon. It returns at once.
func (f *stateFile) change() {
	if f == nil {
		return
	}
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// run writes the file soon after each change until ctx ends, and then once more.
func (f *stateFile) run(ctx context.Context) {
	for pause := writeAfter; f.changed(ctx, pause); {
		pause = f.save(ctx)
	}
	f.save(ctx)
}

// changed waits for a change and as long as pause; it is false when ctx ends first.
func (f *stateFile) changed(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-f.signal:
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// save writes the file and returns how soon it may be written again. Only the first
// failure in a row is told, and its end.
func (f *stateFile) save(ctx context.Context) time.Duration {
	err := f.write()
	switch {
	case err != nil && !f.failed:
		f.log.LogAttrs(ctx, slog.LevelWarn, "the state is not written: a restart now would make new logins and credentials", slog.String("error", err.Error()))
	case err == nil && f.failed:
		f.log.LogAttrs(ctx, slog.LevelInfo, "the state is written again")
	}
	if f.failed = err != nil; f.failed {
		f.change()
		return writeAgain
	}
	return writeAfter
}

// restore takes over what is in the file. What does not open is put aside, since it is
// no reason not to serve.
func (f *stateFile) restore(ctx context.Context) {
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

func (f *stateFile) read() (logins, values int, err error) {
	file, err := f.root.OpenFile(f.name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for ever
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
	if json.Unmarshal(text, &state) != nil { // whose error may quote a secret
		return 0, 0, errors.New("it is not of the form that this keymount writes")
	}
	// Logins first: what lives by one that is not known has ended.
	if logins, err = f.logins.Restore(secret.New(state.Logins)); err != nil {
		return 0, 0, err
	}
	values, err = f.values.Restore(secret.New(state.Values))
	return logins, values, err
}

// write replaces the file at one stroke.
func (f *stateFile) write() error {
	// Values first: what one lives by is then among the logins.
	values, err := f.values.Snapshot()
	if err != nil {
		return err
	}
	logins, err := f.logins.Snapshot()
	if err != nil {
		return err
	}
	text, err := json.Marshal(sealedState{Logins: logins.Reveal(), Values: values.Reveal()})
	if err != nil { // which may quote a secret
		return errors.New("it cannot be written as JSON")
	}
	sealed, err := f.seal(text)
	if err != nil {
		return err
	}
	if len(sealed) > maxState {
		return fmt.Errorf("%d bytes are more than it may have (%d)", len(sealed), maxState)
	}
	return f.replace(sealed)
}

// replace writes the file anew, under another name first.
func (f *stateFile) replace(sealed []byte) error {
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

// seal encrypts with a key of this file's alone, which its salt begins with.
func (f *stateFile) seal(text []byte) ([]byte, error) {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	aead, err := f.aead(salt)
	if err != nil {
		return nil, err
	}
	return aead.Seal(salt, nil, text, f.whose), nil //nolint:gosec // G407: this kind takes no nonce and draws one
}

func (f *stateFile) open(sealed []byte) ([]byte, error) {
	if len(sealed) > maxState {
		return nil, fmt.Errorf("it has more than %d bytes", maxState)
	}
	salt := sealed[:min(saltBytes, len(sealed))]
	aead, err := f.aead(salt)
	if err != nil {
		return nil, err
	}
	text, err := aead.Open(nil, nil, sealed[len(salt):], f.whose)
	if err != nil {
		return nil, errors.New("it does not open: the key in versionKeyFile, the node, or the store's addresses, namespace, auth or session are others, " +
			"another version of keymount has written it, or it is damaged")
	}
	return text, nil
}

func (f *stateFile) aead(salt []byte) (cipher.AEAD, error) {
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
