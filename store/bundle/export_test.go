package bundle

import "time"

// SetNow replaces the clock, before the first read. It is called once for every file
// read.
func (b *Bundle) SetNow(now func() time.Time) { b.now = now }
