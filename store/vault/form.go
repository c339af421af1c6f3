package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/internal/secret"
)

// content is what a good answer to a request holds. It is how an answer of Vault is told
// from that of a stranger, such as a proxy, an ingress or a login page, which may have any
// status.
type content int

const (
	ofWrite   content = iota // like ofData, or nothing
	ofData                   // data, or a warning in its place
	ofText                   // like ofData, or nothing; a text is no JSON, see [hasText]
	ofKV2                    // a secret with its metadata
	ofLogin                  // auth
	ofLease                  // the life of a lease
	ofMount                  // the path and the type of a mount
	ofNothing                // nothing, or a warning
	ofHealth                 // the state of the server
)

// form is that of a value in JSON.
type form int

const (
	isAbsent form = iota
	isObject
	isList
	isText
	isNull
	isNumber
	isBoolean
)

// members are those of a JSON object. Vault's names have one spelling each.
type members map[string]any

func (m members) form(name string) form {
	value, found := m[name]
	if !found {
		return isAbsent
	}
	switch value.(type) {
	case map[string]any:
		return isObject
	case []any:
		return isList
	case string:
		return isText
	case json.Number:
		return isNumber
	case bool:
		return isBoolean
	}
	return isNull
}

// object are the members of a member; none if it is no object.
func (m members) object(name string) members {
	object, _ := m[name].(map[string]any)
	return object
}

// names are those of nearly every answer.
const names = "request_id lease_id renewable lease_duration data wrap_info warnings auth mount_type " +
	"metadata created_time custom_metadata deletion_time destroyed version"

// parse reads a JSON object and keeps numbers as they were written.
func parse(body []byte) (members, error) {
	value, err := secret.Decode(body, names)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	top, isObject := value.(map[string]any)
	if !isObject {
		return nil, errNoObject
	}
	return top, nil
}

var (
	errNoObject = errors.New("something else than one JSON object")
	errForm     = errors.New("a member of another type than Vault's")
)

// isVaults tells whether an answer has the form of Vault's own, and OpenBao's: it and
// [content.isOf] are the one judge of that, whatever the status and the request.
func (c content) isVaults(status int, body []byte) bool {
	if len(bytes.TrimSpace(body)) == 0 {
		return status == http.StatusNoContent && (c == ofWrite || c == ofText || c == ofNothing)
	}
	top, err := parse(body)
	return err == nil && c.isOf(status, top)
}

// isOf tells it of an answer that has members. Errors are a list of texts; what succeeds is
// an envelope that holds what was asked for; nothing at all is said only where there is
// nothing to say.
func (c content) isOf(status int, top members) bool {
	switch {
	case c == ofHealth && top.form("initialized") == isBoolean && top.form("sealed") == isBoolean:
		return true
	case !isGood(status):
		return top.areErrors() || status == http.StatusNotFound && (top.isEnvelope() || c == ofKV2 && top.areKnown() && top.isVersion())
	case !top.areKnown() && !top.isEnvelope():
		return false
	}
	return c.isIn(top)
}

func isGood(status int) bool { return status >= http.StatusOK && status < http.StatusMultipleChoices }

// isIn tells whether an envelope holds what was asked for.
func (c content) isIn(top members) bool {
	data, inner := top.form("data"), top.object("data")
	switch c {
	case ofData, ofText, ofWrite:
		return data == isObject || data != isList && top.saysNothing()
	case ofKV2:
		return data == isObject && (inner.form("data") == isObject || inner.form("metadata") == isObject) ||
			data != isObject && data != isList && top.saysNothing()
	case ofLogin:
		auth := top.object("auth")
		return auth.form("client_token") == isText || auth.form("lease_duration") == isNumber
	case ofLease:
		return top.form("lease_duration") == isNumber
	case ofMount:
		return inner.form("path") == isText && inner.form("type") == isText
	case ofNothing:
		return top.saysNothing()
	case ofHealth: // which has another form
	}
	return false
}

// saysNothing tells whether they may be an answer without data: Vault's envelope, or a
// warning.
func (m members) saysNothing() bool { return m.isEnvelope() || m.form("warnings") == isList }

// areKnown tells whether all are of Vault's envelope or its errors.
func (m members) areKnown() bool {
	for name := range m {
		switch name {
		case "request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth", "mount_type", "errors":
		default:
			return false
		}
	}
	return true
}

// isEnvelope tells whether what Vault puts around every answer is there. Of sys/ there is
// more beside it.
func (m members) isEnvelope() bool {
	return m.form("request_id") == isText && m.form("lease_id") == isText && m.form("lease_duration") == isNumber
}

// areErrors tells whether there is a list of texts and nothing that Vault would not say
// beside it. The list may be empty: so Vault says that there is no such secret.
func (m members) areErrors() bool {
	list, _ := m["errors"].([]any)
	for _, one := range list {
		if _, isText := one.(string); !isText {
			return false
		}
	}
	return m.areKnown() && (m.form("errors") == isList || m.form("errors") == isNull && len(m) == 1)
}

// isVersion tells whether it is about a version of a KV v2 secret that was deleted.
func (m members) isVersion() bool {
	about := m.object("data").object("metadata")
	return about.form("destroyed") == isBoolean || about.form("deletion_time") == isText
}

// secret is an answer in the terms of Vault's own client. A member that is null has the zero
// value of its type, and one of another type is an error.
func (m members) secret() (*api.Secret, error) {
	s, duration, warnings := api.Secret{Data: m.object("data")}, json.Number("0"), []any(nil)
	fits := take(m, "request_id", &s.RequestID) && take(m, "lease_id", &s.LeaseID) && take(m, "renewable", &s.Renewable) &&
		take(m, "mount_type", &s.MountType) && take(m, "lease_duration", &duration) && take(m, "warnings", &warnings)
	if !fits {
		return nil, errForm
	}
	seconds, err := strconv.Atoi(string(duration))
	if err != nil {
		return nil, errForm
	}
	s.LeaseDuration = seconds
	for _, warning := range warnings {
		text, isText := warning.(string)
		if !isText && warning != nil {
			return nil, errForm
		}
		s.Warnings = append(s.Warnings, text)
	}
	if m["auth"] == nil && m["wrap_info"] == nil { // as of every read
		return &s, nil
	}
	text := secret.AppendJSON(nil, map[string]any{"auth": m["auth"], "wrap_info": m["wrap_info"]})
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return &s, nil
}

// take puts a member into to, which stays as it is for none and for null; false for a member
// of another type.
func take[T any](m members, name string, to *T) (fits bool) {
	member := m[name]
	if member == nil {
		return true
	}
	value, fits := member.(T)
	if fits {
		*to = value
	}
	return fits
}

// beginsLikeVaults tells it of an answer that is too long to be read: Vault's JSON begins
// with a member of its envelope.
func beginsLikeVaults(body []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(body))
	if begin, err := decoder.Token(); err != nil || begin != json.Delim('{') {
		return false
	}
	first, err := decoder.Token()
	name, isName := first.(string)
	return err == nil && isName && members{name: nil}.areKnown()
}

// looksLike names the content of an answer that is none of Vault's.
func looksLike(body []byte) string {
	text := bytes.ToLower(bytes.TrimSpace(body))
	switch {
	case len(text) == 0:
		return "no content"
	case bytes.HasPrefix(text, []byte("<?xml")):
		return "XML"
	case bytes.HasPrefix(text, []byte("<")):
		return "HTML"
	case json.Valid(body):
		return "JSON of another form"
	case text[0] == '{':
		return "broken JSON"
	}
	return "text"
}
