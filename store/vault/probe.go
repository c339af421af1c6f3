package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/keymount/keymount/store"
)

// maxHealth is more than Vault says of its health.
const maxHealth = 64 << 10

// Probe asks for the server's health, which takes no token. Any answer of Vault's own
// form is one, also that of a sealed server or of a standby. It implements the Probe of
// kind.Layers: what a person has to put right, since waiting does not, is a certificate
// that is not trusted or has another name, on either side, and files that cannot be used.
func (c *Conn) Probe(ctx context.Context) error {
	if err := c.pool.misfit(); err != nil {
		return &store.Error{Reason: store.Invalid, Said: "the files of the connection are not used as they are now", Cause: err}
	}
	var silent, wrong []string
	for i, base := range c.bases {
		err := c.health(ctx, i)
		switch {
		case err == nil:
			return nil
		case isMistrust(err):
			wrong = append(wrong, base.Host+": "+reason(err))
		default:
			silent = append(silent, silenceOf(base.Host, err))
		}
	}
	if len(wrong) > 0 {
		return store.Invalid.Errorf("%s; correct addresses, caFile, certFile or serverName of the store in keymount.yaml, or the certificate", strings.Join(wrong, "; "))
	}
	return store.Unavailable.Errorf("%s", strings.Join(silent, "; "))
}

// silenceOf is what an address said in place of an answer, or why it said nothing.
func silenceOf(host string, err error) string {
	if e, ok := errors.AsType[*store.Error](err); ok {
		return e.Said
	}
	return host + ": " + reason(err)
}

// health is nil when one address gave an answer.
func (c *Conn) health(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	asked := Request{Method: http.MethodGet, Path: "sys/health", Wants: ofHealth}
	request, err := c.request(ctx, i, asked)
	if err != nil {
		return err
	}
	response, err := c.pool.RoundTrip(request)
	if err != nil {
		return err //nolint:wrapcheck // Probe sorts the network's errors
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxHealth))
	if err != nil {
		return err //nolint:wrapcheck // like those above
	}
	own := answer{Response: response, body: body, host: c.bases[i].Host, to: asked}
	if !own.isVaults() {
		return own.stranger(looksLike(body))
	}
	return nil
}

// isMistrust tells whether one side does not accept the other's certificate or name.
func isMistrust(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	// The other side's word is of a type that has no name outside the library.
	said, ok := errors.AsType[*net.OpError](err)
	if !ok || said.Op != "remote error" {
		return false
	}
	text := said.Err.Error()
	return strings.Contains(text, "certificate") || strings.Contains(text, "unrecognized name") || strings.Contains(text, "access denied")
}
