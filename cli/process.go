package cli

import (
	"fmt"

	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
)

// Prepare sets what holds for the whole process. main calls it once, before anything
// else runs.
//
// An answer of more than 32 KiB takes a buffer of 1 MiB out of grpc's own pool, and
// ten objects of 4 KiB are more than that: this one has steps between, from 256 bytes
// to 4 MiB, the driver's limit.
func Prepare() error {
	pool, err := mem.NewBinaryTieredBufferPool(8, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22)
	if err != nil {
		return fmt.Errorf("make a pool of buffers: %w", err)
	}
	experimental.SetDefaultBufferPool(pool)
	return nil
}
