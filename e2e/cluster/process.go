package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// process is a part of the cluster that runs until somebody ends it.
type process struct {
	name string // such as "kubelet of 127.100.1.1"
	log  string // file of its output

	command *exec.Cmd
	wanted  atomic.Bool // whether its end is
	done    chan struct{}
	err     error // why it ended, once done is closed
}

// startProcess starts command by start, which may choose the thread. Its output
// goes to the end of the file log. It keeps lock open for as long as it runs.
// Should it end while nobody wants that, failed is called with all there is to say.
func startProcess(name, log string, command *exec.Cmd, lock *os.File, start func(*exec.Cmd) error, failed func(error)) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil { //nolint:gosec // G301: nothing secret
		return nil, fmt.Errorf("make the log of %s: %w", name, err)
	}
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", name, err)
	}
	defer func() { _ = output.Close() }() // the process has a descriptor of its own
	command.Stdout, command.Stderr, command.ExtraFiles = output, output, []*os.File{lock}
	p := &process{name: name, log: log, command: command, done: make(chan struct{})}
	if err := start(command); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		p.err = command.Wait()
		if !p.wanted.Load() {
			failed(p.failure())
		}
	}()
	return p, nil
}

func (p *process) pid() int { return p.command.Process.Pid }

// kill ends the process by SIGKILL and waits for that. A second call does nothing.
func (p *process) kill() error {
	p.wanted.Store(true)
	if err := p.command.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// failure says that the process ended and what it wrote last.
func (p *process) failure() error {
	how := "with success"
	if p.err != nil {
		how = "by " + p.err.Error()
	}
	return fmt.Errorf("%s ended (%s); the end of its log, %s:\n%s", p.name, how, p.log, tail(p.log))
}

// tail is the last 4 KiB of a log.
func tail(log string) string {
	const most = 4 << 10
	file, err := os.Open(log)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = file.Close() }() // only read
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
