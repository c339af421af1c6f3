package cluster_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keymount/keymount/e2e/cluster"
	"github.com/keymount/keymount/e2e/cluster/clustertest"
)

// envInterrupted tells this test's own program that it is the one to be interrupted.
const envInterrupted = "E2E_TO_BE_INTERRUPTED"

// running is what it says of itself, before the folder of its cluster.
const running = "running in "

// ctrl-C ends a test with all that it has started, its logs and temporary folders.
func TestInterrupted(t *testing.T) {
	if os.Getenv(envInterrupted) != "" {
		waitForInterrupt(t)
		return
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) { testInterrupt(t, signal) })
	}
}

// waitForInterrupt is a test that takes longer than anybody waits.
func waitForInterrupt(t *testing.T) {
	t.Helper()
	ctx := clustertest.Context(t)
	c := clustertest.Start(ctx, t, cluster.Options{Nodes: make([]cluster.NodeOptions, 1)})
	_, _ = os.Stdout.WriteString(running + c.Folder + "\n")
	<-ctx.Done()
}

func testInterrupt(t *testing.T, signal syscall.Signal) {
	t.Helper()
	temporary := t.TempDir()
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInterrupted$") //nolint:gosec // G204: this program
	command.Env = append(os.Environ(), envInterrupted+"=1", "TMPDIR="+temporary)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = time.Minute
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines, folder := bufio.NewScanner(output), ""
	for folder == "" && lines.Scan() {
		folder, _ = strings.CutPrefix(lines.Text(), running)
		if folder == lines.Text() {
			folder = ""
		}
	}
	started := descendants(t, command.Process.Pid)
	if folder == "" || len(started) < 5 || len(matches(t, filepath.Join(temporary, "*"))) == 0 {
		t.Errorf("it has the folder %q, the processes %q and in %s %q: this test cannot tell whether they go",
			folder, started, temporary, matches(t, filepath.Join(temporary, "*")))
	}
	if err := command.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	for lines.Scan() { // to the end
		t.Log(lines.Text())
	}
	if err := command.Wait(); err == nil {
		t.Error("the interrupted test has passed")
	}
	left := matches(t, folder, "/sys/fs/cgroup/*/"+filepath.Base(folder), "/sys/fs/cgroup/"+filepath.Base(folder), filepath.Join(temporary, "*"))
	for _, process := range started {
		pid, name, _ := strings.Cut(process, " ")
		if number, err := strconv.Atoi(pid); err != nil || syscall.Kill(number, 0) == nil {
			left = append(left, "the process "+name)
		}
	}
	if len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
