// Package vaulttest starts the real counterparts of keymount's tests: a Vault
// server, the PostgreSQL that its database engine makes users in, and the API
// server's TokenReview that its kubernetes auth asks. All of them listen on
// 127.0.0.1, and end with the test that started them.
//
//	server := vaulttest.Start(t)
//	server.MountKV2(t, "secret")
//	server.EnableJWT(t, "jwt", issuer)
//
// What goes wrong here is not what a test is about, so nothing returns an error:
// it fails the test that it is given, which must be the one that runs.
package vaulttest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// startTimeout bounds how long a server may take until it answers, once built.
const startTimeout = time.Minute

// stopTimeout is how long a process has for an orderly end before it is killed.
const stopTimeout = 10 * time.Second

// Server is a running Vault: initialised, unsealed, in memory, and empty but for
// what its methods set up, which may be called at the same time.
type Server struct {
	Address   string // such as http://127.0.0.1:41213
	RootToken string
	UnsealKey string

	process   *process
	transport *http.Transport
}

// Start runs a Vault that serves plain HTTP until the test ends. The first call
// on a machine builds it, which takes minutes.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return start(tb, &http.Transport{})
}

// StartTLS is [Start] with TLS: a certificate of authority for hosts, which are
// names or IP addresses, or for 127.0.0.1 and localhost when there are none.
func StartTLS(tb testing.TB, authority *Authority, hosts ...string) *Server {
	tb.Helper()
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1", "localhost"}
	}
	certFile, keyFile := authority.Issue(tb, hosts...)
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs:    authority.pool(),
		ServerName: hosts[0],
		Time:       authority.whileValid,
		MinVersion: tls.VersionTLS12,
	}}
	return start(tb, transport, "-tls-cert", certFile, "-tls-key", keyFile)
}

func start(tb testing.TB, transport *http.Transport, args ...string) *Server {
	tb.Helper()
	command, end := owned(tb, vaultBinary(tb), append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	// Never written to: the server ends when this end closes, however this process ends.
	if _, err := command.StdinPipe(); err != nil {
		tb.Fatalf("start Vault: %v", err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		tb.Fatalf("start Vault: %v", err)
	}
	server := &Server{process: run(tb, command, end), transport: transport}
	tb.Cleanup(transport.CloseIdleConnections)
	timeout := time.AfterFunc(startTimeout, end)
	defer timeout.Stop()
	var ready struct {
		Address   string `json:"address"`
		RootToken string `json:"root_token"`
		UnsealKey string `json:"unseal_key"`
	}
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		tb.Fatalf("start Vault: it did not say that it serves (%v)", err)
	}
	server.Address, server.RootToken, server.UnsealKey = ready.Address, ready.RootToken, ready.UnsealKey
	return server
}

// Client is a new client with the root token. It does not retry: a test sees
// Vault's first answer. Change its token with SetToken.
func (s *Server) Client(tb testing.TB) *api.Client {
	tb.Helper()
	config := api.DefaultConfig()
	if config.Error != nil {
		tb.Fatalf("configure the Vault client: %v", config.Error)
	}
	config.Address, config.MaxRetries = s.Address, 0
	config.HttpClient = &http.Client{Transport: s.transport, Timeout: startTimeout}
	client, err := api.NewClient(config)
	if err != nil {
		tb.Fatalf("make a Vault client: %v", err)
	}
	client.SetToken(s.RootToken)
	client.ClearNamespace() // VAULT_NAMESPACE of whoever runs the tests
	return client
}

// Seal makes Vault answer 503 to everything, until [Server.Unseal].
func (s *Server) Seal(tb testing.TB) {
	tb.Helper()
	if err := s.Client(tb).Sys().SealWithContext(tb.Context()); err != nil {
		tb.Fatalf("seal Vault: %v", err)
	}
}

// Unseal ends what [Server.Seal] began. Nothing that was stored is lost.
func (s *Server) Unseal(tb testing.TB) {
	tb.Helper()
	status, err := s.Client(tb).Sys().UnsealWithContext(tb.Context(), s.UnsealKey)
	if err != nil {
		tb.Fatalf("unseal Vault: %v", err)
	}
	if status.Sealed {
		tb.Fatal("unseal Vault: still sealed after the only key")
	}
}

// Stop ends the server before its test ends: connections are refused from then
// on, and all it stored is gone. A second call does nothing.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	s.process.stop(tb)
}

// process is a command that a test started and has to end.
type process struct {
	name string
	stop func(tb testing.TB)
	log  string // file of its standard error
}

// owned is a command that ends when end is called, and not before: the test's own
// context ends ahead of its cleanups, in which what is under test may still need
// the server. The environment is empty, so that nobody's VAULT_ADDR or PGHOST
// counts.
func owned(tb testing.TB, name string, args ...string) (command *exec.Cmd, end context.CancelFunc) {
	tb.Helper()
	ctx, end := context.WithCancel(context.WithoutCancel(tb.Context()))
	command = exec.CommandContext(ctx, name, args...) //nolint:gosec // G204: a program that this package built or found
	command.Env = []string{}
	command.WaitDelay = stopTimeout
	return command, end
}

// run starts a command of [owned], keeps what it writes to standard error, and
// shows that when the test fails.
func run(tb testing.TB, command *exec.Cmd, end context.CancelFunc) *process {
	tb.Helper()
	started := &process{name: filepath.Base(command.Path)}
	log, err := os.CreateTemp(tb.TempDir(), started.name+"-*.log")
	if err != nil {
		tb.Fatalf("make a log for %s: %v", started.name, err)
	}
	defer func() { _ = log.Close() }() // the process has a descriptor of its own
	started.log, command.Stderr = log.Name(), log
	if err := command.Start(); err != nil {
		end()
		tb.Fatalf("start %s: %v", started.name, err)
	}
	var once sync.Once
	started.stop = func(tb testing.TB) {
		tb.Helper()
		once.Do(func() {
			end()
			if err := command.Wait(); err != nil && !errors.Is(err, context.Canceled) {
				tb.Errorf("stop %s: %v", started.name, err)
			}
		})
	}
	tb.Cleanup(func() {
		started.stop(tb)
		if tb.Failed() {
			tb.Logf("the end of the log of %s:\n%s", started.name, started.tail())
		}
	})
	return started
}

// tail is the last 4 KiB of the log.
func (p *process) tail() string {
	const most = 4 << 10
	file, err := os.Open(p.log)
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

// eventually calls attempt until it succeeds, for at most [startTimeout].
func eventually(tb testing.TB, what string, attempt func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := attempt(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			tb.Fatalf("%s: %v", what, err)
		case <-ticker.C:
		}
	}
}
