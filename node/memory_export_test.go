package node

import "context"

// ReturnMemory runs until ctx ends.
func ReturnMemory(ctx context.Context) error { return returnMemory(ctx) }

// SharedBytes is the memory of all stores in bytes, for a process with a limit.
func SharedBytes(mib *int, limit int64) int64 { return sharedBytes(mib, limit) }
