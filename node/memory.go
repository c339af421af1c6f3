package node

import (
	"context"
	"log/slog"
	"math"
	"runtime/debug"
	"time"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/store/keep"
)

const (
	// keptTenths is the part of the process's memory limit for what is remembered. Of the
	// 204 MiB that the chart sets, these are 40; the program takes 25, and what is in flight
	// up to 120 for the input that takes most.
	keptTenths = 2
	// keptWithout is that memory in MiB where the process has no limit.
	keptWithout = 40
)

// sharedMemory is that of all stores without their own.
func sharedMemory(c *config.Config, now func() time.Time, log *slog.Logger) *keep.Pool {
	return keep.NewPool(sharedBytes(c.MemoryMiB, debug.SetMemoryLimit(-1)), now, log)
}

// sharedBytes is the size of that memory, for a process with a limit in bytes.
func sharedBytes(mib *int, limit int64) int64 {
	switch {
	case mib != nil:
		return int64(*mib) << 20
	case limit == math.MaxInt64:
		return keptWithout << 20
	}
	return min(max(limit/10*keptTenths, 1<<20), config.MostMiB<<20)
}

// returnEvery is the interval of returning free memory to the kernel, which takes some
// 15 ms of a processor. Go does it after two minutes, and keeps a good part: the memory
// of a storm of mounts would stay for long.
const returnEvery = time.Minute

// returnMemory is a [part].
func returnMemory(ctx context.Context) error {
	tick := time.NewTicker(returnEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			debug.FreeOSMemory()
		}
	}
}
