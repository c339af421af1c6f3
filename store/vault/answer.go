package vault

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/internal/turns"
	"github.com/keymount/keymount/store"
)

// read turns an answer into a secret, or into an error of the right kind. A large answer
// is read in its turn. What a server says goes through the words of r, see
// [Request.words].
func (c *Conn) read(ctx context.Context, i int, r Request, response *http.Response) (read *api.Secret, err error) {
	a := answer{Response: response, host: c.bases[i].Host, to: r, isText: r.Wants == ofText && hasText(response)}
	limit := cmp.Or(r.Limit, maxBody)
	body := &limited{Reader: response.Body, left: limit}
	var failed error
	most := limit
	if length := response.ContentLength; length >= 0 {
		most = min(most, length)
	}
	err = c.answers.Read(ctx, turns.Of{Namespace: r.For}, body, int(most)+1, func(text []byte) {
		a.body = text
		read, failed = a.read()
	})
	isOurs := func() bool { return a.isText || isGood(a.StatusCode) && beginsLikeVaults(body.began()) }
	switch long, heavy := errors.Is(err, errTooLong), errors.Is(err, room.ErrTooLarge); {
	case long && isOurs():
		return nil, store.Invalid.Errorf("%s answers with more than %d bytes", a.host, limit)
	case long:
		return nil, a.stranger(fmt.Sprintf("more than %d bytes", limit))
	case heavy && isOurs():
		return nil, &store.Error{Reason: store.Invalid, Cause: err}
	case heavy:
		return nil, a.stranger("JSON of another form")
	case errors.Is(err, room.ErrNoPlace): // no fault of the server
		return nil, &store.Error{Reason: store.Unavailable, Uncertain: r.Once, Cause: err}
	case err != nil:
		return nil, newSilence(r.Once, a.host+": the answer breaks off", reasons{}, err)
	}
	return read, failed
}

// read is that of an answer whose text is there.
func (a answer) read() (*api.Secret, error) {
	text := bytes.TrimSpace(a.body)
	switch {
	case a.isText:
		return &api.Secret{Data: map[string]any{textField: string(a.body)}}, nil
	case !isGood(a.StatusCode):
		return nil, a.refusal()
	case len(text) == 0 && a.isVaults():
		return nil, nil //nolint:nilnil // an answer without a body is a legal one
	case !bytes.HasPrefix(text, []byte("{")):
		return nil, a.stranger(looksLike(a.body))
	}
	top, err := parse(a.body)
	if err != nil || !a.to.Wants.isOf(a.StatusCode, top) {
		return nil, a.stranger(looksLike(a.body))
	}
	parsed, err := top.secret()
	if err != nil {
		return nil, a.stranger(looksLike(a.body))
	}
	if a.to.also != nil {
		a.to.also(top)
	}
	return parsed, nil
}

// answer is what came from an address, Vault's or a stranger's.
type answer struct {
	*http.Response
	body   []byte
	host   string
	to     Request
	isText bool // and no JSON, see [hasText]
}

func (a answer) isVaults() bool { return a.to.Wants.isVaults(a.StatusCode, a.body) }

// refusal sorts the statuses: 400, 403 and 404 are answers, 412, 429 and 5xx ask
// for patience. A 403 that names the token is Ended.
func (a answer) refusal() error {
	said := a.reasons()
	err := a.byStatus(said)
	e, _ := errors.AsType[*store.Error](err)
	e.RequestID = said.requestID
	if pause, bad := strconv.Atoi(a.Header.Get("Retry-After")); bad == nil && pause > 0 && e.Reason == store.Unavailable {
		e.RetryAfter = time.Duration(pause) * time.Second
		if _, silent := errors.AsType[*silence](err); silent { // it may be back any time
			e.RetryAfter = min(e.RetryAfter, pauseMost)
		}
	}
	return err
}

func (a answer) byStatus(said reasons) error {
	answers := fmt.Sprintf("%s answers %d", a.host, a.StatusCode)
	switch status := a.StatusCode; {
	case !a.isVaults() && (!isPatience(status) || !saysNothing(a.body)):
		return a.stranger(looksLike(a.body))
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		if said.tokenEnded {
			return &store.Error{Reason: store.Ended, Said: said.after("")}
		}
		return &store.Error{Reason: store.Denied, Said: said.after("")}
	case status == http.StatusNotFound:
		return &store.Error{Reason: store.NotFound, Said: said.after(a.to.words().clean(gone(a.body)))}
	case isRefusedUnasked(status):
		return &store.Error{Reason: store.Unavailable, Said: said.after(answers)}
	case status == http.StatusServiceUnavailable && (said.sealed || isSealed(a.body)):
		return newSilence(false, a.host+" is sealed; unseal it", reasons{}, nil)
	case status >= http.StatusInternalServerError:
		return newSilence(a.to.Once, answers, said, nil)
	case status == http.StatusBadRequest:
		return &store.Error{Reason: store.Invalid, Cause: badRequest{said.after(answers)}}
	default:
		return &store.Error{Reason: store.Invalid, Said: said.after(answers)}
	}
}

// stranger is the error of an answer that is none of Vault's: the store gave none. A
// server error counts for the breaker as it does when Vault's own; any other comes at once
// and may be about one path alone, so that the address is not doubted for it. It may come
// when Vault has already done what it was asked, as from a proxy that dislikes the answer.
func (a answer) stranger(content string) error {
	answers := fmt.Sprintf("%s answers %d", a.host, a.StatusCode)
	more := " with " + content + " in place of Vault's own answer"
	if server := a.Header.Get("Server"); server != "" {
		more += " (its header Server is \"" + a.to.words().short(server) + "\")"
	}
	more += "; is there a proxy, an ingress, a service mesh or a login page in between, or another server at this address of keymount.yaml?"
	uncertain := a.to.Once && !isRefusedUnasked(a.StatusCode)
	if a.StatusCode >= http.StatusInternalServerError {
		return newSilence(uncertain, answers, reasons{text: more, joined: true}, nil)
	}
	return &stranger{&store.Error{Reason: store.Unavailable, Said: answers + more, Uncertain: uncertain}}
}

// stranger is the error of an address that answers at once, and not as Vault does.
type stranger struct{ failure *store.Error }

func (s *stranger) Error() string { return s.failure.Error() }

func (s *stranger) Unwrap() error { return s.failure }

func saysNothing(body []byte) bool {
	text := string(bytes.TrimSpace(body))
	return text == "" || text == "{}"
}

// isPatience tells the statuses that ask for it, with or without a word.
func isPatience(status int) bool {
	return isRefusedUnasked(status) || status >= http.StatusInternalServerError
}

// isRefusedUnasked tells the statuses of what was refused before anything was done.
func isRefusedUnasked(status int) bool {
	switch status {
	case http.StatusPreconditionFailed, http.StatusTooManyRequests, statusSecondary, statusStandby:
		return true
	}
	return isRedirect(status)
}

// isSealed reads an answer about the server's health.
func isSealed(body []byte) bool {
	var health struct {
		Sealed bool `json:"sealed"`
	}
	return json.Unmarshal(body, &health) == nil && health.Sealed
}

// badRequest is a 400 of Vault's own; a refused login is one, too.
type badRequest struct{ said string }

func (b badRequest) Error() string { return "refused: " + b.said }

// The answers of a secondary for disaster recovery and of a performance standby.
const (
	statusSecondary = 472
	statusStandby   = 473
)

// listHead is the beginning of Vault's lists of errors: "2 errors occurred:\n\t* ".
var listHead = regexp.MustCompile(`\d+ errors? occurred:\s*\* `)

// reasons are the errors and warnings of an answer, as Vault words them.
type reasons struct {
	text       string
	requestID  string
	tokenEnded bool // Vault does not know the token any more
	sealed     bool
	joined     bool // the text begins with a space
}

// reasons are those of an answer of Vault's own.
func (a answer) reasons() reasons {
	var answer struct {
		Errors    []string `json:"errors"`
		Warnings  []string `json:"warnings"`
		RequestID string   `json:"request_id"`
	}
	if json.Unmarshal(a.body, &answer) != nil {
		return reasons{}
	}
	words := a.to.words()
	said := listHead.ReplaceAllString(strings.Join(append(answer.Errors, answer.Warnings...), "; "), "")
	said = strings.ReplaceAll(strings.TrimSpace(said), "\n\t* ", "; ")
	return reasons{
		text: words.clean(said), requestID: words.id(answer.RequestID), sealed: strings.Contains(said, "sealed"),
		tokenEnded: strings.Contains(said, "invalid token") || strings.Contains(said, "bad token"),
	}
}

// after puts the reasons behind a text.
func (r reasons) after(text string) string {
	switch {
	case r.text == "", r.joined:
		return strings.TrimSpace(text + r.text)
	case text == "":
		return r.text
	}
	return text + ": " + r.text
}

// gone describes a deleted version of a KV v2 secret; empty for one that never was.
func gone(body []byte) string {
	var answer struct {
		Data struct {
			Metadata struct {
				DeletionTime string      `json:"deletion_time"`
				Destroyed    bool        `json:"destroyed"`
				Version      json.Number `json:"version"`
			} `json:"metadata"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return ""
	}
	switch m := answer.Data.Metadata; {
	case m.Destroyed:
		return fmt.Sprintf("version %s was destroyed", m.Version)
	case m.DeletionTime != "":
		return fmt.Sprintf("version %s was deleted at %s; 'vault kv undelete' brings it back", m.Version, m.DeletionTime)
	}
	return ""
}
