package cli_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keymount/keymount/cli"
	"github.com/keymount/keymount/provider/providertest"
)

func TestMain(m *testing.M) {
	keymount := func() {
		if err := cli.Prepare(); err != nil {
			panic(err)
		}
		os.Exit(cli.RunAs(context.Background(), os.Args[0], os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	testscript.Main(m, map[string]func(){"keymount": keymount, "kubectl-keymount": keymount, "kubectl_complete-keymount": keymount, "kubectl": kubectl})
}

// TestScripts runs testdata/script: what a person sees, as documentation. Beside
// the usual commands there are "exits CODE PROGRAM ARGS...", "up CONFIG" and "down" around
// the part of a script in which keymount serves, "trail", which makes audit trails, and
// "issuer", which makes a key for tokens. The program kubectl is the one of kubectl_test.go.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		// The race detector makes each process wait a second at its end for reports.
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Values[servedKey{}] = new(served)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "up": up, "down": down, "trail": trail, "issuer": issuer},
	})
}

// exits runs a program that ends with this exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// issuer makes an issuer of tokens: its key in issuer.pem, its public keys in jwks.json.
func issuer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: issuer NAME")
	}
	made, err := providertest.NewIssuer(args[0], "test")
	ts.Check(err)
	key, err := made.PrivateKey()
	ts.Check(err)
	set, err := made.KeySet()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("issuer.pem"), key, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("jwks.json"), set, 0o600))
}

// served is the keymount that a script has brought up; nil for none.
type served struct{ stop func() int }

type servedKey struct{}

// up runs "keymount serve" in this process and returns when it answers.
func up(ts *testscript.TestScript, neg bool, args []string) {
	s, _ := ts.Value(servedKey{}).(*served)
	if neg || len(args) != 1 || s.stop != nil {
		ts.Fatalf("usage: up CONFIG, and down before the next")
	}
	ctx, cancel := context.WithCancel(context.Background())
	logs, log := io.Pipe()
	exited := make(chan int, 1)
	go func() {
		exited <- cli.Run(ctx, []string{"serve", "--node-name", "node-1", "--config", ts.MkAbs(args[0])}, strings.NewReader(""), io.Discard, log)
		_ = log.Close()
	}()
	stop := sync.OnceValue(func() int { cancel(); return <-exited })
	ts.Defer(func() { _ = stop() })
	s.stop = stop
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		ts.Logf("%s", lines.Text())
		if strings.Contains(lines.Text(), `"msg":"serving"`) {
			go func() { _, _ = io.Copy(io.Discard, logs) }()
			return
		}
	}
	ts.Fatalf("serve ended with %d before it served", s.stop())
}

// down ends what up began.
func down(ts *testscript.TestScript, neg bool, args []string) {
	s, _ := ts.Value(servedKey{}).(*served)
	if neg || len(args) > 0 || s.stop == nil {
		ts.Fatalf("usage: down, after up")
	}
	if code := s.stop(); code != 0 {
		ts.Fatalf("serve ended with %d", code)
	}
	s.stop = nil
}
