// Command up starts a cluster like that of the tests, to play with: one node, the
// driver as keymount wants it, and keymount's image. It runs until ctrl-C and leaves
// nothing.
//
//	cd e2e && go run ./up          # prints how to reach it
//	cd e2e && go run ./up -build   # builds what it takes, and ends
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/keymount/keymount/e2e/cluster"
	"github.com/keymount/keymount/e2e/image"
	"github.com/keymount/keymount/e2e/programs"
)

// quick lets a rotated secret arrive within seconds.
const quick = 10 * time.Second

func main() { os.Exit(run()) }

func run() int {
	build := flag.Bool("build", false, "build what the tests take, which takes minutes the first time, and end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	work := up
	if *build {
		work = buildAll
	}
	if err := work(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "up:", err)
		return 1
	}
	return 0
}

// buildAll builds what the tests take: the cluster's programs, Vault, kubectl, helm, and all
// that goes into images.
func buildAll(ctx context.Context) (err error) {
	if _, err := cluster.Build(ctx, os.Stderr); err != nil {
		return err
	}
	if _, err := programs.Vault(ctx, os.Stderr); err != nil {
		return err
	}
	if _, err := programs.Kubectl(ctx, os.Stderr); err != nil {
		return err
	}
	if _, err := programs.Helm(ctx); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "keymount-up-")
	if err != nil {
		return fmt.Errorf("make a folder for images: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	_, err = image.All(ctx, "..", folder)
	return err
}

func up(ctx context.Context) (err error) {
	folder, err := os.MkdirTemp("", "keymount-up-")
	if err != nil {
		return fmt.Errorf("make a folder for images: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	images, err := image.All(ctx, "..", folder)
	if err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Options{
		Nodes: []cluster.NodeOptions{{SyncFrequency: quick, Images: images}}, Progress: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }() //nolint:contextcheck // ctx has ended by then
	_, _ = fmt.Fprintf(os.Stdout, "export KUBECONFIG=%s\n", c.Kubeconfig)
	fmt.Fprintf(os.Stderr, "The images are %s, %s and %s; keymount has to be installed with hostNetwork=true. ctrl-C ends it.\n",
		image.Keymount, image.NginxImage, image.BusyboxImage)
	<-ctx.Done()
	return nil
}
