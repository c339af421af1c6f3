// Package vault logs in to Vault and OpenBao with a service account token. The
// kubernetes and the jwt method have one and the same login.
package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

// maxAnswer bounds what a login's answer takes in: it is that of all who share the
// login, and none of it is the mount's that happened to ask.
const maxAnswer = 1 << 20

// Method implements [auth.Method] and [auth.Renewer].
type Method struct {
	Conn      *vault.Conn
	Mount     string // of the auth method: kubernetes, jwt, ...
	Namespace string // Vault's; may hold {namespace}
	Now       func() time.Time
}

// Login implements [auth.Method]. It is sent again where no answer came: the mount
// would ask anew anyway.
func (m Method) Login(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (auth.Login, error) {
	began := m.Now()
	answer, err := m.Conn.Do(store.WithBudget(ctx, maxAnswer), vault.Request{
		Method: http.MethodPost, Path: "auth/" + m.Mount + "/login",
		Namespace: vault.Namespace(m.Namespace, identity.Namespace),
		Body:      map[string]string{"role": role, "jwt": string(token.Reveal())},
	})
	where := fmt.Sprintf("login as role %q at auth/%s", role, m.Mount)
	switch {
	// 400 is how both methods refuse a role or a token.
	case errors.Is(err, store.ErrDenied), errors.Is(err, vault.ErrRefused):
		return auth.Login{}, auth.Refused(fmt.Errorf("%w: %s: %s; the role has to exist there, be bound to service account %s/%s and accept audience %q (auth.mount in keymount.yaml names the method)",
			store.ErrDenied, where, withoutKind(err), identity.Namespace, identity.ServiceAccount, identity.Audience))
	case errors.Is(err, store.ErrNotFound):
		return auth.Login{}, auth.Refused(fmt.Errorf("%w: %s: nothing is mounted there; correct auth.mount of the store in keymount.yaml", store.ErrInvalid, where))
	case err != nil:
		return auth.Login{}, fmt.Errorf("%s: %w", where, err)
	case answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "":
		return auth.Login{}, fmt.Errorf("%w: %s: the answer holds no token", store.ErrInvalid, where)
	}
	return lives(secret.New([]byte(answer.Auth.ClientToken)), began, answer.Auth.LeaseDuration, answer.Auth.Renewable), nil
}

// lives is a login with the life that Vault gives it, counted from the time that
// it was asked for: it began no earlier.
func lives(token secret.Bytes, began time.Time, seconds int, renewable bool) auth.Login {
	login := auth.Login{Token: token, Renewable: renewable}
	if seconds > 0 {
		login.Expires = began.Add(time.Duration(seconds) * time.Second)
	}
	return login
}

// Renew implements [auth.Renewer]. The life that it asks for is the role's.
func (m Method) Renew(ctx context.Context, identity auth.Identity, login auth.Login) (auth.Login, error) {
	began := m.Now()
	answer, err := m.Conn.Do(store.WithBudget(ctx, maxAnswer), m.own(identity, login, "renew-self"))
	switch {
	case errors.Is(err, store.ErrDenied) && vault.HasEnded(err):
		return auth.Login{}, auth.Refused(fmt.Errorf("%w: renew a login of auth/%s: %s", store.ErrSession, m.Mount, withoutKind(err)))
	case errors.Is(err, store.ErrDenied), errors.Is(err, vault.ErrRefused):
		// No policy lets it renew itself, or Vault renews none of its kind: it lives on to
		// its end. Should it have ended, the next read finds out.
		return auth.Login{}, auth.Last(fmt.Errorf("renew a login of auth/%s: %w", m.Mount, err))
	case err != nil:
		return auth.Login{}, fmt.Errorf("renew a login of auth/%s: %w", m.Mount, err)
	case answer == nil || answer.Auth == nil:
		return auth.Login{}, fmt.Errorf("%w: renew a login of auth/%s: the answer says nothing of its life", store.ErrInvalid, m.Mount)
	}
	return lives(login.Token, began, answer.Auth.LeaseDuration, answer.Auth.Renewable), nil
}

// Revoke implements [auth.Renewer].
func (m Method) Revoke(ctx context.Context, identity auth.Identity, login auth.Login) error {
	if isBatch(login.Token) {
		return nil
	}
	_, err := m.Conn.Do(store.WithBudget(ctx, maxAnswer), m.own(identity, login, "revoke-self"))
	switch {
	case errors.Is(err, store.ErrDenied), errors.Is(err, vault.ErrRefused):
		return auth.Refused(fmt.Errorf("revoke a login of auth/%s: %w", m.Mount, err))
	case err != nil:
		return fmt.Errorf("revoke a login of auth/%s: %w", m.Mount, err)
	}
	return nil
}

// own is something that a token may do to itself. Doing it twice does no harm.
func (m Method) own(identity auth.Identity, login auth.Login, what string) vault.Request {
	return vault.Request{
		Method: http.MethodPost, Path: "auth/token/" + what,
		Namespace: vault.Namespace(m.Namespace, identity.Namespace), Token: login.Token,
	}
}

// isBatch tells a token that Vault keeps no record of: it ends by itself alone.
func isBatch(token secret.Bytes) bool {
	text := string(token.Reveal())
	return strings.HasPrefix(text, "hvb.") || strings.HasPrefix(text, "b.")
}

// withoutKind is what the server said, which has a kind of its own here.
func withoutKind(err error) string {
	text := err.Error()
	for _, kind := range []error{store.ErrDenied, store.ErrInvalid, vault.ErrRefused} {
		text = strings.TrimPrefix(text, kind.Error()+": ")
	}
	return text
}
