package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Image is a container image of one layer, made of files of this machine: no
// registry can be reached.
type Image struct {
	Name       string // with its registry and tag: docker.io/library/busybox:1.37
	Files      []File // folders that lead to one of them need not be listed
	Entrypoint []string
	Command    []string
	Env        []string // NAME=value
	User       string   // "" is root
}

// File is one of an [Image]'s: a copy of Source, a symbolic link, a folder if Mode
// has [fs.ModeDir], and otherwise Content.
type File struct {
	Path    string // in the image, such as /bin/sh
	Source  string // a file of this machine
	Link    string // what the link says
	Content []byte
	Mode    fs.FileMode // 0 is the source's, or 0644
}

// Write makes the file that [Node.Import] takes, in the format of docker save.
func (i Image) Write(name string) error {
	if err := i.write(name); err != nil {
		return fmt.Errorf("make the image %s: %w", i.Name, err)
	}
	return nil
}

func (i Image) write(name string) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": i.Entrypoint, "Cmd": i.Command, "Env": i.Env, "User": i.User},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
	})
	if err != nil {
		return err
	}
	configName, layerName := digest(config)+".json", digest(layer)+".tar"
	manifest, err := json.Marshal([]any{
		map[string]any{"Config": configName, "RepoTags": []string{i.Name}, "Layers": []string{layerName}},
	})
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, file := range []File{
		{Path: "manifest.json", Content: manifest},
		{Path: configName, Content: config},
		{Path: layerName, Content: layer},
	} {
		if err := file.add(writer); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, archive.Bytes(), 0o600)
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// layer is the tar of the files, each after the folders that lead to it.
func (i Image) layer() ([]byte, error) {
	var layer bytes.Buffer
	writer := tar.NewWriter(&layer)
	there := map[string]bool{"/": true}
	for _, file := range i.Files {
		var missing []File
		for folder := path.Dir(path.Clean(file.Path)); !there[folder]; folder = path.Dir(folder) {
			there[folder] = true
			missing = append(missing, File{Path: folder, Mode: fs.ModeDir | 0o755})
		}
		slices.Reverse(missing)
		for _, one := range append(missing, file) {
			if err := one.add(writer); err != nil {
				return nil, err
			}
		}
		there[path.Clean(file.Path)] = true
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return layer.Bytes(), nil
}

// add writes the file to a tar. It says nothing of time, so that the same files
// are the same image.
func (f File) add(writer *tar.Writer) error {
	header := &tar.Header{Name: strings.TrimPrefix(path.Clean(f.Path), "/"), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	content, mode := f.Content, f.Mode
	switch {
	case f.Link != "":
		header.Typeflag, header.Linkname, mode = tar.TypeSymlink, f.Link, 0o777
	case f.Mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
	case f.Source != "":
		info, err := os.Stat(f.Source)
		if err != nil {
			return err
		}
		if mode == 0 {
			mode = info.Mode()
		}
		if content, err = os.ReadFile(f.Source); err != nil {
			return err
		}
	case mode == 0:
		mode = 0o644
	}
	header.Mode, header.Size = tarMode(mode), int64(len(content))
	if err := writer.WriteHeader(header); err != nil {
		return err
	}
	_, err := writer.Write(content)
	return err
}

// tarMode spells a mode as tar does, which has its own bit for /tmp's.
func tarMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}

// Busybox is an image of this machine's busybox, with a link for each of its
// commands, the users root and nobody, and a /tmp for everybody. Its name is for
// the caller to choose.
func Busybox(name string) (Image, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return Image{}, fmt.Errorf("make the image %s: %w", name, err)
	}
	commands, err := exec.Command(program, "--list").Output() //nolint:gosec,noctx // G204: busybox; it only prints
	if err != nil {
		return Image{}, fmt.Errorf("make the image %s: ask busybox for its commands: %w", name, err)
	}
	image := Image{
		Name:    name,
		Command: []string{"sh"},
		Env:     []string{"PATH=/bin"},
		Files: []File{
			{Path: "/bin/busybox", Source: program},
			{Path: "/etc/passwd", Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
			{Path: "/etc/group", Content: []byte("root:x:0:\nnobody:x:65534:\n")},
			{Path: "/root", Mode: fs.ModeDir | 0o700},
			{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		},
	}
	for command := range strings.FieldsSeq(string(commands)) {
		if command != "busybox" {
			image.Files = append(image.Files, File{Path: "/bin/" + command, Link: "busybox"})
		}
	}
	return image, nil
}
