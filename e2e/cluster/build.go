package cluster

import (
	"context"
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
	"time"
)

// Programs are what a cluster runs that no package of the distribution has.
type Programs struct {
	Etcd, APIServer, ControllerManager, Scheduler, Kubelet string
	Driver                                                 string

	// DriverManifests is the folder deploy of the driver's module: its CRDs, RBAC and
	// CSIDriver object.
	DriverManifests string
}

// Build makes all programs that this machine has not built yet, and says so on
// progress. With nothing cached that takes minutes and memory, so it is worth a step of its own
// before tests with a time limit. What is built stays in the user's cache folder.
func Build(ctx context.Context, progress io.Writer) (*Programs, error) {
	source, err := sources(ctx)
	if err != nil {
		return nil, err
	}
	kubernetes, err := build(ctx, progress, filepath.Join(source, "kubernetes"), "-X k8s.io/component-base/version.gitVersion=v1.35.4")
	if err != nil {
		return nil, err
	}
	driver, err := build(ctx, progress, filepath.Join(source, "driver"), "-X sigs.k8s.io/secrets-store-csi-driver/pkg/version.BuildVersion=v1.6.1")
	if err != nil {
		return nil, err
	}
	manifests, err := moduleFolder(ctx, filepath.Join(source, "driver"), "sigs.k8s.io/secrets-store-csi-driver")
	if err != nil {
		return nil, err
	}
	return &Programs{
		Etcd:              filepath.Join(kubernetes, "server"), // of the package go.etcd.io/etcd/server
		APIServer:         filepath.Join(kubernetes, "kube-apiserver"),
		ControllerManager: filepath.Join(kubernetes, "kube-controller-manager"),
		Scheduler:         filepath.Join(kubernetes, "kube-scheduler"),
		Kubelet:           filepath.Join(kubernetes, "kubelet"),
		Driver:            filepath.Join(driver, "secrets-store-csi-driver"),
		DriverManifests:   filepath.Join(manifests, "deploy"),
	}, nil
}

// sources is the folder e2e, wherever the test's package lies.
func sources(ctx context.Context) (string, error) {
	return moduleFolder(ctx, "", "github.com/keymount/keymount/e2e")
}

// moduleFolder is where a module lies that the module in folder knows.
func moduleFolder(ctx context.Context, folder, module string) (string, error) {
	command := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module) //nolint:gosec // G204: one of ours
	command.Dir = folder
	out, err := command.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("find the module %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// build makes the tools of a module, once for each state of it, and returns their
// folder. Processes that want the same wait for one of them.
func build(ctx context.Context, progress io.Writer, module, flags string) (folder string, err error) {
	what := filepath.Base(module)
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the programs of %s: %w", what, err)
	}
	digest, err := digestOf(module, flags)
	if err != nil {
		return "", fmt.Errorf("read the module of %s: %w", what, err)
	}
	place := filepath.Join(cache, "keymount-e2e", digest)
	if err := os.MkdirAll(place, 0o750); err != nil {
		return "", fmt.Errorf("find a place for the programs of %s: %w", what, err)
	}
	unlock, err := lock(filepath.Join(place, "lock"))
	if err != nil {
		return "", fmt.Errorf("wait for the build of %s: %w", what, err)
	}
	defer unlock()
	folder = filepath.Join(place, what)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return folder, compile(ctx, progress, module, flags, folder)
	}
	return folder, nil
}

// compile says that it is at work: with a cold cache there is nothing else to see
// for minutes.
func compile(ctx context.Context, progress io.Writer, module, flags, folder string) error {
	began, what := time.Now(), filepath.Base(module)
	_, _ = fmt.Fprintf(progress, "cluster: building %s, once; this takes minutes if nothing of it is cached\n", what)
	partial := folder + ".partial"                                                     // a build that is interrupted leaves no folder
	command := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", //nolint:gosec // G204: modules of ours
		"-ldflags="+strings.TrimSpace("-s -w "+flags), "-o", partial+"/", "tool")
	command.Dir = module
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", what, err, out)
	}
	if err := os.Rename(partial, folder); err != nil {
		return fmt.Errorf("build %s: %w", what, err)
	}
	_, _ = fmt.Fprintf(progress, "cluster: %s built in %s\n", what, time.Since(began).Round(time.Second))
	return nil
}

// digestOf names what is built: the module's files, the toolchain, the flags.
func digestOf(module, flags string) (string, error) {
	digest := sha256.New()
	_, _ = fmt.Fprintln(digest, runtime.Version(), runtime.GOOS, runtime.GOARCH, flags) // a hash never fails
	err := filepath.WalkDir(module, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name) //nolint:gosec // G122: nobody changes our sources meanwhile
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(digest, "%s %x\n", strings.TrimPrefix(name, module), sha256.Sum256(content))
		return nil
	})
	if err != nil {
		return "", err
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

// requirements is an error that names the packages of all that is missing here.
func requirements() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root on Linux (namespaces, mounts, cgroups): run the tests with sudo -E or in a privileged container")
	}
	var missing, packages []string
	for _, one := range []struct{ program, pkg string }{
		{"containerd", "containerd"},
		{"containerd-shim-runc-v2", "containerd"},
		{"ctr", "containerd"},
		{"runc", "runc"},
		{cniPlugins + "/ptp", "containernetworking-plugins"},
		{"busybox", "busybox-static"},
		{"mount", "mount"},
	} {
		if _, err := exec.LookPath(one.program); err != nil {
			missing, packages = append(missing, one.program), append(packages, one.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("a cluster needs programs that are not here: %s; on Debian, apt-get install --no-install-recommends %s",
			strings.Join(missing, ", "), strings.Join(packages, " "))
	}
	return nil
}
