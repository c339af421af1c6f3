package cli

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/keymount/keymount/auth"
	vaultauth "github.com/keymount/keymount/auth/vault"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/bundle"
	"github.com/keymount/keymount/store/vault"
)

const (
	// requestsAtOnce is how many questions one store is asked at a time, and about how
	// many connections that takes: no fewer than one mount may have.
	requestsAtOnce = 64
	// deliverWithin is what it takes beyond the driver's interval until a credential is
	// in the pod: the kubelet's call, and a few that fail.
	deliverWithin = 3 * time.Minute
)

// opener makes the stores of keymount.yaml ready to be read.
type opener struct {
	metrics  *provider.Metrics
	rotation *provider.Rotation
	gone     *leavers // gets every store that makes something for volumes
	limits   config.Limits
	state    *stateFolder
	log      *slog.Logger
}

// open opens each store. One that cannot be read yet is not fatal: others may
// serve, and it may come.
func (o opener) open(ctx context.Context, stores []config.Store) ([]provider.Backend, []part, error) {
	backends := make([]provider.Backend, 0, len(stores))
	var parts []part
	for _, s := range stores {
		opened, running, err := o.one(ctx, s)
		if err != nil {
			return nil, nil, fmt.Errorf("store %q: %w", s.Name, err)
		}
		backends, parts = append(backends, opened), append(parts, running...)
	}
	return backends, parts, nil
}

func (o opener) one(ctx context.Context, s config.Store) (provider.Backend, []part, error) {
	backend, err := backendOf(s)
	if err != nil {
		return provider.Backend{}, nil, err
	}
	o.log = o.log.With(slog.String("store", s.Name))
	if s.Vault != nil {
		opened, parts, err := o.vault(s)
		backend.Store = opened
		return backend, parts, err
	}
	opened := bundle.New(s.Bundle.File, s.Bundle.IdentityFile, o.log)
	_ = opened.Check(ctx) // it logs what is wrong
	backend.Store = o.metrics.CountReads(s.Name, opened)
	return backend, nil, nil
}

// backendOf is what is known of a store without opening it.
func backendOf(s config.Store) (provider.Backend, error) {
	rules, err := s.Rules()
	backend := provider.Backend{Name: s.Name, Rules: rules, Audience: s.Audience(), TokensWithoutPod: s.TokensWithoutPod}
	if s.Vault != nil {
		backend.Features = provider.Features{Roles: true, Versions: true, Writes: true, Vault: &provider.VaultLocation{
			Addresses: s.Vault.Addresses, Namespace: s.Vault.Namespace, AuthMount: s.Vault.Auth.Mount, Audience: s.Vault.Auth.Audience,
		}}
	}
	return backend, err
}

// vault is a Vault, and all that stands before it.
func (o opener) vault(s config.Store) (store.Store, []part, error) {
	c := s.Vault
	conn, err := vault.NewConn(vault.Options{
		Addresses: c.Addresses, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, ServerName: c.ServerName, Log: o.log,
	}, time.Now)
	if err != nil {
		return nil, nil, err
	}
	engines := map[string]vault.Engine{}
	for mount, engine := range c.Mounts {
		engines[mount] = vault.Engine(engine)
	}
	method := vaultauth.Method{Conn: conn, Mount: c.Auth.Mount, Namespace: c.Namespace, Now: clock}
	opened, parts := o.pile(s, method, vault.New(conn, c.Namespace, engines), clock)
	return opened, parts, nil
}

// pile puts on a store what stands before it: what asks it is counted, logged in,
// bounded, and remembered.
func (o opener) pile(s config.Store, method auth.Method, asked store.Store, now func() time.Time) (store.Store, []part) {
	replace, perPod := o.limits.RotationPollInterval+deliverWithin, s.Session == config.SessionPod
	sessions := auth.NewSessions(o.metrics.CountLogins(s.Name, method), perPod, now)
	state := o.state.file(s)
	sessions.Spare, sessions.Log, sessions.Changed = replace+store.LeastLife, o.log, state.change

	counted := o.metrics.CountReads(s.Name, asked)
	bounded := store.Limit(store.LogIn(counted, sessions, now), requestsAtOnce)
	kept := store.Keep(bounded, store.KeepOptions{
		Refresh: *s.Refresh, Stale: *s.Stale, PerPod: perPod, Replace: replace, Bytes: int64(*s.MemoryMiB) << 20, Now: now, Log: o.log,
		Vouch:     func(session store.Session) { sessions.Vouch(session.Identity, session.Role) },
		Forgotten: o.rotation.Forgotten(s.Name, o.log),
		Changed:   state.change,
	})
	o.gone.add(kept, sessions)
	state.hold(sessions, kept)
	o.metrics.MeasureMemory(s.Name, kept.Held)
	return kept, []part{sessions.Run, kept.Run}
}
