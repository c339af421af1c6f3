package login_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// picky refuses the tokens of pods that are gone.
type picky struct {
	mu     sync.Mutex
	asked  int
	refuse func(token string) bool
}

func (p *picky) Login(_ context.Context, _ auth.Identity, token secret.Bytes, _ string) (login.Login, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.refuse(string(token.Reveal())) {
		return login.Login{}, store.Denied.Errorf("token review says no")
	}
	return login.Login{Token: secret.New([]byte("login")), Expires: time.Now().Add(time.Hour)}, nil
}

// The refusal of one pod's token is not that of another pod of the service account;
// and a service account that is refused does not cost a login for each of its pods.
func TestRefusalIsOfAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := &picky{refuse: func(token string) bool { return token == "gone" }}
		sessions := login.NewSessions(method, false, time.Now)
		identity := auth.Identity{Namespace: "shop", ServiceAccount: "api", ServiceAccountUID: "uid", Expires: time.Now().Add(time.Hour)}
		open := func(token string) error {
			_, err := sessions.Open(t.Context(), identity, secret.New([]byte(token)), "shop")
			return err
		}
		for range 3 {
			if err := open("gone"); !login.Refused(err) {
				t.Fatalf("got %v", err)
			}
		}
		if method.asked != 1 {
			t.Errorf("%d logins for a token that was refused a moment ago", method.asked)
		}
		if err := open("alive"); err != nil {
			t.Errorf("a pod pays for another one: %v", err)
		}
		if err := open("gone"); err != nil || method.asked != 2 {
			t.Errorf("after %d logins: %v", method.asked, err)
		}
	})
}

func TestRefusalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := &picky{refuse: func(string) bool { return true }}
		sessions := login.NewSessions(method, false, time.Now)
		identity := auth.Identity{Namespace: "shop", ServiceAccount: "api", ServiceAccountUID: "uid", Expires: time.Now().Add(time.Hour)}
		for n := range 100 {
			if _, err := sessions.Open(t.Context(), identity, secret.New([]byte{byte(n)}), "shop"); !login.Refused(err) {
				t.Fatalf("got %v", err)
			}
		}
		if method.asked > 5 {
			t.Errorf("%d logins of a service account that is refused", method.asked)
		}
	})
}
