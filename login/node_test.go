package login_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// tokens is a store that keeps a record of the tokens it gave, as Vault does. Its
// clock is right; now is the one of the node.
type tokens struct {
	ttl, most time.Duration // most is the longest that renewals lead to; 0 is no limit
	fixed     bool          // cannot be renewed
	slow      time.Duration // what a renewal or revocation takes
	spare     time.Duration // of the sessions
	now       func() time.Time

	mu      sync.Mutex
	failing error // of renewals and revocations
	issued  map[string]lifetime
	order   []string // the service accounts that were renewed for
	counts
}

// counts are the numbers of requests to a store.
type counts struct{ logins, tries, renewals, revoked, atOnce, mostAtOnce int }

type lifetime struct{ born, ends time.Time }

func newTokens(ttl, most time.Duration) *tokens {
	return &tokens{ttl: ttl, most: most, now: time.Now, issued: map[string]lifetime{}}
}

func (v *tokens) Login(_ context.Context, identity auth.Identity, _ secret.Bytes, role string) (login.Login, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.logins++
	token := fmt.Sprintf("%s/%s %s as %s, %d", identity.Namespace, identity.ServiceAccount, identity.ServiceAccountUID, role, v.logins)
	v.issued[token] = lifetime{born: time.Now()}
	return v.prolong(token), nil
}

// prolong needs the lock.
func (v *tokens) prolong(token string) login.Login {
	one := v.issued[token]
	if v.ttl == 0 { // for ever
		v.issued[token] = lifetime{one.born, one.born.AddDate(100, 0, 0)}
		return login.Login{Token: secret.New([]byte(token)), Renewable: !v.fixed}
	}
	one.ends = time.Now().Add(v.ttl)
	if most := one.born.Add(v.most); v.most > 0 && most.Before(one.ends) {
		one.ends = most
	}
	v.issued[token] = one
	return login.Login{Token: secret.New([]byte(token)), Expires: v.now().Add(time.Until(one.ends)), Renewable: !v.fixed}
}

// begin waits as long as an answer takes.
func (v *tokens) begin(ctx context.Context) error {
	v.mu.Lock()
	v.tries++
	v.atOnce++
	v.mostAtOnce = max(v.mostAtOnce, v.atOnce)
	v.mu.Unlock()
	select {
	case <-ctx.Done():
		time.Sleep(time.Second) // nobody gives up at once
	case <-time.After(v.slow):
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.atOnce--
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return v.failing
}

func (v *tokens) Renew(ctx context.Context, i auth.Identity, given login.Login) (login.Login, error) {
	v.mu.Lock()
	v.order = append(v.order, i.ServiceAccount)
	v.mu.Unlock()
	if err := v.begin(ctx); err != nil {
		return login.Login{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if token := string(given.Token.Reveal()); v.lives(token) {
		v.renewals++
		return v.prolong(token), nil
	}
	return login.Login{}, store.Ended.Errorf("unknown")
}

func (v *tokens) Revoke(ctx context.Context, _ auth.Identity, given login.Login) error {
	if err := v.begin(ctx); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.issued, string(given.Token.Reveal()))
	v.revoked++
	return nil
}

// lives needs the lock.
func (v *tokens) lives(token string) bool { return time.Now().Before(v.issued[token].ends) }

// use fails the test when a login is used after its end.
func (v *tokens) use(t *testing.T, given login.Login) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if token := string(given.Token.Reveal()); !v.lives(token) {
		t.Errorf("token %q is used after its end", token)
	}
}

func (v *tokens) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failing = err
}

func (v *tokens) expect(t *testing.T, logins, renewals, revoked int) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.logins != logins || v.renewals != renewals || v.revoked != revoked {
		t.Errorf("%d logins, %d renewals, %d revoked; want %d, %d, %d", v.logins, v.renewals, v.revoked, logins, renewals, revoked)
	}
}

func (v *tokens) tried() int { return v.count().tries }

func (v *tokens) count() counts {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counts
}

// node is the sessions of one store at work.
type node struct {
	*login.Sessions
	*tokens
	log  *syncBuffer
	stop func() // ends Run and waits for it
}

func startNode(t *testing.T, v *tokens) *node {
	t.Helper()
	return startNodeOf(t, v, false)
}

// startNodeOf is startNode; perPod gives each pod a login of its own.
func startNodeOf(t *testing.T, v *tokens, perPod bool) *node {
	t.Helper()
	n := &node{Sessions: login.NewSessions(v, perPod, func() time.Time { return v.now() }), tokens: v, log: &syncBuffer{}}
	n.Log, n.Spare = slog.New(slog.NewTextHandler(n.log, nil)), v.spare
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// open opens a login as a mount does, for a pod with a recent token.
func (n *node) open(t *testing.T, i auth.Identity) login.Login {
	t.Helper()
	given, err := n.Open(t.Context(), i, secret.Bytes{}, "shop")
	if err != nil {
		t.Fatal(err)
	}
	n.use(t, given)
	return given
}

// until is the identity of who with a token that ends at a time.
func until(end time.Time) auth.Identity {
	i := who()
	i.Expires = end
	return i
}

const (
	republish = 75 * time.Second // the driver's calls for a pod
	podToken  = time.Hour        // a pod token's life, of which the kubelet lets four fifths pass
)

// day mounts for a while as the kubelet does.
func (n *node) day(t *testing.T, span time.Duration, mount func(i auth.Identity)) {
	t.Helper()
	begin := time.Now()
	for at := time.Duration(0); at < span; at = time.Since(begin) {
		made := begin.Add(at.Truncate(podToken * 4 / 5))
		mount(until(made.Add(podToken)))
		time.Sleep(republish)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Split(strings.TrimSpace(b.String()), "\n")
}
