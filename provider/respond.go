package provider

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/record"
)

// ErrTooLarge is the error of files beyond one answer to the driver.
var ErrTooLarge = errors.New("the files are too large")

// maxResponse is the limit of the driver's grpc client. One byte more and the mount fails
// there with ResourceExhausted, which is not a final code.
const maxResponse = 4 << 20

// maxSynced is the limit of a Kubernetes Secret.
const maxSynced = 1 << 20

// placeholder is the one file of a mount without any, since its objects are all optional
// and absent: the driver keeps old files in place on an empty list.
const placeholder = ".keymount"

// File is one file of the answer.
type File struct {
	Path     string
	Mode     int32
	Store    string // the origin of the content
	Contents secret.Bytes
}

// atLeastOne has the placeholder where there is no file.
func atLeastOne(files []File) []File {
	if len(files) > 0 {
		return files
	}
	return []File{{Path: placeholder, Mode: class.DefaultMode}}
}

// respond puts files and their versions together, all of them or an error.
func respond(files []File, versioned []record.File) (*v1alpha1.MountResponse, error) {
	made, named := make([]v1alpha1.File, len(files)), make([]v1alpha1.ObjectVersion, len(files))
	m := v1alpha1.MountResponse{Files: make([]*v1alpha1.File, len(files)), ObjectVersion: make([]*v1alpha1.ObjectVersion, len(files))}
	for i := range files {
		f := &files[i]
		made[i] = v1alpha1.File{Path: f.Path, Mode: f.Mode, Contents: f.Contents.Reveal()}
		named[i] = v1alpha1.ObjectVersion{Id: f.Path, Version: versioned[i].Version}
		m.Files[i], m.ObjectVersion[i] = &made[i], &named[i]
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

// warnings are for the log line of a good mount: a Kubernetes Secret synced by the driver
// from these files would fail, and only the driver knows of its plans for one.
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
