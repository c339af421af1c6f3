package cli

import "time"

// clock is the wall's alone. The process's own, which time.Now carries along, stands
// still while the node sleeps; what a store gave does not live longer for that.
func clock() time.Time { return time.Now().Round(0) }
