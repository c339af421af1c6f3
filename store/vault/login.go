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
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// maxLogin bounds the text of an answer about a login, in bytes.
const maxLogin = 1 << 20

// Method implements [login.Method] and [login.Renewer]. The kubernetes and the jwt
// method log in alike.
type Method struct {
	Conn      *Conn
	Mount     string // of the auth method: kubernetes, jwt, ...
	Namespace string // Vault's, that the method is mounted in; may hold {namespace}
	Now       func() time.Time
}

// Login implements [login.Method]. Without an answer it is sent again: the driver would
// repeat the mount anyway.
func (m Method) Login(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (login.Login, error) {
	began := m.Now()
	var uses int64 // how often the token can be used; 0 is without end
	answer, err := m.Conn.Do(ctx, Request{
		Method: http.MethodPost, Path: "auth/" + m.Mount + "/login",
		Namespace: Namespace(m.Namespace, identity.Namespace),
		Body:      map[string]string{"role": role, "jwt": string(token.Reveal())},
		Wants:     ofLogin, Public: []string{role}, also: func(top members) { uses, _ = number(top.object("auth")["num_uses"]) },
		For: identity.Namespace, Limit: maxLogin,
	})
	where := fmt.Sprintf("login as role %q at auth/%s", role, m.Mount)
	switch said, no := refusedLogin(err); {
	case no:
		return login.Login{}, store.Denied.Errorf("%s: %s; the role has to exist there, be bound to service account %s/%s and accept audience %q (auth.mount in keymount.yaml names the method)",
			where, said, identity.Namespace, identity.ServiceAccount, identity.Audience)
	case errors.Is(err, store.NotFound):
		return login.Login{}, store.Invalid.Errorf("%s: nothing is mounted there; correct auth.mount of the store in keymount.yaml", where)
	case err != nil:
		return login.Login{}, fmt.Errorf("%s: %w", where, err)
	case answer.Auth.ClientToken == "":
		return login.Login{}, store.Invalid.Errorf("%s: the answer holds no token", where)
	case uses > 0:
		_ = m.Revoke(ctx, identity, login.Login{Token: secret.New([]byte(answer.Auth.ClientToken))}) // or else it expires
		return login.Login{}, store.Invalid.Errorf("%s: its tokens end after %d uses, and all pods of a service account read with one, again and again; set token_num_uses of the role to 0",
			where, uses)
	}
	return newLogin(secret.New([]byte(answer.Auth.ClientToken)), began, answer.Auth.LeaseDuration, answer.Auth.Renewable), nil
}

// refusedLogin tells whether Vault refused a login, and in which words: by 403, or by
// 400, the answer of both methods to a wrong role or token.
func refusedLogin(err error) (said string, no bool) {
	if bad, ok := errors.AsType[badRequest](err); ok {
		return bad.said, true
	}
	if e := denial(err); e != nil {
		return e.Said, true
	}
	return "", false
}

// newLogin has the life that Vault gave it, counted from the request: it began no
// earlier.
func newLogin(token secret.Bytes, began time.Time, seconds int, renewable bool) login.Login {
	l := login.Login{Token: token, Renewable: renewable}
	if seconds > 0 {
		l.Expires = began.Add(time.Duration(seconds) * time.Second)
	}
	return l
}

// Renew implements [login.Renewer]. It asks for the life that the role sets. A denial
// without a word about the token may be a policy's: should the login have ended, the
// next read finds out.
func (m Method) Renew(ctx context.Context, identity auth.Identity, l login.Login) (login.Login, error) {
	began := m.Now()
	answer, err := m.Conn.Do(ctx, m.own(identity, l, "renew-self", ofLogin))
	if err != nil {
		return login.Login{}, fmt.Errorf("renew a login of auth/%s: %w", m.Mount, refusedTask(err))
	}
	return newLogin(l.Token, began, answer.Auth.LeaseDuration, answer.Auth.Renewable), nil
}

// Revoke implements [login.Renewer].
func (m Method) Revoke(ctx context.Context, identity auth.Identity, l login.Login) error {
	if isBatch(l.Token) {
		return nil
	}
	if _, err := m.Conn.Do(ctx, m.own(identity, l, "revoke-self", ofNothing)); err != nil {
		return fmt.Errorf("revoke a login of auth/%s: %w", m.Mount, refusedTask(err))
	}
	return nil
}

// refusedTask says of a 400 that it is a refusal, as for a token with an end that no
// renewal moves: asking again changes nothing.
func refusedTask(err error) error {
	if bad, ok := errors.AsType[badRequest](err); ok {
		return &store.Error{Reason: store.Denied, Said: bad.said}
	}
	return err
}

// own is a task of a token on itself. Doing it twice does no harm.
func (m Method) own(identity auth.Identity, l login.Login, task string, wants content) Request {
	return Request{
		Method: http.MethodPost, Path: "auth/token/" + task,
		Namespace: Namespace(m.Namespace, identity.Namespace), Token: l.Token, Wants: wants,
		For: identity.Namespace, Limit: maxLogin,
	}
}

// isBatch tells a batch token. Vault keeps no record of it, so that it only expires.
func isBatch(token secret.Bytes) bool {
	text := string(token.Reveal())
	return strings.HasPrefix(text, "hvb.") || strings.HasPrefix(text, "b.")
}
