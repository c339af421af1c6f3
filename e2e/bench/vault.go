package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/keymount/keymount/e2e/programs"
)

// role is what all pods log in as.
const role = "bench"

// server is a running Vault.
type server struct {
	address string
	client  *api.Client
	command *exec.Cmd
	input   io.Closer
}

// startVault runs the server of e2e/vault, which it may have to build first.
func startVault(ctx context.Context, progress io.Writer) (*server, error) {
	program, err := programs.Vault(ctx, progress)
	if err != nil {
		return nil, err
	}
	//nolint:gosec // G204: the program that was built just now
	command := exec.CommandContext(context.WithoutCancel(ctx), program, "-listen", "127.0.0.1:0", "-log-level", "error")
	command.Env = []string{}
	input, inputErr := command.StdinPipe() // it ends when this closes, however this process ends
	out, outErr := command.StdoutPipe()
	if err := errors.Join(inputErr, outErr); err != nil {
		return nil, fmt.Errorf("start Vault: %w", err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start Vault: %w", err)
	}
	s := &server{command: command, input: input}
	var ready struct {
		Address   string `json:"address"`
		RootToken string `json:"root_token"`
	}
	if err := json.NewDecoder(out).Decode(&ready); err != nil {
		return nil, errors.Join(fmt.Errorf("start Vault: it did not say that it serves: %w", err), s.stop())
	}
	config := api.DefaultConfig()
	config.Address = ready.Address
	if s.client, err = api.NewClient(config); err != nil {
		return nil, errors.Join(fmt.Errorf("make a Vault client: %w", err), s.stop())
	}
	s.client.SetToken(ready.RootToken)
	s.client.ClearNamespace() // VAULT_NAMESPACE of whoever runs this
	s.address = ready.Address
	return s, nil
}

// stop sends no signal: one that comes while it ends would be how it ended.
func (s *server) stop() error {
	_ = s.input.Close() // it has ended already, if this fails
	if err := s.command.Wait(); err != nil {
		return fmt.Errorf("stop Vault: %w", err)
	}
	return nil
}

// fill sets Vault up for the pods of c: each service account has its own secrets.
func (s *server) fill(ctx context.Context, c *cluster, o options) error {
	key, err := c.issuer.PublicKey()
	if err != nil {
		return err
	}
	sys := s.client.Sys()
	err = errors.Join(
		sys.MountWithContext(ctx, "secret", &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}),
		sys.PutPolicyWithContext(ctx, role, `path "secret/data/*" { capabilities = ["read"] }`),
		sys.EnableAuthWithOptionsWithContext(ctx, "jwt", &api.EnableAuthOptions{Type: "jwt"}),
		s.write(ctx, "auth/jwt/config", map[string]any{"bound_issuer": c.issuer.Name, "jwt_validation_pubkeys": []string{key}}),
		s.write(ctx, "auth/jwt/role/"+role, map[string]any{
			"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{audience}, "token_policies": []string{role}, "token_ttl": "1h",
		}),
	)
	if err != nil {
		return fmt.Errorf("set Vault up: %w", err)
	}
	var writing errgroup.Group
	writing.SetLimit(o.AtOnce)
	for account := range o.Pods {
		for object := range o.Objects {
			writing.Go(func() error { return s.put(ctx, secretName(account, object), valueOf(account, object, 0, o.Bytes)) })
		}
	}
	return writing.Wait() //nolint:wrapcheck // put has said it
}

func (s *server) put(ctx context.Context, name, value string) error {
	return s.write(ctx, "secret/data/"+name, map[string]any{"data": map[string]any{"value": value}})
}

// write tries again while the engine is new: for an instant it answers 400 to
// everything.
func (s *server) write(ctx context.Context, path string, data map[string]any) error {
	for {
		_, err := s.client.Logical().WriteWithContext(ctx, path, data)
		if err == nil {
			return nil
		}
		if !strings.Contains(err.Error(), "pgrading") || ctx.Err() != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
}

func secretName(account, object int) string { return fmt.Sprintf("bench/%d/%d", account, object) }

// valueOf is what a secret holds; no two are alike.
func valueOf(account, object, generation, bytes int) string {
	text := fmt.Sprintf("value %d of object %d of account %d ", generation, object, account)
	return (text + strings.Repeat("x", bytes))[:max(bytes, len(text))]
}
