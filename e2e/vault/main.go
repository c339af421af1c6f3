// Command vault is the real Vault server, for tests: in memory, initialised and
// unsealed at start, gone with the test that started it. It has the engines and
// auth methods that keymount is tested against and no others, because upstream's
// command links the SDK of every cloud.
//
// When it serves, it prints one line of JSON to standard output:
//
//	{"address":"http://127.0.0.1:41213","root_token":"…","unseal_key":"…"}
//
// Its log goes to standard error. It ends on SIGTERM, and when its standard input
// reaches end of file, which is how it cannot outlive a test that was killed.
package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "127.0.0.1:0", "address to serve on; port 0 takes a free one")
	certFile := flag.String("tls-cert", "", "serve TLS with this PEM certificate (with -tls-key)")
	keyFile := flag.String("tls-key", "", "PEM key of -tls-cert")
	logLevel := flag.String("log-level", "info", "trace, debug, info, warn, error")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // end of file or a broken pipe: the test is gone
		stop()
	}()

	listener, scheme, err := listenOn(ctx, *listen, *certFile, *keyFile)
	if err != nil {
		return err
	}
	core, err := newCore(hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(*logLevel), Output: os.Stderr}))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	ready, err := initialise(ctx, core)
	if err != nil {
		return errors.Join(err, listener.Close(), core.Shutdown())
	}
	ready.Address = scheme + "://" + listener.Addr().String()
	return serve(ctx, core, listener, ready)
}

// listenOn also says the scheme of the address: https with a certificate, http without.
func listenOn(ctx context.Context, address, certFile, keyFile string) (net.Listener, string, error) {
	var config *tls.Config
	if certFile != "" || keyFile != "" {
		certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, "", fmt.Errorf("read -tls-cert and -tls-key: %w", err)
		}
		config = &tls.Config{
			Certificates: []tls.Certificate{certificate},
			MinVersion:   tls.VersionTLS12,
			NextProtos:   []string{"h2", "http/1.1"},
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, "", fmt.Errorf("listen: %w", err)
	}
	if config == nil {
		return listener, "http", nil
	}
	return tls.NewListener(listener, config), "https", nil
}

func newCore(logger hclog.Logger) (*vault.Core, error) {
	storage, err := inmem.NewInmem(nil, logger.Named("storage"))
	if err != nil {
		return nil, fmt.Errorf("make the storage: %w", err)
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		StorageType:        "inmem",
		Logger:             logger,
		DisableMlock:       true, // the secrets are a test's, and mlock needs a capability
		BuiltinRegistry:    builtins{},
		LogicalBackends:    secretEngines(),
		CredentialBackends: authMethods(),
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
	})
	if err != nil {
		return nil, fmt.Errorf("make the core: %w", err)
	}
	return core, nil
}

func secretEngines() map[string]logical.Factory {
	return map[string]logical.Factory{
		"kv":       kv.Factory, // version 1 or 2, by the mount's option "version"
		"pki":      pki.Factory,
		"transit":  transit.Factory,
		"database": database.Factory,
	}
}

func authMethods() map[string]logical.Factory {
	return map[string]logical.Factory{
		"kubernetes": kubernetes.Factory,
		"jwt":        jwt.Factory,
	}
}

// ready is the line that a test waits for.
type ready struct {
	Address   string `json:"address"`
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"` // base64, as sys/unseal takes it
}

// initialise makes a new Vault with one unseal key, and unseals it.
func initialise(ctx context.Context, core *vault.Core) (*ready, error) {
	result, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
		RecoveryConfig: &vault.SealConfig{},
	})
	if err != nil {
		return nil, fmt.Errorf("initialise: %w", err)
	}
	line := &ready{RootToken: result.RootToken, UnsealKey: base64.StdEncoding.EncodeToString(result.SecretShares[0])}
	unsealed, err := core.Unseal(result.SecretShares[0])
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	if !unsealed {
		return nil, errors.New("unseal: still sealed after the only key")
	}
	return line, nil
}

// serve announces the server, and answers until ctx ends.
func serve(ctx context.Context, core *vault.Core, listener net.Listener, line *ready) error {
	server := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core: core,
			// The handler dereferences it.
			ListenerConfig: &configutil.Listener{Address: listener.Addr().String()},
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		return errors.Join(fmt.Errorf("announce the server: %w", err), server.Close(), core.Shutdown())
	}
	select {
	case err := <-ended:
		return errors.Join(fmt.Errorf("serve: %w", err), core.Shutdown())
	case <-ctx.Done():
		// Requests under way are a test's that has ended: nobody waits for them.
		return errors.Join(server.Close(), core.Shutdown())
	}
}

// builtins is the plugin catalogue. Vault finds secret engines and auth methods by
// the maps above, but database plugins only here.
type builtins struct{}

// Contains implements plugincatalog.BuiltinRegistry.
func (b builtins) Contains(name string, kind consts.PluginType) bool {
	_, found := b.Get(name, kind)
	return found
}

// Get implements plugincatalog.BuiltinRegistry.
func (builtins) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	switch kind {
	case consts.PluginTypeDatabase:
		return postgresql.New, name == "postgresql-database-plugin"
	case consts.PluginTypeSecrets:
		factory, found := secretEngines()[name]
		return func() (any, error) { return factory, nil }, found
	case consts.PluginTypeCredential:
		factory, found := authMethods()[name]
		return func() (any, error) { return factory, nil }, found
	case consts.PluginTypeUnknown:
		return nil, false
	default:
		return nil, false
	}
}

// Keys implements plugincatalog.BuiltinRegistry.
func (builtins) Keys(kind consts.PluginType) []string {
	var names []string
	switch kind {
	case consts.PluginTypeDatabase:
		names = []string{"postgresql-database-plugin"}
	case consts.PluginTypeSecrets:
		for name := range secretEngines() {
			names = append(names, name)
		}
	case consts.PluginTypeCredential:
		for name := range authMethods() {
			names = append(names, name)
		}
	case consts.PluginTypeUnknown:
	}
	return names
}

// DeprecationStatus implements plugincatalog.BuiltinRegistry.
func (b builtins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b.Contains(name, kind)
}

// IsBuiltinEntPlugin implements plugincatalog.BuiltinRegistry.
func (builtins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
