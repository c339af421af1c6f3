package cli

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// cgroupLimit is the lowest memory limit in bytes of the cgroups around this process;
// math.MaxInt64 without one. files are those of the machine.
func cgroupLimit(files fs.FS) int64 {
	limit := int64(math.MaxInt64)
	own, _ := fs.ReadFile(files, "proc/self/cgroup") // only Linux has it
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, folder
		if len(parts) < 3 {
			continue
		}
		switch {
		case parts[1] == "": // version 2
			limit = min(limit, lowest(files, "sys/fs/cgroup", parts[2], "memory.max"))
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			limit = min(limit, lowest(files, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes"))
		}
	}
	return limit
}

// lowest is the lowest number in the files of one name from a folder up to the root. A
// container may see the root alone, which is its own cgroup then.
func lowest(files fs.FS, root, folder, name string) int64 {
	limit := int64(math.MaxInt64)
	for folder = path.Clean("/" + folder); ; folder = path.Dir(folder) {
		text, _ := fs.ReadFile(files, path.Join(root, folder, name)) // the root of version 2 has none
		bytes, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && bytes > 0 && bytes < noLimit {
			limit = min(limit, bytes)
		}
		if folder == "/" {
			return limit
		}
	}
}

// noLimit is less than what a cgroup of version 1 has where there is no limit.
const noLimit = 1 << 62
