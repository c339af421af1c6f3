package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keymount/keymount/e2e/programs"
)

const (
	node      = "node-1"
	storeName = "prod"
	// startLimit bounds how long keymount may take until it serves.
	startLimit = 30 * time.Second
)

// build makes keymount of the sources beside this module, as the image does.
func build(ctx context.Context, folder string) (program string, err error) {
	source, err := programs.FindModule(ctx, "", "github.com/keymount/keymount")
	if err != nil {
		return "", err
	}
	program = filepath.Join(folder, "keymount")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", program, ".") //nolint:gosec // G204: our own source
	command.Dir = source.Dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build keymount: %w\n%s", err, out)
	}
	return program, nil
}

// keymount is a process that serves.
type keymount struct {
	command *exec.Cmd
	socket  string
	metrics string // address
	log     *os.File
}

// serve runs keymount in a folder until stop.
func serve(ctx context.Context, program, folder, address string, c *cluster, o options) (*keymount, error) {
	k := &keymount{socket: filepath.Join(folder, "keymount.sock")}
	if err := k.configure(ctx, folder, address, c, o); err != nil {
		return nil, err
	}
	var err error
	if k.log, err = os.Create(filepath.Join(folder, "log")); err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	//nolint:gosec // G204: the program that was built just now
	k.command = exec.CommandContext(context.WithoutCancel(ctx), program, "serve", "--config", filepath.Join(folder, "keymount.yaml"), "--node-name", node)
	k.command.Env, k.command.Stderr = []string{}, k.log
	k.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := k.command.Start(); err != nil {
		return nil, fmt.Errorf("start keymount: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		if _, err = k.sample(ctx); err == nil {
			return k, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("keymount does not serve: %w", err), k.stop())
		}
	}
}

// configure writes what keymount needs.
func (k *keymount) configure(ctx context.Context, folder, address string, c *cluster, o options) error {
	keys, err := c.issuer.KeySet()
	if err != nil {
		return err
	}
	free, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	k.metrics = free.Addr().String()
	if err := free.Close(); err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	config := fmt.Sprintf(`stores:
  - name: %[1]s
    vault: {addresses: [%[2]s], auth: {method: jwt}}
    access: [{namespaces: ["*"], serviceAccounts: ["*"], roles: ["*"], paths: ["secret/**"]}]
    refresh: %[3]s
    refreshMax: %[3]s
issuers: [{keys: file, issuer: %[4]q, keysFile: jwks.json}]
sockets: [%[5]s]
versionKeyFile: version.key
metrics: %[6]s
`, storeName, address, o.Refresh, c.issuer.Name, k.socket, k.metrics)
	for name, content := range map[string]string{"keymount.yaml": config, "jwks.json": string(keys), "version.key": rand.Text() + rand.Text()} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("configure keymount: %w", err)
		}
	}
	return nil
}

func (k *keymount) stop() error {
	_ = k.command.Process.Signal(syscall.SIGTERM) // it has ended, if this fails
	err := k.command.Wait()
	_ = k.log.Close() // the process has a descriptor of its own
	if err != nil {
		text, _ := os.ReadFile(k.log.Name())
		const tail = 2000
		return fmt.Errorf("keymount ended with %w:\n%s", err, text[max(0, len(text)-tail):])
	}
	return nil
}

// usage is what a process takes.
type usage struct {
	ResidentMiB float64 `json:"residentMiB"`
	Goroutines  int     `json:"goroutines"`
	Files       int     `json:"openFiles"` // sockets are files, too
}

// sample asks keymount itself.
func (k *keymount) sample(ctx context.Context) (usage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+k.metrics+"/metrics", http.NoBody)
	if err != nil {
		return usage{}, fmt.Errorf("read keymount's metrics: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return usage{}, fmt.Errorf("read keymount's metrics: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // only read
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		return usage{}, fmt.Errorf("read keymount's metrics: %w", err)
	}
	gauges := map[string]float64{}
	for lines := bufio.NewScanner(&text); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			gauges[name] = number
		}
	}
	const mebi = 1 << 20
	return usage{
		ResidentMiB: gauges["process_resident_memory_bytes"] / mebi,
		Goroutines:  int(gauges["go_goroutines"]), Files: int(gauges["process_open_fds"]),
	}, nil
}

// cpu is the processor time that keymount has had. The kernel counts it in
// nanoseconds, by a clock that each process has.
func (k *keymount) cpu() (time.Duration, error) {
	const ofProcess = 2 // CPUCLOCK_SCHED
	var spent unix.Timespec
	if err := unix.ClockGettime(int32(^k.command.Process.Pid<<3|ofProcess), &spent); err != nil { //nolint:gosec // G115: a pid has 22 bits
		return 0, fmt.Errorf("read keymount's processor time: %w", err)
	}
	return time.Duration(spent.Nano()), nil
}
