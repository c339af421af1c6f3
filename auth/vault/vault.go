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

// Method implements [auth.Method].
type Method struct {
	Conn      *vault.Conn
	Mount     string // of the auth method: kubernetes, jwt, ...
	Namespace string // Vault's; may hold {namespace}
	Now       func() time.Time
}

// Login implements [auth.Method].
func (m Method) Login(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (auth.Login, error) {
	answer, err := m.Conn.Do(ctx, vault.Request{
		Method: http.MethodPost, Path: "auth/" + m.Mount + "/login",
		Namespace: vault.Namespace(m.Namespace, identity.Namespace),
		Body:      map[string]string{"role": role, "jwt": string(token.Reveal())},
	})
	where := fmt.Sprintf("login as role %q at auth/%s", role, m.Mount)
	switch {
	// 400 is how both methods refuse a role or a token.
	case errors.Is(err, store.ErrDenied), errors.Is(err, vault.ErrRefused):
		return auth.Login{}, fmt.Errorf("%w: %s: %s; the role has to exist there, be bound to service account %s/%s and accept audience %q (auth.mount in keymount.yaml names the method)",
			store.ErrDenied, where, withoutKind(err), identity.Namespace, identity.ServiceAccount, identity.Audience)
	case errors.Is(err, store.ErrNotFound):
		return auth.Login{}, fmt.Errorf("%w: %s: nothing is mounted there; correct auth.mount of the store in keymount.yaml", store.ErrInvalid, where)
	case err != nil:
		return auth.Login{}, fmt.Errorf("%s: %w", where, err)
	case answer == nil || answer.Auth == nil || answer.Auth.ClientToken == "":
		return auth.Login{}, fmt.Errorf("%w: %s: the answer holds no token", store.ErrInvalid, where)
	}
	login := auth.Login{Token: secret.New([]byte(answer.Auth.ClientToken))}
	if answer.Auth.LeaseDuration > 0 {
		login.Expires = m.Now().Add(time.Duration(answer.Auth.LeaseDuration) * time.Second)
	}
	return login, nil
}

// withoutKind is what the server said, which has a kind of its own here.
func withoutKind(err error) string {
	text := err.Error()
	for _, kind := range []error{store.ErrDenied, store.ErrInvalid, vault.ErrRefused} {
		text = strings.TrimPrefix(text, kind.Error()+": ")
	}
	return text
}
