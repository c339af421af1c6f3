// Package image makes the images that e2e runs, without a registry: keymount's own
// from the very Dockerfile of the repository, and a stand-in for nginx out of
// Debian's package. Each is a tar as `docker save` writes it.
package image

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"github.com/keymount/keymount/e2e/cluster"
)

// Keymount is the name of keymount's image.
const Keymount = "docker.io/library/keymount:e2e"

// The stand-ins for the images that the Dockerfile begins with.
const (
	goImage   = "localhost/go:e2e"
	baseImage = "localhost/base:e2e"
)

// certificates are those of Debian's ca-certificates.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// Options are what differs from the image that e2e runs.
type Options struct {
	Arch string            // of the image; default: this machine's
	Base string            // a tar, as docker save writes it, to build on; default: nothing
	Args map[string]string // build arguments, in place of those that are found out
}

// Build makes the image [Keymount] from the Dockerfile in a folder, for this
// machine, as a tar.
func Build(ctx context.Context, folder, out string) error {
	return BuildWith(ctx, folder, out, Options{})
}

// BuildWith is Build with options. Every line of the Dockerfile is run as it
// stands. What cannot be had without a registry, golang:1.26, is stood in for by
// an image of this machine: its Go, git and shell are mounted into it, with the
// caches of modules and builds, so that a second build takes seconds.
func BuildWith(ctx context.Context, folder, out string, o Options) (err error) {
	s, err := openStorage()
	if err != nil {
		return fmt.Errorf("make image %s: %w", Keymount, err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.build(ctx, folder, o); err != nil {
		return fmt.Errorf("make image %s: %w", Keymount, err)
	}
	if err := s.save(ctx, out); err != nil {
		return fmt.Errorf("make image %s: %w", Keymount, err)
	}
	return nil
}

func (s storage) build(ctx context.Context, folder string, o Options) error {
	o.Arch = orElse(o.Arch, runtime.GOARCH)
	args, err := s.args(ctx, folder, o)
	if err != nil {
		return err
	}
	volumes, err := s.standInForGo(ctx, folder)
	if err != nil {
		return err
	}
	if o.Base != "" {
		if err := s.load(ctx, o.Base, baseImage); err != nil {
			return err
		}
	}
	command := []string{"build", "--pull=never", "--http-proxy=false", "--identity-label=false", "--platform", "linux/" + o.Arch, "--tag", Keymount}
	for _, name := range slices.Sorted(maps.Keys(args)) {
		command = append(command, "--build-arg", name+"="+args[name])
	}
	for _, volume := range volumes {
		command = append(command, "--volume", volume)
	}
	_, err = s.buildah(ctx, append(command, folder)...)
	return err
}

// load makes the image in a tar known under a name.
func (s storage) load(ctx context.Context, file, tag string) error {
	id, err := s.buildah(ctx, "pull", "--quiet", "docker-archive:"+file)
	if err != nil {
		return err
	}
	_, err = s.buildah(ctx, "tag", id, tag)
	return err
}

// save writes the image to out, which is whole or not there.
func (s storage) save(ctx context.Context, out string) error {
	partial := out + ".partial"
	if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear the way: %w", err)
	}
	if _, err := s.buildah(ctx, "push", "--quiet", Keymount, "docker-archive:"+partial+":"+Keymount); err != nil {
		return err
	}
	if err := os.Rename(partial, out); err != nil {
		return fmt.Errorf("put it in its place: %w", err)
	}
	return nil
}

// args are the arguments of the Dockerfile.
func (s storage) args(ctx context.Context, folder string, o Options) (map[string]string, error) {
	version, revision, err := s.version(ctx, folder)
	if err != nil {
		return nil, err
	}
	args := map[string]string{
		"GO": goImage, "VERSION": version, "REVISION": revision, "CREATED": time.Now().UTC().Format(time.RFC3339),
		// buildah 1.28 knows of the target alone.
		"BUILDPLATFORM": "linux/" + runtime.GOARCH,
	}
	if o.Base != "" {
		args["BASE"] = baseImage
	}
	maps.Copy(args, o.Args)
	return args, nil
}

// version asks Go which version it makes of the folder's git, with a build that
// fills the caches as well.
func (s storage) version(ctx context.Context, folder string) (version, revision string, err error) {
	binary := s.path("keymount")
	for _, args := range [][]string{{"mod", "download"}, {"build", "-buildvcs=auto", "-trimpath", "-o", binary, "."}} {
		command := exec.CommandContext(ctx, "go", args...) //nolint:gosec // G204: our own source
		command.Dir = folder
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+s.folder)
		if _, err := run(command); err != nil {
			return "", "", err
		}
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return "", "", fmt.Errorf("read the version: %w", err)
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			revision = setting.Value
		}
	}
	return info.Main.Version, revision, nil
}

// standInForGo makes [goImage] and returns what has to be mounted into it.
func (s storage) standInForGo(ctx context.Context, folder string) (volumes []string, err error) {
	command := exec.CommandContext(ctx, "go", "env", "-json", "GOROOT", "GOCACHE", "GOMODCACHE")
	command.Dir = folder
	printed, err := run(command)
	if err != nil {
		return nil, err
	}
	var env struct{ GOROOT, GOCACHE, GOMODCACHE string }
	if err := json.Unmarshal([]byte(printed), &env); err != nil {
		return nil, fmt.Errorf("find Go: %w", err)
	}
	tar := s.path("go.tar")
	switch err := goStandIn().Write(tar); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; on Debian: apt-get install --no-install-recommends ca-certificates", err)
	case err != nil:
		return nil, err
	}
	return []string{"/usr:/usr:ro", env.GOROOT + ":/toolchain:ro", env.GOCACHE + ":/gocache", env.GOMODCACHE + ":/gomodcache"},
		s.load(ctx, tar, goImage)
}

// goStandIn leaves room for what is mounted, and looks for modules there and
// nowhere else. Its programs lie below /usr.
func goStandIn() cluster.Image {
	image := cluster.Image{
		Name: goImage,
		Env: []string{
			"PATH=/toolchain/bin:/usr/bin", "HOME=/root", "GOCACHE=/gocache", "GOMODCACHE=/gomodcache", "GOPROXY=off", "GOTOOLCHAIN=local",
		},
		Files: []cluster.File{
			{Path: certificates, Source: certificates, Mode: 0o644},
			{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		},
	}
	for _, name := range []string{"/usr", "/toolchain", "/gocache", "/gomodcache", "/root"} {
		image.Files = append(image.Files, cluster.File{Path: name, Mode: fs.ModeDir | 0o755})
	}
	for _, name := range []string{"/bin", "/lib", "/lib64"} {
		if target, err := os.Readlink(name); err == nil {
			image.Files = append(image.Files, cluster.File{Path: name, Link: target})
		}
	}
	return image
}

func orElse(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
