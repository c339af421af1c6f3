package bundle

import "time"

// SetNow replaces the clock, before the first read. It is asked once for every
// file that is read.
func (b *Bundle) SetNow(now func() time.Time) { b.now = now }
