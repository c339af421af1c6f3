package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keymount/keymount/e2e/programs"
)

const (
	node      = "node-1"
	storeName = "prod"
	// configFile is keymount's, in the folder of the socket.
	configFile = "keymount.yaml"
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

// keymount is a process that tells of itself.
type keymount struct {
	*process

	metrics string // address
}

// configure writes what a keymount needs into the folder of its socket.
func configure(ctx context.Context, socket, address string, c *cluster, o options) (metrics string, err error) {
	keys, err := c.issuer.KeySet()
	if err != nil {
		return "", err
	}
	if metrics, err = freeAddress(ctx); err != nil {
		return "", err
	}
	config := fmt.Sprintf(`stores:
  - name: %[1]s
    vault: {addresses: [%[2]s], auth: {method: jwt}}
    access: [{namespaces: ["*"], serviceAccounts: ["*"], roles: ["*"], paths: ["secret/**"]}]
%[3]sissuers: [{keys: file, issuer: %[4]q, keysFile: jwks.json}]
sockets: [%[5]s]
versionKeyFile: version.key
metrics: %[6]s
%[7]s`, storeName, address, pace(o), c.issuer.Name, socket, metrics, trail(o))
	for name, content := range map[string]string{configFile: config, "jwks.json": string(keys), "version.key": rand.Text() + rand.Text()} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(socket), name), []byte(content), 0o600); err != nil {
			return "", fmt.Errorf("configure keymount: %w", err)
		}
	}
	return metrics, nil
}

// pace is how often secrets are read. Beside another program refresh is over for none, and an
// older keymount knows no refreshMax.
func pace(o options) string {
	text := fmt.Sprintf("    refresh: %s\n", o.Refresh)
	if o.Beside == "" {
		text += fmt.Sprintf("    refreshMax: %s\n", o.Refresh)
	}
	return text
}

// trail is the part of keymount.yaml about the audit trail, which an older keymount beside
// this one does not know.
func trail(o options) string {
	if o.Audit == "" {
		return ""
	}
	return "audit: " + o.Audit + "\n"
}

func freeAddress(ctx context.Context) (string, error) {
	free, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	if err := free.Close(); err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return free.Addr().String(), nil
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
	u, err := k.process.sample(ctx)
	u.ResidentMiB = gauges["process_resident_memory_bytes"] / mebi
	u.Goroutines, u.Files = int(gauges["go_goroutines"]), int(gauges["process_open_fds"])
	return u, err
}
