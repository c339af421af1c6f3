package provider

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// ErrTooLarge says that the files do not fit into one answer to the driver.
var ErrTooLarge = errors.New("the files are too large")

// maxResponse is what the driver's grpc client takes. One byte more and the mount
// fails there with ResourceExhausted, which is not a final code.
const maxResponse = 4 << 20

// maxSynced is what a Kubernetes Secret holds.
const maxSynced = 1 << 20

// placeholder is the one file of a mount whose objects are all optional and
// absent: the driver keeps old files in place on an empty list.
const placeholder = ".keymount"

// respond puts files and versions together, all of them or an error.
func (p *Provider) respond(r Request, files []File) (*v1alpha1.MountResponse, error) {
	if len(files) == 0 {
		files = []File{{Path: placeholder, Mode: defaultMode}}
	}
	made, versions := make([]v1alpha1.File, len(files)), make([]v1alpha1.ObjectVersion, len(files))
	m := v1alpha1.MountResponse{Files: make([]*v1alpha1.File, len(files)), ObjectVersion: make([]*v1alpha1.ObjectVersion, len(files))}
	for i, version := range p.versions.of(r, files) {
		f := &files[i]
		made[i] = v1alpha1.File{Path: f.Path, Mode: f.Mode, Contents: f.Contents.Reveal()}
		versions[i] = v1alpha1.ObjectVersion{Id: f.Path, Version: version}
		m.Files[i], m.ObjectVersion[i] = &made[i], &versions[i]
	}
	if size := proto.Size(&m); size > maxResponse {
		return nil, tooLarge(size, files)
	}
	return &m, nil
}

func tooLarge(size int, files []File) error {
	return fmt.Errorf("%w: %d bytes or more, and the driver takes %d; split the class, the heaviest are %s",
		ErrTooLarge, size, maxResponse, heaviest(files))
}

// warnings are what the log line of a good mount has to say: a Kubernetes Secret
// that the driver syncs from these files would fail, and only the driver knows
// whether one is wanted.
func warnings(files []File) []string {
	size := 0
	for _, f := range files {
		size += f.Contents.Len()
	}
	if size <= maxSynced {
		return nil
	}
	return []string{fmt.Sprintf("%d bytes are more than a Secret synced from these files can hold (%d); the heaviest are %s",
		size, maxSynced, heaviest(files))}
}

// heaviest names the largest files.
func heaviest(files []File) string {
	const named = 3
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int {
		return cmp.Or(cmp.Compare(b.Contents.Len(), a.Contents.Len()), cmp.Compare(a.Path, b.Path))
	})
	var list []string
	for _, f := range sorted[:min(named, len(sorted))] {
		list = append(list, fmt.Sprintf("%s (%d bytes)", f.Path, f.Contents.Len()))
	}
	return strings.Join(list, ", ")
}
