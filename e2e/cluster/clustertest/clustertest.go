// Package clustertest starts clusters for tests.
//
//	ctx := clustertest.Context(t)
//	c := clustertest.Start(ctx, t, cluster.Options{})
package clustertest

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"

	"github.com/keymount/keymount/e2e/cluster"
)

// Context ends with the first ctrl-C, and otherwise not before the last cleanup of
// the test. What a test waits for it waits for with it: then the test fails and its
// cleanups run, so that nothing stays. A second ctrl-C ends the process at once.
func Context(tb testing.TB) context.Context {
	tb.Helper()
	ctx, stop := signal.NotifyContext(context.WithoutCancel(tb.Context()), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	tb.Cleanup(stop)
	return ctx
}

// Start starts a cluster that ends with the test, or with ctx, which is the test's
// own [Context]. It tells its progress on standard error. The logs of every part stay
// when the test fails, and their folder is printed.
func Start(ctx context.Context, tb testing.TB, options cluster.Options) *cluster.Cluster {
	tb.Helper()
	logs, err := os.MkdirTemp("", "keymount-e2e-logs-") // not tb.TempDir: it stays when the test fails
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { keepLogs(ctx, tb, logs) })
	options.Logs, options.Progress = logs, os.Stderr
	c, err := cluster.Start(ctx, options)
	if err != nil {
		tb.Fatal(err)
	}
	stop := sync.OnceValue(c.Stop)
	stopped := context.AfterFunc(ctx, func() { _ = stop() }) // whoever talks to it has an error, and need not wait
	tb.Cleanup(func() {
		stopped()
		if err := stop(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// keepLogs removes the logs unless somebody will want to know what went wrong.
func keepLogs(ctx context.Context, tb testing.TB, logs string) {
	tb.Helper()
	if ctx.Err() != nil {
		tb.Error("interrupted")
	} else if tb.Failed() {
		tb.Logf("the logs of every part are in %s", logs)
		return
	}
	if err := os.RemoveAll(logs); err != nil {
		tb.Error(err)
	}
}
