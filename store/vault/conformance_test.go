package vault_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/storetest"
	"github.com/keymount/keymount/store/vault"
)

func TestKind(t *testing.T) {
	storetest.Kind(t, storetest.KindSubject{
		Kind:      vault.Kind{},
		Settings:  "{addresses: ['https://vault.invalid:8200'], mounts: {secret: kv2}}",
		Elsewhere: "{addresses: ['https://other.invalid:8200'], mounts: {secret: kv2}}",
		Paths:     []string{"secret/shop/db", "secret/data/shop/db", "database/creds/shop"},
	})
}

func TestRead(t *testing.T) {
	storetest.Read(t, func(t *testing.T, secrets map[string]map[string]any) storetest.Subject {
		t.Helper()
		s := startServer(t)
		for path, data := range secrets {
			s.secrets[strings.TrimPrefix(path, "secret/")] = data
		}
		return storetest.Subject{Store: open(t, s.URL), Caller: caller(), Faults: s.faults()}
	})
}

func TestResolver(t *testing.T) {
	storetest.Resolver(t, func(t *testing.T) storetest.ResolverSubject {
		t.Helper()
		s := startServer(t)
		s.secrets["shop/db"] = map[string]any{"password": storetest.Canary}
		return storetest.ResolverSubject{
			Resolver: open(t, s.URL), Caller: caller(), Faults: s.faults(),
			Spellings: []string{"secret/shop/db", "secret/data/shop/db"},
			Literals:  []string{"secret/metadata/shop/db", "secret/config", "sys/mounts", "auth/token/lookup-self"},
			Reads: func() int {
				asked := s.seen()
				return len(slices.DeleteFunc(asked, func(request string) bool { return strings.HasPrefix(request, "GET /v1/sys/internal/ui/mounts/") }))
			},
		}
	})
}

func TestLeaser(t *testing.T) {
	storetest.Leaser(t, func(t *testing.T) storetest.LeaserSubject {
		t.Helper()
		s := startServer(t)
		s.answer = (&leases{}).answer
		v := open(t, s.URL)
		return storetest.LeaserSubject{
			Subject: storetest.Subject{Store: v, Caller: caller(), Faults: s.faults()}, Leaser: v, Makes: "database/creds/shop",
		}
	})
}

func TestMethod(t *testing.T) {
	storetest.Login(t, func(t *testing.T) storetest.LoginSubject {
		t.Helper()
		s := startServer(t)
		s.answer = (&logins{}).answer
		s.secrets["shop/db"] = map[string]any{"password": storetest.Canary}
		conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		faults := s.faults()
		faults.Never = []store.Reason{store.NotFound, store.Ended, store.Doubt} // a login is refused, or is not to be had
		return storetest.LoginSubject{
			Method: vault.Method{Conn: conn, Mount: "kubernetes", Now: time.Now}, Now: time.Now, Faults: faults,
			Identity: who(), Token: secret.New([]byte(podToken)), Role: "shop-api", UnknownRole: "others",
			Use: func(ctx context.Context, l login.Login) error {
				as := caller()
				as.Login = l.Token
				_, err := vault.New(conn, "", nil).Read(ctx, as, ref(t, "secret/shop/db"))
				return err
			},
		}
	})
}

// faults has the server answer with a status, or not at all.
func (s *server) faults() storetest.Faults {
	return storetest.Faults{
		Fail: func(reason store.Reason) {
			s.behave(func(w http.ResponseWriter, r *http.Request) bool {
				fail(w, r, reason)
				return true
			})
		},
		Hang: func() <-chan struct{} {
			reached := make(chan struct{})
			reach := sync.OnceFunc(func() { close(reached) })
			s.behave(func(_ http.ResponseWriter, r *http.Request) bool {
				_, _ = io.Copy(io.Discard, r.Body) // or else nothing tells that the client has gone
				reach()
				<-r.Context().Done()
				return true
			})
			return reached
		},
	}
}

func (s *server) behave(answer func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// fail is how Vault gives this reason. It asks for a pause whatever it is.
func fail(w http.ResponseWriter, r *http.Request, reason store.Reason) {
	aboutItself := r.URL.Path == "/v1/auth/token/lookup-self"
	w.Header().Set("Retry-After", "1")
	switch reason {
	case store.NotFound:
		refuse(w, http.StatusNotFound)
	case store.Denied:
		if aboutItself {
			reply(w, map[string]any{"data": map[string]any{}})
			return
		}
		refuse(w, http.StatusForbidden, "permission denied")
	case store.Ended:
		refuse(w, http.StatusForbidden, "permission denied", "invalid token")
	case store.Doubt:
		refuse(w, http.StatusForbidden, "permission denied")
	case store.Unavailable:
		refuse(w, http.StatusInternalServerError)
	case store.Invalid:
		refuse(w, http.StatusMethodNotAllowed, "unsupported operation")
	}
}

// leases is a database engine that makes one credential.
type leases struct{ ended atomic.Bool }

func (l *leases) answer(w http.ResponseWriter, r *http.Request) bool {
	const id = "database/creds/shop/1"
	var sent struct {
		ID string `json:"lease_id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&sent)
	known := sent.ID == id && !l.ended.Load()
	switch r.URL.Path {
	case "/v1/database/creds/shop":
		reply(w, map[string]any{"lease_id": id, "lease_duration": 3600, "renewable": true, "data": map[string]any{"password": storetest.Canary}})
	case "/v1/sys/leases/renew":
		if !known {
			refuse(w, http.StatusBadRequest, "lease not found")
			return true
		}
		reply(w, map[string]any{"lease_id": id, "lease_duration": 1800, "renewable": true})
	case "/v1/sys/leases/revoke":
		l.ended.Store(l.ended.Load() || known)
		w.WriteHeader(http.StatusNoContent)
	default:
		return false
	}
	return true
}

// logins is an auth method with one role, and its one login.
type logins struct{ ended atomic.Bool }

func (l *logins) answer(w http.ResponseWriter, r *http.Request) bool {
	given := map[string]any{"auth": map[string]any{"client_token": goodToken, "lease_duration": 3600, "renewable": true}}
	if r.URL.Path == "/v1/auth/kubernetes/login" {
		var sent struct{ Role, JWT string }
		_ = json.NewDecoder(r.Body).Decode(&sent)
		switch {
		case sent.Role != "shop-api":
			refuse(w, http.StatusBadRequest, fmt.Sprintf("invalid role name %q", sent.Role))
		case sent.JWT != podToken:
			refuse(w, http.StatusForbidden, "permission denied")
		default:
			reply(w, given)
		}
		return true
	}
	if l.ended.Load() {
		refuse(w, http.StatusForbidden, "permission denied", "invalid token")
		return true
	}
	switch r.URL.Path {
	case "/v1/auth/token/renew-self":
		reply(w, given)
	case "/v1/auth/token/revoke-self":
		l.ended.Store(true)
		w.WriteHeader(http.StatusNoContent)
	default:
		return false
	}
	return true
}
