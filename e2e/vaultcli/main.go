// Command vault is the part of the Vault CLI that the setup.sh files of examples/ use:
// the same arguments, over HTTP to VAULT_ADDR with VAULT_TOKEN. The tests put it into
// PATH, built under that name, because the real one is no Go module that could be had.
// Whatever it does not know is an error, so that an example cannot come to rely on it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	c := &cli{
		address: strings.TrimRight(os.Getenv("VAULT_ADDR"), "/"),
		token:   os.Getenv("VAULT_TOKEN"),
		client:  &http.Client{Timeout: time.Minute},
		stdin:   os.Stdin,
		stdout:  os.Stdout,
	}
	err := c.run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(exitCode(err))
}

// exitCode is that of the real one: 2 when Vault refused, 1 when it was not asked.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errRefused):
		return 2
	default:
		return 1
	}
}

// cli is one call of the command.
type cli struct {
	address, token string
	client         *http.Client
	stdin          io.Reader
	stdout         io.Writer
}

// command does what its name says with the arguments that follow it.
type command struct {
	name string
	run  func(ctx context.Context, args []string) error
}

func (c *cli) commands() []command {
	return []command{
		{"auth enable", c.authEnable},
		{"auth list", c.authList},
		{"kv put", c.kvPut},
		{"list", c.list},
		{"policy write", c.policyWrite},
		{"read", c.read},
		{"secrets enable", c.secretsEnable},
		{"secrets list", c.secretsList},
		{"write", c.write},
	}
}

func (c *cli) run(ctx context.Context, args []string) error {
	if c.address == "" || c.token == "" {
		return errors.New("set VAULT_ADDR and VAULT_TOKEN")
	}
	names := make([]string, 0, len(c.commands()))
	for _, known := range c.commands() {
		words := strings.Fields(known.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			if err := known.run(ctx, args[len(words):]); err != nil {
				return fmt.Errorf("vault %s: %w", known.name, err)
			}
			return nil
		}
		names = append(names, known.name)
	}
	return fmt.Errorf("vault %s: this stand-in for the Vault CLI knows only %s; see e2e/vaultcli", strings.Join(args, " "), strings.Join(names, ", "))
}
