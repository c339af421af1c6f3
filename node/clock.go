package node

import "time"

// clock is the wall clock alone. The monotonic one in time.Now stands still while the
// node sleeps, and logins and leases do not live longer for that.
func clock() time.Time { return time.Now().Round(0) }
