// Keymount is a provider for the Kubernetes Secrets Store CSI driver: it reads a
// pod's secrets from an external store with the pod's own identity.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/keymount/keymount/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
