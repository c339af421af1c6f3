package image

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/keymount/keymount/e2e/cluster"
)

// BusyboxImage is the name of the stand-in for busybox's own image.
const BusyboxImage = "docker.io/library/busybox:1.37"

// All makes every image that keymount and the examples need, from the repository,
// and returns the tars in folder.
func All(ctx context.Context, repository, folder string) ([]string, error) {
	keymount, nginx, busybox := filepath.Join(folder, "keymount.tar"), filepath.Join(folder, "nginx.tar"), filepath.Join(folder, "busybox.tar")
	if err := Build(ctx, repository, keymount); err != nil {
		return nil, err
	}
	if err := Nginx(ctx, nginx); err != nil {
		return nil, err
	}
	small, err := cluster.Busybox(BusyboxImage)
	if err != nil {
		return nil, fmt.Errorf("make image %s: %w", BusyboxImage, err)
	}
	if err := small.Write(busybox); err != nil {
		return nil, fmt.Errorf("make image %s: %w", BusyboxImage, err)
	}
	return []string{keymount, nginx, busybox}, nil
}
