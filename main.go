// Keymount is a provider for the Kubernetes Secrets Store CSI driver: it reads a
// pod's secrets from an external store with the pod's own identity.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/keymount/keymount/cli"
)

func main() { os.Exit(run()) }

func run() int {
	if err := cli.Prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "keymount:", err)
		return 1
	}
	// A closed pipe is an error of writing, so that the command cleans up.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	return cli.RunAs(ctx, os.Args[0], os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
