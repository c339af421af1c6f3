package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// startLimit bounds how long a program may take until it serves, and stopLimit until it
	// has ended.
	startLimit = 30 * time.Second
	stopLimit  = 30 * time.Second
)

// process is a provider under measurement, with all processes that it starts.
type process struct {
	command *exec.Cmd
	log     *os.File
	ended   chan struct{} // closed when the program has ended
	err     error         // of its end
}

// start runs a program that ends with this one. What it writes goes to a log in its folder.
func start(ctx context.Context, folder string, environment, command []string) (*process, error) {
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	p := &process{log: log, ended: make(chan struct{})}
	p.command = exec.CommandContext(context.WithoutCancel(ctx), command[0], command[1:]...) //nolint:gosec // G204: the user's choice
	p.command.Env, p.command.Stdout, p.command.Stderr = environment, log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", command[0], err), log.Close())
	}
	go func() {
		p.err = p.command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// await asks until a program serves.
func (p *process) await(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-p.ended:
			return errors.New("it ended before it served")
		case <-ctx.Done():
			return fmt.Errorf("it does not serve: %w", err)
		}
	}
}

// stop ends a program, with what it has started.
func (p *process) stop() error {
	group := -p.command.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM) // it has ended, if this fails
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-p.ended
	_ = p.log.Close() // the process has a descriptor of its own
	if status, ok := p.command.ProcessState.Sys().(syscall.WaitStatus); p.err == nil || ok && status.Signal() == syscall.SIGTERM {
		return nil
	}
	return fmt.Errorf("%s ended with %w", p.command.Path, p.err)
}

// last is the end of what a program wrote.
func (p *process) last() string {
	const tail = 2000
	text, _ := os.ReadFile(p.log.Name())
	return string(text[max(0, len(text)-tail):])
}

// usage is what a process takes.
type usage struct {
	ResidentMiB float64 `json:"residentMiB"`
	PeakMiB     float64 `json:"peakMiB"` // since its start
	Goroutines  int     `json:"goroutines"`
	Files       int     `json:"openFiles"` // sockets are files, too
}

// sample is what can be told of any program.
func (p *process) sample(context.Context) (usage, error) {
	var u usage
	for _, pid := range p.tree() {
		u.ResidentMiB += memoryOf(pid, "VmRSS:")
		u.PeakMiB += memoryOf(pid, "VmHWM:")
	}
	if u.PeakMiB == 0 {
		return u, fmt.Errorf("%s has ended", p.command.Path)
	}
	return u, nil
}

// memoryOf is a line of a process's status in MiB; 0 for a process that has ended.
func memoryOf(pid int, name string) float64 {
	const kibi = 1024
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(text), name)
	line, _, _ := strings.Cut(after, "kB")
	size, _ := strconv.Atoi(strings.TrimSpace(line))
	return float64(size) / kibi
}

// cpu is the processor time, in user and kernel mode, that a program has had with all that
// it started.
func (p *process) cpu() (spent time.Duration, err error) {
	for _, pid := range p.tree() {
		spent += clockOf(pid) + clockOfChildren(pid)
	}
	if spent == 0 {
		return 0, fmt.Errorf("read the processor time of %s: it has ended", p.command.Path)
	}
	return spent, nil
}

// clockOf is the processor time of a process; 0 for one that has ended. The kernel counts it
// in nanoseconds, by a clock that each process has.
func clockOf(pid int) time.Duration {
	const ofProcess = 2 // CPUCLOCK_SCHED
	var spent unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|ofProcess), &spent); err != nil { //nolint:gosec // G115: a pid has 22 bits
		return 0
	}
	return time.Duration(spent.Nano())
}

// clockOfChildren is the processor time of those children of a process that have ended.
func clockOfChildren(pid int) time.Duration {
	const (
		tick        = 10 * time.Millisecond // of /proc on every Linux that Go knows
		cutime, end = 13, 15                // fields after the name, see proc(5)
	)
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int
	for _, field := range fields[min(cutime, len(fields)):min(end, len(fields))] {
		n, _ := strconv.Atoi(field)
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// tree is the program and all that it started and that still runs.
func (p *process) tree() []int {
	pids := []int{p.command.Process.Pid}
	for i := 0; i < len(pids); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i])) // the pattern is a good one
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for field := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(field); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
}
