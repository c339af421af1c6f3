package cli

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

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
)

// stateFolder is where what must not be made twice outlives the process: logins,
// credentials and certificates, a file for each store. A nil stateFolder keeps nothing.
type stateFolder struct {
	root   *os.Root
	folder *os.File // the lock on it ends with the process
	key    secret.Bytes
	node   string
	log    *slog.Logger
	files  []*stateFile
}

// openState makes and locks the folder, and refuses one that others may enter, or that
// is on a disk.
func openState(path string, key secret.Bytes, node string, log *slog.Logger) (*stateFolder, error) {
	if path == "" {
		return nil, nil
	}
	root, folder, err := openPrivately(path)
	if err != nil {
		return nil, fmt.Errorf("stateFolder: %w", err)
	}
	return &stateFolder{root: root, folder: folder, key: key, node: node, log: log}, nil
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

// checkPrivate wants a folder of ours alone, in memory, and the lock on it.
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
	case !inMemory(path):
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

// file is that of a store; nil for a nil stateFolder. Only the store of that name, with
// the same servers and the same way to log in, on the same node, can open it.
func (s *stateFolder) file(c config.Store) *stateFile {
	if s == nil {
		return nil
	}
	whose, _ := json.Marshal([]any{s.node, c.Name, c.Vault.Addresses, c.Vault.Namespace, c.Vault.Auth.Method, c.Vault.Auth.Mount, c.Session}) // texts, which never fails
	sum := sha256.Sum256(whose)
	f := &stateFile{
		root: s.root, name: c.Name + stateSuffix, key: s.key, whose: sum[:], signal: make(chan struct{}, 1),
		log: s.log.With(slog.String("store", c.Name)),
	}
	s.files = append(s.files, f)
	return f
}

// restore has each store take over what its file holds.
func (s *stateFolder) restore(ctx context.Context) {
	if s == nil {
		return
	}
	for _, f := range s.files {
		f.restore(ctx)
	}
	s.tidy(ctx)
}

// tidy removes files of stores that keymount.yaml does not name any more: nobody needs
// the logins in them.
func (s *stateFolder) tidy(ctx context.Context) {
	files, err := fs.ReadDir(s.root.FS(), ".")
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimSuffix(file.Name(), asideSuffix), bornSuffix)
		if strings.HasSuffix(name, stateSuffix) && !slices.ContainsFunc(s.files, func(f *stateFile) bool { return f.name == name }) {
			err = errors.Join(err, s.root.Remove(file.Name()))
		}
	}
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "the state of stores that are gone is not removed", slog.String("error", err.Error()))
	}
}

// during keeps the files up to date while serve runs, and writes them once more when
// nothing changes any more. Then the folder is anybody's.
func (s *stateFolder) during(ctx context.Context, serve func() error) error {
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

// close lets go of the folder.
func (s *stateFolder) close() {
	if s != nil {
		_ = s.folder.Close()
		_ = s.root.Close()
	}
}
