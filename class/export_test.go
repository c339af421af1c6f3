package class

// The bounds of a Cache.
const (
	MaxClasses     = maxClasses
	MaxClassesSize = maxClassesSize
	MaxLargeSize   = maxLargeSize
	MaxCalls       = maxCalls
	MaxCallsSize   = maxCallsSize
)

// Remembered is the number of remembered classes, and about their bytes of memory.
func (c *Cache) Remembered() (classes int, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known.Len(), c.known.Weight()
}

// Repeats tells whether a call is known again.
func (c *Cache) Repeats(call Call) bool {
	_, ok := c.again(call, call.sum())
	return ok
}

// RememberedLarge is the same of large classes.
func (c *Cache) RememberedLarge() (classes int, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.large.Len(), c.large.Weight()
}

// Known is the number of calls that are known again.
func (c *Cache) Known() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls.Len()
}

// KnownSize is about their bytes of memory.
func (c *Cache) KnownSize() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls.Weight()
}
