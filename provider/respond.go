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

// placeholder is the one file of a mount whose objects are all optional and
// absent: the driver keeps old files in place on an empty list.
const placeholder = ".keymount"

// respond puts files and versions together, all of them or an error.
func (p *Provider) respond(r Request, files []File) (*v1alpha1.MountResponse, error) {
	if len(files) == 0 {
		files = []File{{Path: placeholder, Mode: defaultMode}}
	}
	var m v1alpha1.MountResponse
	for _, f := range files {
		m.Files = append(m.Files, &v1alpha1.File{Path: f.Path, Mode: f.Mode, Contents: f.Contents.Reveal()})
		m.ObjectVersion = append(m.ObjectVersion, &v1alpha1.ObjectVersion{Id: f.Path, Version: p.versions.of(r, f)})
	}
	if size := proto.Size(&m); size > maxResponse {
		return nil, tooLarge(size, files)
	}
	return &m, nil
}

func tooLarge(size int, files []File) error {
	const named = 3
	heaviest := slices.SortedFunc(slices.Values(files), func(a, b File) int {
		return cmp.Or(cmp.Compare(b.Contents.Len(), a.Contents.Len()), cmp.Compare(a.Path, b.Path))
	})
	var list []string
	for _, f := range heaviest[:min(named, len(heaviest))] {
		list = append(list, fmt.Sprintf("%s (%d bytes)", f.Path, f.Contents.Len()))
	}
	return fmt.Errorf("%w: %d bytes with their names and versions, the driver takes %d; split the class, the heaviest are %s",
		ErrTooLarge, size, maxResponse, strings.Join(list, ", "))
}
