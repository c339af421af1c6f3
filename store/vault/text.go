package vault

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/store"
)

// textField is where a [Conn] puts an answer that is one text, and no JSON.
const textField = "\x00text"

// textPaths are the last segments of paths with one text for an answer: pki's endpoints
// for certificates and revocation lists, and the public key of ssh.
func textPaths() []string {
	return []string{"ca_chain", "pem", "der", "raw", "ca", "crl", "delta", "unified-crl", "public_key"}
}

// endsInText tells whether the answer for a path may be one text.
func endsInText(path string) bool {
	return slices.Contains(textPaths(), path[strings.LastIndexByte(path, '/')+1:])
}

// beginnings are those of Vault's texts of a type: any other text of that type is a
// stranger's.
func beginnings(contentType string) []string {
	const pem, der = "-----BEGIN ", "\x30"
	switch media, _, _ := mime.ParseMediaType(contentType); media {
	case "application/pem-certificate-chain", "application/x-pem-file":
		return []string{pem}
	case "application/pkix-cert", "application/pkix-crl": // ca_chain has PEM under this name
		return []string{pem, der}
	case "text/plain":
		return []string{"ssh-", "ecdsa-sha2-", "sk-"}
	}
	return nil
}

// hasText tells whether an answer is one text, as Vault's engines give it. The body can be
// read as before.
func hasText(response *http.Response) bool {
	const enough = 16
	expected := beginnings(response.Header.Get("Content-Type"))
	if response.StatusCode != http.StatusOK || expected == nil {
		return false
	}
	body := bufio.NewReader(response.Body)
	response.Body = struct {
		io.Reader
		io.Closer
	}{body, response.Body}
	start, _ := body.Peek(enough) // an error comes again at the next read
	return slices.ContainsFunc(expected, func(beginning string) bool { return bytes.HasPrefix(start, []byte(beginning)) })
}

// wants is the content of a good answer to a read of the place.
func (p place) wants() content {
	if p.engine == Other && endsInText(p.rest) {
		return ofText
	}
	return ofData
}

// textValue is the value of an answer that is one text, or says that there is none.
func (p place) textValue(answer *api.Secret) (text string, is bool, err error) {
	if answer == nil {
		if p.wants() == ofText {
			return "", false, store.NotFound.Errorf("the answer is empty: the engine has no such certificate, chain or list yet")
		}
		return "", false, nil
	}
	text, is = answer.Data[textField].(string)
	return text, is, nil
}
