package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keymount/keymount/e2e/programs"
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
// progress. With nothing cached that takes minutes, so it is worth a step of its
// own ahead of tests with a time limit. What is built stays in the user's cache
// folder.
func Build(ctx context.Context, progress io.Writer) (*Programs, error) {
	kubernetes, _, err := build(ctx, progress, "kubernetes", "k8s.io/kubernetes", "k8s.io/component-base/version.gitVersion")
	if err != nil {
		return nil, err
	}
	driver, driverModule, err := build(ctx, progress, "driver",
		"sigs.k8s.io/secrets-store-csi-driver", "sigs.k8s.io/secrets-store-csi-driver/pkg/version.BuildVersion")
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
		DriverManifests:   filepath.Join(driverModule.Dir, "deploy"),
	}, nil
}

// build makes the tools of a module of e2e. The variable of theirs gets the version of
// the module path, which is returned, too.
func build(ctx context.Context, progress io.Writer, name, path, variable string) (folder string, found *programs.Module, err error) {
	source, err := programs.Source(ctx, name)
	if err != nil {
		return "", nil, err
	}
	if found, err = programs.FindModule(ctx, source, path); err != nil {
		return "", nil, err
	}
	folder, err = programs.Build(ctx, progress, source, "-trimpath", "-ldflags=-s -w -X "+variable+"="+found.Version, "tool")
	return folder, found, err
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
			strings.Join(missing, ", "), strings.Join(slices.Compact(packages), " "))
	}
	return nil
}
