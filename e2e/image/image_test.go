package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/e2e/cluster"
	"github.com/keymount/keymount/e2e/image"
)

// repository is the folder with the Dockerfile.
const repository = "../.."

// expected are the files of keymount's image: owner, mode and name.
var expected = []string{
	"0:0 drwxr-xr-x etc/",
	"0:0 drwxr-xr-x etc/ssl/",
	"0:0 drwxr-xr-x etc/ssl/certs/",
	"0:0 -rw-r--r-- etc/ssl/certs/ca-certificates.crt",
	"0:0 -rwxr-xr-x keymount",
}

func TestBuild(t *testing.T) {
	out := filepath.Join(t.TempDir(), "keymount.tar")
	if err := image.Build(t.Context(), repository, out); err != nil {
		t.Fatal(err)
	}
	built := open(t, out, image.Keymount)
	checkConfig(t, built, runtime.GOARCH)
	if diff := cmp.Diff(expected, built.list()); diff != "" {
		t.Errorf("the files in it (-want +got)\n%s", diff)
	}
	root := built.unpack(t)
	checkBinary(t, filepath.Join(root, "keymount"), runtime.GOARCH)
	checkVersion(t, root, built.Config.Labels)

	// What runs when nothing else is said is serve, which misses its file.
	_, printed := inside(t, root, slices.Concat(built.Config.Entrypoint, built.Config.Cmd)...)
	if want := "keymount: read the configuration: open /etc/keymount/keymount.yaml: no such file or directory; name the file with --config\n"; printed != want {
		t.Errorf("the default command prints %q", printed)
	}
}

// Another processor's image is compiled across: its binary is looked at, not run.
func TestBuildForAnotherProcessor(t *testing.T) {
	arch := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	out := filepath.Join(t.TempDir(), "keymount.tar")
	if err := image.BuildWith(t.Context(), repository, out, image.Options{Arch: arch}); err != nil {
		t.Fatal(err)
	}
	built := open(t, out, image.Keymount)
	checkConfig(t, built, arch)
	if diff := cmp.Diff(expected, built.list()); diff != "" {
		t.Errorf("the files in it (-want +got)\n%s", diff)
	}
	checkBinary(t, filepath.Join(built.unpack(t), "keymount"), arch)
}

// BASE is whatever the operator trusts; what is in it stays, beside keymount's own.
func TestBuildOnABase(t *testing.T) {
	folder := t.TempDir()
	base, out := filepath.Join(folder, "base.tar"), filepath.Join(folder, "keymount.tar")
	distroless := cluster.Image{
		Name: "localhost/distroless:latest",
		Env:  []string{"OF=base"},
		Files: []cluster.File{
			{Path: "/etc/os-release", Content: []byte("ID=base\n")},
			{Path: "/etc/ssl/certs/ca-certificates.crt", Content: []byte("old\n")},
		},
	}
	if err := distroless.Write(base); err != nil {
		t.Fatal(err)
	}
	if err := image.BuildWith(t.Context(), repository, out, image.Options{Base: base}); err != nil {
		t.Fatal(err)
	}
	built := open(t, out, image.Keymount)
	checkConfig(t, built, runtime.GOARCH)
	if !slices.Contains(built.Config.Env, "OF=base") {
		t.Errorf("the environment of the base is gone: %q", built.Config.Env)
	}
	root := built.unpack(t)
	for name, want := range map[string]string{"etc/os-release": "ID=base\n", "etc/ssl/certs/ca-certificates.crt": read(t, "/etc/ssl/certs/ca-certificates.crt")} {
		if got := read(t, filepath.Join(root, name)); got != want {
			t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
		}
	}
	checkVersion(t, root, built.Config.Labels)
}

// A label cannot claim another version than the program.
func TestBuildWithAWrongVersion(t *testing.T) {
	out := filepath.Join(t.TempDir(), "keymount.tar")
	err := image.BuildWith(t.Context(), repository, out, image.Options{Args: map[string]string{"VERSION": "v9.9.9"}})
	if err == nil || !regexp.MustCompile(`VERSION is v9\.9\.9, and git makes it \S+\n`).MatchString(err.Error()) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an image is there: %v", err)
	}
}

func TestWithoutBuildah(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := image.Build(t.Context(), repository, filepath.Join(t.TempDir(), "keymount.tar"))
	want := "make image docker.io/library/keymount:e2e: buildah is not there; on Debian: apt-get install --no-install-recommends buildah"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A build that is given up leaves no process, no image and no storage behind.
func TestBuildGivenUp(t *testing.T) {
	const endless = "sleep\x0031535999\x00"
	temporary, source, out := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "keymount.tar")
	t.Setenv("TMPDIR", temporary)
	for name, text := range map[string]string{
		"go.mod": "module keymount.invalid/endless\n", "main.go": "package main\n\nfunc main() {}\n",
		"Dockerfile": "ARG GO\nFROM ${GO}\nRUN " + strings.ReplaceAll(endless, "\x00", " ") + "\n",
	} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- image.Build(ctx, source, out) }()
	for tick := time.NewTicker(20 * time.Millisecond); !running(t, endless); {
		select {
		case err := <-ended:
			t.Fatalf("the build ended by itself: %v", err)
		case <-tick.C:
		}
	}
	giveUp()
	if err := <-ended; err == nil {
		t.Error("the build says that it is done")
	}
	if running(t, endless) {
		t.Error("the command of the Dockerfile is still running")
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an image is there: %v", err)
	}
}

// running tells whether there is a process with this command line, as the kernel
// keeps it.
func running(t *testing.T, commandLine string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		data, err := os.ReadFile(file)
		return err == nil && string(data) == commandLine // the others may have ended by now
	})
}

// checkConfig looks at what the image says of itself.
func checkConfig(t *testing.T, built archive, arch string) {
	t.Helper()
	if built.OS != "linux" || built.Architecture != arch {
		t.Errorf("it is for %s/%s, want linux/%s", built.OS, built.Architecture, arch)
	}
	c := built.Config
	if diff := cmp.Diff([][]string{{"/keymount"}, {"serve"}}, [][]string{c.Entrypoint, c.Cmd}); diff != "" {
		t.Errorf("what it runs (-want +got)\n%s", diff)
	}
	const prefix = "org.opencontainers.image."
	if _, err := time.Parse(time.RFC3339, c.Labels[prefix+"created"]); err != nil {
		t.Errorf("created: %v", err)
	}
	if !regexp.MustCompile(`^(v\d+\.\d+\.\d+\S*|\(devel\))$`).MatchString(c.Labels[prefix+"version"]) {
		t.Errorf("version: %q", c.Labels[prefix+"version"])
	}
	for label, want := range map[string]string{
		"title": "keymount", "licenses": "Apache-2.0", "source": "https://github.com/keymount/keymount",
		"description":   "A provider for the Kubernetes Secrets Store CSI driver",
		"documentation": "https://github.com/keymount/keymount/blob/main/README.md",
	} {
		if got := c.Labels[prefix+label]; got != want {
			t.Errorf("%s: %q, want %q", label, got, want)
		}
	}
}

// checkBinary wants a program for this processor that needs no library.
func checkBinary(t *testing.T, file, arch string) {
	t.Helper()
	binary, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = binary.Close() }()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; binary.Machine != want {
		t.Errorf("it is for %s, want %s", binary.Machine, want)
	}
	libraries, err := binary.ImportedLibraries()
	loader := slices.ContainsFunc(binary.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if err != nil || len(libraries) > 0 || loader {
		t.Errorf("it is not static: libraries %q, a loader: %t, %v", libraries, loader, err)
	}
}

// checkVersion holds what keymount in the image says of itself against the labels.
func checkVersion(t *testing.T, root string, labels map[string]string) {
	t.Helper()
	var said struct{ Version, Revision string }
	out, errOut := inside(t, root, "/keymount", "version", "-o", "json")
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		t.Fatalf("%v: %s%s", err, out, errOut)
	}
	version := strings.Replace(labels["org.opencontainers.image.version"], "(devel)", "v0.0.0-unknown", 1)
	revision := labels["org.opencontainers.image.revision"]
	if said.Version != version || strings.TrimSuffix(said.Revision, "-dirty") != revision {
		t.Errorf("it says it is %s of %s, the labels %s of %s", said.Version, said.Revision, version, revision)
	}
}

// inside runs a program with an unpacked image as its root.
func inside(t *testing.T, root string, args ...string) (out, errOut string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), args[0], args[1:]...) //nolint:gosec // G204: what the image is made to run
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: syscall.SIGKILL}
	command.Dir, command.Env, command.Path, command.Err = "/", []string{}, args[0], nil
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := command.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String()
}

// archive is an image as docker save writes it.
type archive struct {
	Architecture string
	OS           string
	Config       struct {
		Entrypoint, Cmd, Env []string
		Labels               map[string]string
	}
	files []entry // as a container sees them, by name
}

type entry struct {
	*tar.Header
	content []byte
}

func open(t *testing.T, file, tag string) archive {
	t.Helper()
	content := map[string][]byte{}
	for _, e := range untar(t, []byte(read(t, file))) {
		content[e.Name] = e.content
	}
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(t, content["manifest.json"], &manifest)
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{tag}) {
		t.Fatalf("%s holds %v, want one image, %s", file, manifest, tag)
	}
	var a archive
	decode(t, content[manifest[0].Config], &a)
	files := map[string]entry{}
	for _, layer := range manifest[0].Layers {
		for _, e := range untar(t, content[layer]) {
			files[e.Name] = e
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		a.files = append(a.files, files[name])
	}
	return a
}

func untar(t *testing.T, data []byte) []entry {
	t.Helper()
	var all []entry
	reader := tar.NewReader(bytes.NewReader(data))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{header, content})
	}
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

// list is what is in an image: owner, mode and name.
func (a archive) list() []string {
	var all []string
	for _, e := range a.files {
		all = append(all, fmt.Sprintf("%d:%d %s %s", e.Uid, e.Gid, e.FileInfo().Mode(), e.Name))
	}
	return all
}

// unpack makes a folder of it.
func (a archive) unpack(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, e := range a.files {
		name := filepath.Join(folder, filepath.Clean("/"+e.Name))
		var err error
		switch e.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(name, e.FileInfo().Mode().Perm())
		case tar.TypeSymlink:
			err = os.Symlink(e.Linkname, name)
		default:
			err = os.WriteFile(name, e.content, e.FileInfo().Mode().Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
