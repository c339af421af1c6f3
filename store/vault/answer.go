package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/store"
)

// read turns an answer into a secret, or into an error of the right kind. once
// says that the request must not be sent again if it may have been carried out.
func read(ctx context.Context, response *http.Response, host string, once bool) (*api.Secret, error) {
	body, err := io.ReadAll(response.Body)
	switch {
	case errors.Is(err, errTooLong):
		return nil, fmt.Errorf("%w: %s answers with more than %d bytes", store.ErrInvalid, host, maxBody)
	case err != nil:
		return nil, newSilence(carried(once), host+": the answer breaks off", "", err)
	case response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusMultipleChoices:
		return nil, refusal(response, body, host, once)
	case len(bytes.TrimSpace(body)) == 0:
		return nil, nil //nolint:nilnil // an answer without a body is a legal one
	}
	if err := store.Spend(ctx, len(body)); err != nil {
		return nil, err
	}
	answer, err := parse(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %s answers with something that is not Vault's JSON%s", store.ErrInvalid, host, looksLike(body))
	}
	return answer, nil
}

// parse keeps numbers as they were written.
func parse(body []byte) (*api.Secret, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var s api.Secret
	if err := decoder.Decode(&s); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return &s, nil
}

func looksLike(body []byte) string {
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
		return " but HTML; is there a proxy in between, or another server at this address?"
	}
	return ""
}

// refusal sorts the statuses: 400, 403 and 404 are answers, 412, 429 and 5xx ask
// for patience.
func refusal(response *http.Response, body []byte, host string, once bool) error {
	said := reasons(body)
	switch status := response.StatusCode; {
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return fmt.Errorf("%w%s", store.ErrDenied, said)
	case status == http.StatusNotFound:
		return fmt.Errorf("%w%s%s", store.ErrNotFound, gone(body), said)
	case status == http.StatusPreconditionFailed, status == http.StatusTooManyRequests, status == statusStandby:
		// Refused before anything was done.
		return patience(fmt.Errorf("%w: %s answers %d%s", store.ErrUnavailable, host, status, said), response)
	case status == http.StatusServiceUnavailable && isSealed(body, said):
		return patience(newSilence(store.ErrUnavailable, host+" is sealed; unseal it", "", nil), response)
	case status >= http.StatusInternalServerError:
		return patience(newSilence(carried(once), fmt.Sprintf("%s answers %d", host, status), said, nil), response)
	case status == http.StatusBadRequest && json.Valid(body):
		return fmt.Errorf("%w: %w: %s answers %d%s", store.ErrInvalid, ErrRefused, host, status, said)
	default:
		return fmt.Errorf("%w: %s answers %d%s", store.ErrInvalid, host, status, said)
	}
}

// isSealed tells it from what a request is told, and from what is told of the
// server's health.
func isSealed(body []byte, said string) bool {
	var health struct {
		Sealed bool `json:"sealed"`
	}
	return strings.Contains(said, "sealed") || json.Unmarshal(body, &health) == nil && health.Sealed
}

// ErrRefused marks a 400 of Vault's own, which is how a login is refused.
var ErrRefused = errors.New("refused")

// statusStandby is what a performance standby answers.
const statusStandby = 473

// carried is the kind of an error after which nobody knows whether the request
// was carried out.
func carried(once bool) error {
	if once {
		return store.Uncertain(store.ErrUnavailable)
	}
	return store.ErrUnavailable
}

// counted is how Vault begins a list of errors: "2 errors occurred:\n\t* ".
var counted = regexp.MustCompile(`\d+ errors? occurred:\s*\* `)

// reasons are the errors and warnings of an answer, as Vault words them.
func reasons(body []byte) string {
	var answer struct {
		Errors   []string `json:"errors"`
		Warnings []string `json:"warnings"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return looksLike(body)
	}
	said := counted.ReplaceAllString(strings.Join(append(answer.Errors, answer.Warnings...), "; "), "")
	if said = strings.ReplaceAll(strings.TrimSpace(said), "\n\t* ", "; "); said == "" {
		return ""
	}
	return ": " + trimmed(said)
}

// gone tells a deleted version of a KV v2 secret from one that never was.
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
		return fmt.Sprintf(": version %s was destroyed", m.Version)
	case m.DeletionTime != "":
		return fmt.Sprintf(": version %s was deleted at %s; 'vault kv undelete' brings it back", m.Version, trimmed(m.DeletionTime))
	}
	return ""
}

// patience passes Retry-After on.
func patience(err error, response *http.Response) error {
	seconds, bad := strconv.Atoi(response.Header.Get("Retry-After"))
	if bad != nil || seconds <= 0 {
		return err
	}
	return store.RetryAfter(err, time.Duration(seconds)*time.Second)
}
