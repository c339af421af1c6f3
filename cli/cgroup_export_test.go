package cli

import "io/fs"

// CgroupLimit is that of a process on a machine with these files.
func CgroupLimit(files fs.FS) int64 { return cgroupLimit(files) }

// LimitMemory is that part of Prepare, on a machine with these files.
func LimitMemory(files fs.FS) { limitMemory(files) }
