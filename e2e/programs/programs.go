// Package programs builds the real counterparts of keymount's tests from their Go
// modules, once for each state of a module: the next test finds them in the user's
// cache folder.
package programs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Build runs go build with arguments in the folder of a module, once for each state
// of it, and returns the folder that has the programs. It says on progress that it
// is at work: with a cold cache there is nothing else to see for minutes. Processes
// that want the same wait for one of them.
func Build(ctx context.Context, progress io.Writer, source string, args ...string) (folder string, err error) {
	what := filepath.Base(source)
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the programs of %s: %w", what, err)
	}
	digest, err := digestOf(source, args)
	if err != nil {
		return "", fmt.Errorf("read the module of %s: %w", what, err)
	}
	place := filepath.Join(cache, "keymount-e2e", digest)
	if err := os.MkdirAll(place, 0o750); err != nil {
		return "", fmt.Errorf("find a place for the programs of %s: %w", what, err)
	}
	unlock, err := lock(ctx, filepath.Join(place, "lock"))
	if err != nil {
		return "", fmt.Errorf("wait for the build of %s: %w", what, err)
	}
	defer unlock()
	folder = filepath.Join(place, what)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return folder, compile(ctx, progress, source, args, folder)
	}
	return folder, nil
}

func compile(ctx context.Context, progress io.Writer, source string, args []string, folder string) error {
	began, what := time.Now(), filepath.Base(source)
	_, _ = fmt.Fprintf(progress, "building %s, once; this takes minutes if nothing of it is cached\n", what)
	partial := folder + ".partial" // a build that is interrupted leaves no folder
	//nolint:gosec // G204: modules of ours
	command := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-buildvcs=false", "-o", partial + "/"}, args)...)
	command.Dir = source
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", what, err, out)
	}
	if err := os.Rename(partial, folder); err != nil {
		return fmt.Errorf("build %s: %w", what, err)
	}
	_, _ = fmt.Fprintf(progress, "%s built in %s\n", what, time.Since(began).Round(time.Second))
	return nil
}

// Vault builds the server of e2e/vault and returns it.
func Vault(ctx context.Context, progress io.Writer) (program string, err error) {
	source, err := Source(ctx, "vault")
	if err != nil {
		return "", err
	}
	folder, err := Build(ctx, progress, source, "-ldflags=-s -w", ".")
	return filepath.Join(folder, "vault"), err
}

// Kubectl builds the program of e2e/kubectl and returns it.
func Kubectl(ctx context.Context, progress io.Writer) (program string, err error) {
	source, err := Source(ctx, "kubectl")
	if err != nil {
		return "", err
	}
	folder, err := Build(ctx, progress, source, "-trimpath", "-ldflags=-s -w", ".")
	return filepath.Join(folder, "kubectl"), err
}

// Helm builds the real helm and returns it. Go keeps it in its own cache.
func Helm(ctx context.Context) (program string, err error) {
	e2e, err := Source(ctx, ".")
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, "go", "tool", "-n", "-modfile=tools/helm/go.mod", "helm")
	command.Dir = filepath.Dir(e2e)
	out, err := command.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("build helm: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Source is a folder of e2e, wherever the test's package lies.
func Source(ctx context.Context, name string) (string, error) {
	e2e, err := FindModule(ctx, "", "github.com/keymount/keymount/e2e")
	if err != nil {
		return "", err
	}
	return filepath.Join(e2e.Dir, name), nil
}

// Module is one as go list describes it.
type Module struct{ Dir, Version string }

// FindModule looks for a module among those of the module in folder.
func FindModule(ctx context.Context, folder, path string) (*Module, error) {
	command := exec.CommandContext(ctx, "go", "list", "-m", "-json=Dir,Version", path) //nolint:gosec // G204: one of ours
	command.Dir = folder
	out, err := command.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	found := &Module{}
	if err == nil {
		err = json.Unmarshal(out, found)
	}
	if err != nil {
		return nil, fmt.Errorf("find the module %s: %w", path, err)
	}
	return found, nil
}

// digestOf names what is built: the module's files, the toolchain, the arguments.
func digestOf(source string, args []string) (string, error) {
	digest := sha256.New()
	_, _ = fmt.Fprintln(digest, runtime.Version(), runtime.GOOS, runtime.GOARCH, args) // a hash never fails
	err := filepath.WalkDir(source, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name) //nolint:gosec // G122: nobody changes our sources meanwhile
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(digest, "%s %x\n", strings.TrimPrefix(name, source), sha256.Sum256(content))
		return nil
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(digest.Sum(nil)[:10]), nil
}

// lock waits until this process holds the lock file, or the context ends. The kernel
// lets go of it when the process ends.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, context.Cause(ctx)), file.Close())
		case <-ticker.C:
		}
	}
}
