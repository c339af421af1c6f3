package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// How long things live that Vault gives, and how far renewals lead.
const (
	loginLife  = time.Hour
	loginMost  = 24 * time.Hour
	leaseLife  = time.Hour
	leaseMost  = 24 * time.Hour
	shiftMost  = 5 * time.Hour // of database/creds/shift
	certLife   = 24 * time.Hour
	staticLife = 7 * time.Hour    // of a password that Vault changes by itself
	plainLife  = 37 * time.Minute // of a secret that a user changes now and then
	answers    = 5 * time.Millisecond
)

// judge plays Vault by the world's clock, and remembers all that it gave. It is the
// side that both of its clients, vaultLogins and vaultSecrets, talk to.
type judge struct {
	clocks *clocks
	tokens *cluster
	// loginLife is that of logins, and loginMost how far renewals lead.
	loginLife, loginMost time.Duration

	mu       sync.Mutex // guards what follows, and what is in it
	given    map[string]*term
	made     map[string]int // how many of each thing, by service account
	requests int
	late     []string // what it was shown after its end
}

// term is the life of a login, a lease or a certificate.
type term struct {
	ends, latest time.Time // latest is as far as renewals lead
	login        *term     // which it ends with; nil for none
}

func (t *term) end() time.Time {
	if t.login != nil && t.login.ends.Before(t.ends) {
		return t.login.ends
	}
	return t.ends
}

// answer counts a request, and takes its time.
func (j *judge) answer(ctx context.Context) error {
	j.mu.Lock()
	j.requests++
	j.mu.Unlock()
	select {
	case <-time.After(answers):
		return nil
	case <-ctx.Done():
		return store.Unavailable.Errorf("cut off")
	}
}

// makeLocked makes a login, a lease or a certificate, with a name of its own.
func (j *judge) makeLocked(what string, i auth.Identity, life, most time.Duration, by *term) (name string, one *term) {
	now := j.clocks.world()
	one = &term{ends: now.Add(life), latest: now.Add(most), login: by}
	name = fmt.Sprintf("%s, %d", what, len(j.given))
	j.given[name] = one
	j.made[what+" of "+i.Namespace+"/"+i.ServiceAccount]++
	return name, one
}

// renewLocked prolongs something by its life, and returns what is left of it then.
func (j *judge) renewLocked(one *term, life time.Duration) time.Duration {
	now := j.clocks.world()
	if one.ends = now.Add(life); one.latest.Before(one.ends) {
		one.ends = one.latest
	}
	return one.ends.Sub(now)
}

// livingLocked finds something that lives, or else nil.
func (j *judge) livingLocked(name secret.Bytes) *term {
	one := j.given[string(name.Reveal())]
	if one == nil || !j.clocks.world().Before(one.end()) {
		j.late = append(j.late, string(name.Reveal()))
		return nil
	}
	return one
}

// end ends something at once.
func (j *judge) end(ctx context.Context, name secret.Bytes) error {
	if err := j.answer(ctx); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if one := j.livingLocked(name); one != nil {
		one.ends = j.clocks.world()
	}
	return nil
}

// vaultLogins is Vault as [login.Sessions] see it. Lives are counted by the clock of
// whoever asks, since Vault tells them in seconds.
type vaultLogins struct{ *judge }

// Login implements [login.Method]. The API server says whether the token counts.
func (v vaultLogins) Login(ctx context.Context, i auth.Identity, token secret.Bytes, _ string) (login.Login, error) {
	asked := v.clocks.node()
	if err := v.answer(ctx); err != nil {
		return login.Login{}, err
	}
	if !v.tokens.review(string(token.Reveal())) {
		v.mu.Lock()
		v.late = append(v.late, "the token of "+i.PodName)
		v.mu.Unlock()
		return login.Login{}, store.Denied.Errorf("the token has expired")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	name, _ := v.makeLocked("login", i, v.loginLife, v.loginMost, nil)
	return login.Login{Token: secret.New([]byte(name)), Expires: asked.Add(v.loginLife), Renewable: true}, nil
}

// Renew implements [login.Renewer].
func (v vaultLogins) Renew(ctx context.Context, _ auth.Identity, given login.Login) (login.Login, error) {
	asked := v.clocks.node()
	if err := v.answer(ctx); err != nil {
		return login.Login{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	one := v.livingLocked(given.Token)
	if one == nil {
		return login.Login{}, store.Ended.Errorf("bad token")
	}
	given.Expires = asked.Add(v.renewLocked(one, v.loginLife))
	return given, nil
}

// Revoke implements [login.Renewer].
func (v vaultLogins) Revoke(ctx context.Context, _ auth.Identity, given login.Login) error {
	return v.end(ctx, given.Token)
}

// vaultSecrets is Vault as package store/vault sees it.
type vaultSecrets struct{ *judge }

// Resolve implements [store.Resolver] without a request: the engines of mounts stand in
// keymount.yaml.
func (vaultSecrets) Resolve(_ context.Context, _ store.Caller, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path, Makes: ref.Path.Segments()[0] != "secret"}, nil
}

// Read implements [store.Store].
func (v vaultSecrets) Read(ctx context.Context, caller store.Caller, ref store.Ref) (value store.Value, err error) {
	if err := v.answer(ctx); err != nil {
		return store.Value{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	by := v.livingLocked(caller.Login)
	if by == nil {
		return store.Value{}, store.Ended.Errorf("invalid token")
	}
	path, name := ref.Path.String(), ""
	switch {
	case strings.HasPrefix(path, "database/creds/"):
		most := leaseMost
		if path == "database/creds/shift" {
			most = shiftMost
		}
		name, _ = v.makeLocked(path, caller.Identity, leaseLife, most, by)
		value.Lease = &store.Lease{ID: secret.New([]byte(name)), Duration: leaseLife, Renewable: true}
	case strings.HasPrefix(path, "pki/"):
		var one *term
		name, one = v.makeLocked(path, caller.Identity, certLife, certLife, nil)
		value.NotAfter = one.ends
	default:
		var left time.Duration
		if name, left = v.turn(path); strings.HasPrefix(path, "database/static-creds/") {
			value.NotAfter = v.clocks.node().Add(left.Truncate(time.Second))
		}
	}
	value.Data, err = secret.NewTree(map[string]any{"name": name})
	return value, err
}

// turn is what a secret is now that changes at fixed times, and for how long.
func (j *judge) turn(path string) (name string, left time.Duration) {
	life, age := lifeOf(path), j.clocks.world().Sub(j.clocks.begin)
	return fmt.Sprintf("%s, %d", path, age/life), life - age%life
}

func lifeOf(path string) time.Duration {
	if strings.HasPrefix(path, "database/static-creds/") {
		return staticLife
	}
	return plainLife
}

// Renew implements [store.Leaser].
func (v vaultSecrets) Renew(ctx context.Context, caller store.Caller, lease store.Lease) (store.Lease, error) {
	if err := v.answer(ctx); err != nil {
		return store.Lease{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.livingLocked(caller.Login) == nil {
		return store.Lease{}, store.Ended.Errorf("invalid token")
	}
	one := v.livingLocked(lease.ID)
	if one == nil {
		return store.Lease{}, store.Invalid.Errorf("lease not found")
	}
	lease.Duration = v.renewLocked(one, leaseLife).Truncate(time.Second)
	return lease, nil
}

// Revoke implements [store.Leaser].
func (v vaultSecrets) Revoke(ctx context.Context, _ store.Caller, lease store.Lease) error {
	return v.end(ctx, lease.ID)
}

// overdue is the time since the end of a secret in a file. A changed secret has a while
// to get there: a password with a known end until the next call, another one until it is
// read again, and both may have to wait for the driver's interval.
func (j *judge) overdue(name string) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clocks.world()
	if one := j.given[name]; one != nil {
		return now.Sub(one.end())
	}
	path, number, _ := strings.Cut(name, ", ")
	turns, patience := 0, round
	_, _ = fmt.Sscan(number, &turns)
	if lifeOf(path) == plainLife {
		patience += refreshMax
	}
	return now.Sub(j.clocks.begin.Add(time.Duration(turns+1)*lifeOf(path) + patience))
}

// take is what was made since it was last asked, by the first word of its name, and how
// many requests there were.
func (j *judge) take() (made map[string]int, requests int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	made, requests = map[string]int{}, j.requests
	for what, n := range j.made {
		made[strings.FieldsFunc(what, func(r rune) bool { return r == ' ' || r == '/' })[0]] += n
	}
	clear(j.made)
	j.requests, j.late = 0, nil
	return made, requests
}

// expectNoneLate fails when a login or lease was used after its end.
func (j *judge) expectNoneLate(t *testing.T) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.late) > 0 {
		t.Errorf("Vault was shown what had ended: %q", j.late)
	}
}

// expectAllOver fails when an unneeded login or lease lives.
func (j *judge) expectAllOver(t *testing.T) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, one := range j.given {
		if left := one.end().Sub(j.clocks.world()); left > 0 && !strings.HasPrefix(name, "pki/") {
			t.Errorf("%q lives for another %s", name, left)
		}
	}
}
