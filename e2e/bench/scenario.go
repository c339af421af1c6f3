package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/provider/providertest"
)

// The phases of a scenario.
const (
	phaseIdle      = "started"
	phaseCold      = "cold storm"
	phaseRepublish = "republishes within refresh"
	phaseRotation  = "after refresh, one secret rotated"
	phaseLong      = "many republishes"
	phaseChurn     = "pods came and went"
	phaseSettled   = "a while later"
)

// scenario is a node's life with so many service accounts, and what came of it.
type scenario struct {
	Name     string  `json:"name"`
	Accounts int     `json:"accounts"`
	Program  string  `json:"program"`
	Turn     int     `json:"turn"` // from 1 on
	Phases   []phase `json:"phases"`

	side side
}

// title tells a scenario from the others.
func (s scenario) title() string { return fmt.Sprintf("%s, %s, turn %d", s.Name, s.Program, s.Turn) }

// phase is what some mounts took together.
type phase struct {
	Name     string  `json:"name"`
	Mounts   int     `json:"mounts"`
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50ms"`
	P95      float64 `json:"p95ms"`
	CPU      float64 `json:"cpuMsPerMount"` // of the program
	Requests counts  `json:"requests"`
	Usage    usage   `json:"usage"` // when it was over
	// Connections to Vault were open at most, and Open are those that still were.
	Connections int `json:"connections"`
	Open        int `json:"openConnections"`
	// Changed is how many pods got the rotated secret.
	Changed int `json:"changed"`
}

// perSecond is how many mounts there were in one.
func (p phase) perSecond() float64 {
	if p.Seconds == 0 {
		return 0
	}
	return float64(p.Mounts) / p.Seconds
}

// requests are all that the store got.
func (p phase) requests() float64 {
	return float64(p.Requests.Logins + p.Requests.Reads + p.Requests.Others)
}

// stage is what all scenarios share.
type stage struct {
	options
	cluster *cluster
	server  *server
	folder  string
}

// measured is a running program.
type measured interface {
	cpu() (time.Duration, error)
	sample(ctx context.Context) (usage, error)
}

// act is a scenario under way.
type act struct {
	stage
	*scenario
	proxy   *proxy
	program measured
	driver  *providertest.Driver
	// rotated is how often the first secret was changed.
	rotated int
}

// run plays the scenario with a process of its own.
func (s *scenario) run(ctx context.Context, on stage) (err error) {
	folder, err := os.MkdirTemp(on.folder, s.Name)
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	a := act{stage: on, scenario: s}
	if a.proxy, err = newProxy(ctx, on.server.address, on.Delay); err != nil {
		return err
	}
	defer a.proxy.close()
	socket := filepath.Join(folder, s.side.dialect.socket())
	metrics, err := configure(ctx, socket, a.proxy.url, on.cluster, on.options)
	if err != nil {
		return err
	}
	p, err := start(ctx, folder, s.side.environment, s.side.commandAt(socket, a.proxy.url))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	a.program = p
	if s.side.own {
		a.program = &keymount{p, metrics}
	}
	if a.driver, err = providertest.Dial(socket); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.driver.Close()) }()
	if err = p.await(ctx, func(ctx context.Context) error { return a.serves(ctx, socket) }); err == nil {
		err = a.play(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w; the end of its log:\n%s", err, p.last())
	}
	return nil
}

// serves asks the program whether it does. A driver that finds no socket would wait for a
// second.
func (a *act) serves(ctx context.Context, socket string) error {
	_, err := os.Stat(socket)
	if err == nil {
		_, err = a.driver.Version(ctx)
	}
	if err == nil {
		_, err = a.program.sample(ctx)
	}
	return err //nolint:wrapcheck // await says what it is about
}

// play is the story; beside another program it is the beginning of it, which that one can
// play as well.
func (a *act) play(ctx context.Context) error {
	running, err := a.cluster.running(a.side.dialect, a.Accounts, a.options)
	if err != nil {
		return err
	}
	if err := a.phase(ctx, phaseIdle, nil); err != nil {
		return err
	}
	if err := a.phase(ctx, phaseCold, running); err != nil {
		return err
	}
	over := time.Now().Add(a.Refresh) // for all that was read so far
	if err := a.phase(ctx, phaseRepublish, slices.Repeat(running, a.Rounds)); err != nil || a.Beside != "" {
		return err
	}
	return a.goOn(ctx, running, over)
}

// goOn is the rest of the story, from the end of refresh on.
func (a *act) goOn(ctx context.Context, running []pod, over time.Time) error {
	passing, err := a.cluster.passing(a.side.dialect, a.Accounts, a.options)
	if err != nil {
		return err
	}
	a.rotated++
	if err := a.server.put(ctx, secretName(0, 0), valueOf(0, 0, a.rotation(), a.Bytes)); err != nil {
		return err
	}
	if err := wait(ctx, time.Until(over)); err != nil {
		return err
	}
	return errors.Join(
		a.phase(ctx, phaseRotation, running),
		a.phase(ctx, phaseLong, slices.Repeat(running, 1+a.Republishes/len(running))[:a.Republishes]),
		a.phase(ctx, phaseChurn, passing),
		wait(ctx, a.Settle),
		a.phase(ctx, phaseSettled, nil),
	)
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait: %w", ctx.Err())
	}
}

// rotation names the value of the first secret, for no two scenarios the same.
func (a *act) rotation() int { return a.rotated * a.Accounts }

// phase mounts pods, some at a time, and measures.
func (a *act) phase(ctx context.Context, name string, pods []pod) error {
	a.proxy.take()
	before, err := a.program.cpu()
	if err != nil {
		return err
	}
	took, changed := make([]time.Duration, len(pods)), make([]bool, len(pods))
	var mounts errgroup.Group
	mounts.SetLimit(a.AtOnce)
	began := time.Now()
	for i, p := range pods {
		mounts.Go(func() (err error) {
			began := time.Now()
			changed[i], err = a.mount(ctx, p)
			took[i] = time.Since(began)
			return err
		})
	}
	err = mounts.Wait()
	p := phase{Name: name, Mounts: len(pods), Seconds: time.Since(began).Seconds(), Requests: a.proxy.take()}
	after, cpuErr := a.program.cpu()
	usage, usageErr := a.program.sample(ctx)
	if err := errors.Join(err, cpuErr, usageErr); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.Usage = usage
	p.Open, p.Connections = a.proxy.connections()
	if len(pods) > 0 {
		slices.Sort(took)
		p.P50, p.P95 = milliseconds(took[len(took)/2]), milliseconds(took[len(took)*95/100])
		p.CPU = milliseconds(after-before) / float64(len(pods))
	}
	for _, c := range changed {
		if c {
			p.Changed++
		}
	}
	a.Phases = append(a.Phases, p)
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// mount does what the driver does, and looks at every byte that came back.
func (a *act) mount(ctx context.Context, p pod) (changed bool, err error) {
	answer, err := a.driver.Call(ctx, p.attributes)
	if err != nil {
		return false, err
	}
	if len(answer.GetFiles()) != a.Objects {
		return false, fmt.Errorf("%d files, want %d", len(answer.GetFiles()), a.Objects)
	}
	for _, file := range answer.GetFiles() {
		rotated, err := a.look(p.account, file)
		if err != nil {
			return false, err
		}
		changed = changed || rotated
	}
	return changed, nil
}

// look tells whether a file is the rotated secret.
func (a *act) look(account int, file *v1alpha1.File) (rotated bool, err error) {
	text := string(file.GetContents())
	object, err := strconv.Atoi(strings.TrimPrefix(file.GetPath(), "f"))
	first := err == nil && account == 0 && object == 0
	switch {
	case first && a.rotated > 0:
		return text == valueOf(0, 0, a.rotation(), a.Bytes), nil
	case first: // of an earlier scenario, perhaps
	case err != nil || text != valueOf(account, object, 0, a.Bytes):
		return false, fmt.Errorf("account %d has another value in %s", account, file.GetPath())
	}
	return false, nil
}
