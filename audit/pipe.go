package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// pipeLimit ends a write into a pipe that is not read: a write that waits can be told from
// one that is under way only so.
const pipeLimit = time.Second

// Stdout is the sink of standard output, which [Sink.Close] leaves open. Where that is a pipe
// or a socket, a reader that stands still is an error within a second. The last checkpoint
// is kept in the file named state, unless that is empty.
func Stdout(out io.Writer, state string) Sink {
	p := &pipe{out: out, state: stateFile(state)}
	if file, ok := out.(*os.File); ok {
		if p.copied = pollable(file); p.copied != nil {
			p.out = p.copied
		}
	}
	return p
}

type pipe struct {
	out    io.Writer
	copied *os.File // that out is, where writes to it may have a deadline
	state  stateFile
}

// Name implements [Sink].
func (*pipe) Name() string { return "standard output" }

// Write implements [Sink].
func (p *pipe) Write(lines []byte) (int, error) {
	if p.copied != nil {
		if err := p.copied.SetWriteDeadline(time.Now().Add(pipeLimit)); err != nil {
			return 0, fmt.Errorf("standard output: %w", err)
		}
	}
	n, err := p.out.Write(lines)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return n, fmt.Errorf("standard output: nothing reads it (for %s)", pipeLimit)
	}
	if err != nil {
		return n, fmt.Errorf("standard output: %w", err)
	}
	return n, nil
}

// Checkpoint implements [Sink].
func (p *pipe) Checkpoint(last Predecessor) error { return p.state.write(last) }

// Close implements [Sink].
func (p *pipe) Close() error {
	if p.copied == nil {
		return nil
	}
	return p.copied.Close()
}

// pollable is a copy of a pipe or socket for writes that may have a deadline; nil for any
// other file: a terminal is shared with programs that expect to wait.
func pollable(file *os.File) *os.File {
	about, err := file.Stat()
	if err != nil || about.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return nil
	}
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		return nil
	}
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), file.Name())
}
