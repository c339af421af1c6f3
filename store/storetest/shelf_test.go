package storetest_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

// shelf is a kind of store that can do everything, and breaks the contract in one thing
// when it has a flaw.
type shelf struct{ flaw string }

func (shelf) Name() string    { return "shelf" }
func (shelf) Example() string { return "shelf: {board: ...}" }

func (s shelf) Traits() kind.Traits {
	return kind.Traits{Roles: access.Optional, Logins: s.flaw != "traits without logins", Memory: true}
}

func (s shelf) New() kind.Settings {
	if s.flaw == "a field without a tag" {
		return &untagged{}
	}
	return &board{flaw: s.flaw}
}

type untagged struct {
	board `yaml:"board"`

	Field string
}

type board struct {
	Board string `yaml:"board"`
	CA    string `yaml:"caFile"`

	flaw  string
	calls int
}

func (b *board) Check(kind.Mistakes) {
	if b.Board == "" || b.flaw == "checks that add up" {
		b.Board += "default"
	}
}

func (b *board) Audience() string {
	return map[bool]string{true: "", false: "shelf"}[b.flaw == "no audience"]
}

func (b *board) Files() []*string {
	if b.flaw == "copies of files" {
		return []*string{new(b.CA)}
	}
	return []*string{&b.CA}
}

func (b *board) Fingerprint() []any {
	switch b.flaw {
	case "one fingerprint":
		return nil
	case "fingerprints by chance":
		return []any{time.Now()}
	}
	return []any{b.Board}
}

func (b *board) Path(text string) (store.Path, error) {
	b.calls++
	switch {
	case b.flaw == "paths that remember" && b.calls > 1:
		text += "again"
	case b.flaw == "paths that grow":
		text = "shelf/" + text
	case b.flaw == "a path beside a mistake" && text == "":
		path, _ := store.ParsePath("shelf")
		return path, errors.New("is empty")
	}
	return store.ParsePath(text)
}

func (b *board) IsText(store.Path) bool { return false }

func (b *board) Fits(kind.Place) bool { return b.flaw == "everywhere" }

func (b *board) Open(kind.Env) (kind.Layers, error) {
	shop := newShop(b.flaw)
	layers := kind.Layers{Store: shop, Resolver: shop, Leaser: shop, Login: shop}
	if b.flaw == "a nil ability" {
		layers.Recaller = (*recalls)(nil)
	}
	return layers, nil
}

type recalls struct{}

func (*recalls) Recall(store.Caller, store.Ref) (store.Value, bool) { return store.Value{}, false }

// shop is what an opened shelf asks.
type shop struct {
	*storetest.Memory
	flaw string

	mu    sync.Mutex
	ended map[string]bool // leases and logins
}

func newShop(flaw string) *shop {
	s := &shop{Memory: storetest.NewMemory(), flaw: flaw, ended: map[string]bool{}}
	s.Set("secret/db", map[string]any{"password": storetest.Canary})
	return s
}

// Read gives a lease with all that it reads below creds.
func (s *shop) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	if err := s.gone(caller.Login, "login"); err != nil {
		return store.Value{}, err
	}
	value, err := s.Memory.Read(ctx, caller, ref)
	if err == nil && strings.HasPrefix(ref.Path.String(), "creds/") {
		value.Lease = &store.Lease{ID: secret.New([]byte("lease-1")), Duration: time.Hour, Renewable: true}
	}
	return s.flawed(value, err)
}

func (s *shop) flawed(value store.Value, err error) (store.Value, error) {
	e, _ := errors.AsType[*store.Error](err)
	switch {
	case e == nil:
	case s.flaw == "a value beside an error":
		value.Version = "1"
	case s.flaw == "no reason":
		err = errors.New(e.Error())
	case s.flaw == "two reasons":
		e.Cause = map[bool]error{true: store.Denied, false: store.NotFound}[e.Reason == store.NotFound]
	case s.flaw == "a secret in an error":
		e.Cause = errors.New(storetest.Canary)
	case s.flaw == "uncertain of an answer":
		e.Uncertain = true
	case s.flaw == "a pause after an answer":
		e.RetryAfter = time.Second
	case s.flaw == "always unavailable":
		e.Reason = store.Unavailable
	}
	return value, err
}

// Faults leave a reason out that every subject has.
func (s *shop) Faults() storetest.Faults {
	faults := s.Memory.Faults()
	faults.Never = map[string][]store.Reason{
		"never not found": {store.NotFound}, "never unavailable": {store.Unavailable}, "never silent": {store.Unavailable}, "never denied": {store.Denied},
	}[s.flaw]
	return faults
}

// ask is a request of the shop's that is no read.
func (s *shop) ask(ctx context.Context) error {
	path, _ := store.ParsePath("secret/db")
	_, err := s.Memory.Read(ctx, store.Caller{}, store.Ref{Path: path})
	return err
}

func (s *shop) Resolve(ctx context.Context, _ store.Caller, ref store.Ref) (store.Resolved, error) {
	if err := s.ask(ctx); err != nil {
		return store.Resolved{}, err
	}
	text, isLiteral := ref.Path.String(), ref.Path.Segments()[0] == "sys"
	switch s.flaw {
	case "spellings that are kept":
	case "paths that resolve on":
		text += "/on"
	default:
		text = strings.Replace(text, "secret/data/", "secret/", 1)
	}
	path, _ := store.ParsePath(text)
	resolved := store.Resolved{Path: path}
	if isLiteral {
		resolved.Literal = map[bool]string{true: "other", false: "sys"}[s.flaw == "a literal elsewhere"]
	}
	return resolved, nil
}

// gone tells whether a lease or a login has ended.
func (s *shop) gone(id secret.Bytes, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := string(id.Reveal())
	switch {
	case text == "" && name == "login": // the kind's suite opens without one
		return nil
	case !s.ended[text] && strings.HasPrefix(text, name+"-"):
		return nil
	case s.flaw == "a token in an error":
		return store.Invalid.Errorf("no %s %s", name, text)
	}
	return store.Invalid.Errorf("no such %s", name)
}

func (s *shop) Renew(ctx context.Context, _ store.Caller, lease store.Lease) (store.Lease, error) {
	if err := s.ask(ctx); err != nil {
		return store.Lease{}, err
	}
	if err := s.gone(lease.ID, "lease"); err != nil && s.flaw != "leases that live on" {
		return store.Lease{}, err
	}
	lease.Duration /= 2
	if s.flaw == "leases that grow" {
		lease.Duration *= 4
	}
	return lease, nil
}

func (s *shop) Revoke(ctx context.Context, _ store.Caller, lease store.Lease) error {
	if err := s.ask(ctx); err != nil {
		return err
	}
	return s.end(lease.ID, "lease")
}

func (s *shop) end(id secret.Bytes, name string) error {
	err := s.gone(id, name)
	if err != nil && s.flaw == "an end that fails again" {
		return store.Unavailable.Errorf("end it")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[string(id.Reveal())] = true
	return err
}

// logins are those of a shop.
type logins struct{ *shop }

func (l logins) given() login.Login {
	life := time.Hour
	if l.flaw == "logins that have ended" {
		life = -life
	}
	return login.Login{Token: secret.New([]byte("login-1")), Expires: time.Now().Add(life), Renewable: true}
}

// Login knows one token, and the role "reader" or none.
func (s *shop) Login(ctx context.Context, _ auth.Identity, token secret.Bytes, role string) (login.Login, error) {
	switch text := string(token.Reveal()); {
	case text != "proof":
		return login.Login{}, s.refusal(text)
	case role != "" && role != "reader":
		return login.Login{}, s.refusal(role)
	}
	if err := s.ask(ctx); err != nil {
		return login.Login{}, err
	}
	return logins{s}.given(), nil
}

func (s *shop) refusal(text string) error {
	switch s.flaw {
	case "a token in an error":
		return store.Denied.Errorf("log in with %s", text)
	case "no answer to a bad token":
		return store.Unavailable.Errorf("log in")
	}
	return store.Denied.Errorf("log in")
}

// Renew implements [login.Renewer].
func (l logins) Renew(ctx context.Context, _ auth.Identity, old login.Login) (login.Login, error) {
	if err := l.ask(ctx); err != nil {
		return login.Login{}, err
	}
	if err := l.gone(old.Token, "login"); err != nil && l.flaw != "logins that live on" {
		return login.Login{}, err
	}
	renewed := l.given()
	if l.flaw == "renewed into another" {
		renewed.Token = secret.New([]byte("other"))
	}
	return renewed, nil
}

// Revoke implements [login.Renewer].
func (l logins) Revoke(ctx context.Context, _ auth.Identity, old login.Login) error {
	if err := l.ask(ctx); err != nil {
		return err
	}
	return l.end(old.Token, "login")
}

// suites runs all suites on a shelf.
func suites(t *testing.T, flaw string) {
	t.Helper()
	t.Run("Kind", func(t *testing.T) {
		storetest.Kind(t, storetest.KindSubject{
			Kind: shelf{flaw}, Settings: "board: upper\ncaFile: ca.pem", Elsewhere: "board: lower\ncaFile: ca.pem", Paths: []string{"secret/db"},
		})
	})
	t.Run("Read", func(t *testing.T) {
		storetest.Read(t, func(_ *testing.T, secrets map[string]map[string]any) storetest.Subject {
			s := newShop(flaw)
			for path, data := range secrets {
				s.Set(path, data)
			}
			return storetest.Subject{Store: s, Faults: s.Faults()}
		})
	})
	t.Run("Resolver", func(t *testing.T) {
		storetest.Resolver(t, func(*testing.T) storetest.ResolverSubject {
			s := newShop(flaw)
			return storetest.ResolverSubject{
				Resolver: s, Faults: s.Faults(), Reads: func() int { return 0 },
				Spellings: []string{"secret/db", "secret/data/db"}, Literals: []string{"sys/mounts"},
			}
		})
	})
	t.Run("Leaser", func(t *testing.T) {
		storetest.Leaser(t, func(*testing.T) storetest.LeaserSubject {
			s := newShop(flaw)
			s.Set("creds/db", map[string]any{"password": storetest.Canary})
			return storetest.LeaserSubject{Subject: storetest.Subject{Store: s, Faults: s.Faults()}, Leaser: s, Makes: "creds/db"}
		})
	})
	t.Run("Login", func(t *testing.T) {
		storetest.Login(t, func(t *testing.T) storetest.LoginSubject {
			t.Helper()
			s := newShop(flaw)
			return storetest.LoginSubject{
				Method: renewable{s, logins{s}}, Token: secret.New([]byte("proof")), Role: "reader", UnknownRole: "writer", Now: time.Now, Faults: s.Faults(),
				Use: func(ctx context.Context, l login.Login) error {
					path, _ := store.ParsePath("secret/db")
					_, err := s.Read(ctx, store.Caller{Login: l.Token}, store.Ref{Path: path})
					return err
				},
			}
		})
	})
}

// renewable is a way to log in whose logins can be renewed.
type renewable struct {
	login.Method
	login.Renewer
}
