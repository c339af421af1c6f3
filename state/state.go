// Package state is the encrypted folder that outlives the process: logins, credentials and
// certificates, which a restart must not make twice, in memory and for keymount alone. [Open]
// locks the folder, each store has a [File] in it, and [Folder.During] keeps the files up to
// date. It knows neither the kinds of store nor the form of their state.
package state

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/keymount/keymount/internal/secret"
)

// Folder holds the logins, credentials and certificates that must not be made twice, in a
// file for each store. A nil Folder keeps nothing.
type Folder struct {
	root   *os.Root
	folder *os.File // the lock on it ends with the process
	key    secret.Bytes
	node   string
	log    *slog.Logger
	files  []*File
}

// Open makes and locks the folder at path, and refuses one on a disk or open to other users.
// Without a path it returns a nil Folder. The files are encrypted with key, and open on this
// node alone.
func Open(path string, key secret.Bytes, node string, log *slog.Logger) (*Folder, error) {
	if path == "" {
		return nil, nil
	}
	root, folder, err := openPrivately(path)
	if err != nil {
		return nil, err
	}
	return &Folder{root: root, folder: folder, key: key, node: node, log: log}, nil
}

func openPrivately(path string) (root *os.Root, folder *os.File, err error) {
	const private = 0o700
	switch err := os.Mkdir(path, private); {
	case err == nil:
		defer func() {
			if folder == nil { // refused
				_ = os.Remove(path)
			}
		}()
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("%w; make the folder that it is to be in", err)
	case !errors.Is(err, fs.ErrExist):
		return nil, nil, err
	}
	if root, err = os.OpenRoot(path); err != nil {
		return nil, nil, fmt.Errorf("%w; move away what is there, or name another folder", err)
	}
	if folder, err = root.Open("."); err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	if err := checkPrivate(path, folder); err != nil {
		return nil, nil, errors.Join(err, folder.Close(), root.Close())
	}
	return root, folder, nil
}

// checkPrivate requires a folder of this user alone, in memory, and locks it.
func checkPrivate(path string, folder *os.File) error {
	info, err := folder.Stat()
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	const others = 0o077
	switch mode := info.Mode().Perm(); {
	case ok && int(owner.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to uid %d and keymount runs as uid %d; remove it, and keymount makes one of its own", path, owner.Uid, os.Geteuid())
	case mode&others != 0:
		return fmt.Errorf("%s has the mode %04o, so that others than its owner may enter; chmod 0700 %s", path, mode, path)
	case !InMemory(path):
		return fmt.Errorf("%s is not on a tmpfs: secrets would reach a disk; name a folder below /run, or mount a tmpfs there", path)
	}
	err = syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%s is that of another keymount, which runs; stop that one or name another folder", path)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	return nil
}

// File is the file of the store with this name; nil for a nil Folder. It opens only with the
// same fingerprint, which identifies the store's servers and the way to log in.
//
// A fingerprint has texts and lists of texts: a file is bound to the JSON of node, name and
// fingerprint in one list, and another encoding would put all existing files aside.
func (s *Folder) File(name string, fingerprint []any) *File {
	if s == nil {
		return nil
	}
	bound, _ := json.Marshal(append([]any{s.node, name}, fingerprint...)) // texts, which never fails
	sum := sha256.Sum256(bound)
	f := &File{
		root: s.root, name: name + stateSuffix, key: s.key, bound: sum[:], signal: make(chan struct{}, 1),
		log: s.log.With(slog.String("store", name)),
	}
	s.files = append(s.files, f)
	return f
}

// Restore has each store take over its file, and removes the files of stores that are gone.
func (s *Folder) Restore(ctx context.Context) {
	if s == nil {
		return
	}
	for _, f := range s.files {
		f.restore(ctx)
	}
	s.prune(ctx)
}

// prune removes the files of stores that keymount.yaml no longer names: their logins are of
// no use.
func (s *Folder) prune(ctx context.Context) {
	files, err := fs.ReadDir(s.root.FS(), ".")
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimSuffix(file.Name(), asideSuffix), bornSuffix)
		if strings.HasSuffix(name, stateSuffix) && !slices.ContainsFunc(s.files, func(f *File) bool { return f.name == name }) {
			err = errors.Join(err, s.root.Remove(file.Name()))
		}
	}
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "the state of stores that are gone is not removed", slog.String("error", err.Error()))
	}
}

// During keeps the files up to date while serve runs, and writes them once more after the
// last change. It returns the error of serve.
func (s *Folder) During(ctx context.Context, serve func() error) error {
	if s == nil {
		return serve()
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var writing sync.WaitGroup
	for _, f := range s.files {
		writing.Go(func() { f.run(ctx) })
	}
	err := serve()
	stop()
	writing.Wait()
	return err
}

// Close releases the folder for another process.
func (s *Folder) Close() {
	if s != nil {
		_ = s.folder.Close()
		_ = s.root.Close()
	}
}
