package cli

// MemoryFolder is for tests: what it looks at are the machine's own folders.
func MemoryFolder(candidates ...string) (string, error) { return memoryFolder(candidates...) }
