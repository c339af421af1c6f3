package vaulttest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// vaultBinary is the server of e2e/vault, built if this machine has not built this
// very source yet. Test packages that run side by side wait for one build.
func vaultBinary(tb testing.TB) string {
	tb.Helper()
	source := vaultSource(tb)
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatalf("find a place for the Vault server: %v", err)
	}
	digest, err := digestOf(source)
	if err != nil {
		tb.Fatalf("read the source of the Vault server: %v", err)
	}
	folder := filepath.Join(cache, "keymount-e2e", digest)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		tb.Fatalf("find a place for the Vault server: %v", err)
	}
	unlock, err := lock(filepath.Join(folder, "lock"))
	if err != nil {
		tb.Fatalf("wait for the build of the Vault server: %v", err)
	}
	defer unlock()
	binary := filepath.Join(folder, "vault")
	if _, err := os.Stat(binary); errors.Is(err, fs.ErrNotExist) {
		build(tb, source, binary)
	}
	return binary
}

// vaultSource is the folder e2e/vault, wherever the test's package lies.
func vaultSource(tb testing.TB) string {
	tb.Helper()
	const module = "github.com/keymount/keymount/e2e"
	out, err := exec.CommandContext(tb.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		tb.Fatalf("find the folder of %s: %v", module, err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "vault")
}

// digestOf names what is built: the source, the modules' checksums, the toolchain.
func digestOf(source string) (string, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", fmt.Errorf("list the source: %w", err)
	}
	files = append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))
	digest := sha256.New()
	_, _ = fmt.Fprintln(digest, runtime.Version(), runtime.GOOS, runtime.GOARCH) // a hash never fails
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("open: %w", err)
		}
		_, err = io.Copy(digest, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return "", fmt.Errorf("read %s: %w", name, err)
		}
	}
	return hex.EncodeToString(digest.Sum(nil)[:10]), nil
}

// lock waits until this process holds the lock file. The kernel lets go of it
// when the process ends.
func lock(name string) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// build says on standard error that it is at work: with a cold cache there is
// nothing else to see for minutes.
func build(tb testing.TB, source, binary string) {
	tb.Helper()
	began := time.Now()
	_, _ = fmt.Fprintln(os.Stderr, "vaulttest: building the Vault server, once; this takes minutes if nothing of it is cached")
	partial := binary + ".partial" // a build that is interrupted leaves no binary
	//nolint:gosec // G204: a go build of our own source
	command := exec.CommandContext(tb.Context(), "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", partial, ".")
	command.Dir = source
	if out, err := command.CombinedOutput(); err != nil {
		tb.Fatalf("build the Vault server: %v\n%s", err, out)
	}
	if err := os.Rename(partial, binary); err != nil {
		tb.Fatalf("build the Vault server: %v", err)
	}
	_, _ = fmt.Fprintf(os.Stderr, "vaulttest: built in %s\n", time.Since(began).Round(time.Second))
}
