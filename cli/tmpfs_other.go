//go:build !linux

package cli

import "errors"

// mountTmpfs has nothing to mount: only Linux has a tmpfs.
func mountTmpfs(string) (unmount func() error, err error) {
	return nil, errors.ErrUnsupported
}
