package cluster

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// keeper starts processes that the kernel ends with this one (Pdeathsig). What the
// kernel looks at is the thread that started them, and Go ends threads at times,
// so one is kept for it.
type keeper struct {
	calls chan func()
	done  chan struct{}
}

func newKeeper() *keeper {
	k := &keeper{calls: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(k.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for call := range k.calls {
			call()
		}
	}()
	return k
}

func (k *keeper) start(command *exec.Cmd) error {
	result := make(chan error, 1)
	k.calls <- func() { result <- command.Start() }
	return <-result
}

// close ends the thread. The processes it started must have ended.
func (k *keeper) close() {
	close(k.calls)
	<-k.done
}

// onThread calls f on a thread that ends after it, so that f may change what
// belongs to a thread, such as its namespaces.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread never ends, and it is what /proc shows of this process.
			defer runtime.UnlockOSThread()
			result <- onThread(f)
			return
		}
		result <- f()
	}()
	return <-result
}
