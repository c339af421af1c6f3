package vault_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

// engines are mounts of keymount.yaml, so that a read is one request.
func engines() map[string]vault.Engine {
	return map[string]vault.Engine{"secret": vault.KV2, "database": vault.Other}
}

// openAt opens a store at addresses whose mounts need no look-up.
func openAmong(t *testing.T, addresses ...string) *vault.Store {
	t.Helper()
	conn, err := vault.NewConn(vault.Options{Addresses: addresses}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return vault.New(conn, "", engines())
}

// refusing is a server with one answer.
func refusing(t *testing.T, status int, retryAfter string) string {
	t.Helper()
	s := startServer(t)
	s.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		refuse(w, status, "as the test wants it")
		return true
	}
	return s.URL
}

// closed is an address without a server.
func closed(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s.URL
}

// The pause that Vault asks for and its doubts are those of all addresses together.
func TestPausesAndDoubtsOfAddresses(t *testing.T) {
	for name, test := range map[string]struct {
		addresses []string
		path      string
		pause     time.Duration
		uncertain bool
	}{
		"throttled":              {[]string{refusing(t, 429, "7")}, "secret/shop/db", 7 * time.Second, false},
		"no number":              {[]string{refusing(t, 429, "Wed, 21 Oct 2026 07:28:00 GMT")}, "secret/shop/db", 0, false},
		"before":                 {[]string{refusing(t, 429, "-1")}, "secret/shop/db", 0, false},
		"throttled by one":       {[]string{refusing(t, 503, ""), refusing(t, 429, "3")}, "secret/shop/db", 3 * time.Second, false},
		"throttled by the first": {[]string{refusing(t, 429, "3"), refusing(t, 503, "")}, "secret/shop/db", 3 * time.Second, false},
		"the longer pause":       {[]string{refusing(t, 429, "9"), refusing(t, 429, "3")}, "secret/shop/db", 9 * time.Second, false},
		"failed at the second":   {[]string{refusing(t, 429, ""), refusing(t, 500, "")}, "database/creds/shop", 0, true},
		"failed at a read":       {[]string{refusing(t, 429, ""), refusing(t, 500, "")}, "secret/shop/db", 0, false},
		"never sent":             {[]string{closed(t), closed(t)}, "database/creds/shop", 0, false},
		"sent to none but one":   {[]string{closed(t), refusing(t, 500, "")}, "database/creds/shop", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openAmong(t, test.addresses...).Read(t.Context(), caller(), ref(t, test.path))
			e, ok := errors.AsType[*store.Error](err)
			if !ok || e.Reason != store.Unavailable || e.RetryAfter != test.pause || e.Uncertain != test.uncertain {
				t.Errorf("got %#v, want a pause of %s, uncertain %t", err, test.pause, test.uncertain)
			}
		})
	}
}

// A request that was never sent goes to the next address, even one that makes something.
func TestNeverSentGoesToTheNextAddress(t *testing.T) {
	s := startServer(t)
	s.answer = (&leases{}).answer
	value, err := openAmong(t, closed(t), s.URL).Read(t.Context(), caller(), ref(t, "database/creds/shop"))
	if err != nil || value.Lease == nil {
		t.Errorf("got %v", err)
	}
}

// An answer that breaks off is one all the same: what it tells of may have been made.
func TestAnswersThatBreakOff(t *testing.T) {
	for path, uncertain := range map[string]bool{"database/creds/shop": true, "secret/shop/db": false} {
		s := startServer(t)
		s.answer = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"lease_id":"database/creds/shop/1",`))
			return true
		}
		_, err := openAmong(t, s.URL).Read(t.Context(), caller(), ref(t, path))
		if !errors.Is(err, store.Unavailable) || isUncertain(err) != uncertain {
			t.Errorf("%s: %v, want uncertain %t", path, err, uncertain)
		}
	}
}

// The audit log of Vault has the request under the name that values and errors bear.
func TestRequestIDs(t *testing.T) {
	const id = "e1f5a2a0-3c5b-4d4e-8f1a-2b3c4d5e6f70"
	s := startServer(t)
	v := openAmong(t, s.URL)
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if reply200(w, r) {
			return true
		}
		reply(w, map[string]any{"request_id": id, "data": map[string]any{"data": map[string]any{"a": "b"}, "metadata": map[string]any{"version": 3}}})
		return true
	}
	value, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db"))
	if err != nil || value.RequestID != id {
		t.Errorf("a value is of request %q, %v", value.RequestID, err)
	}
	for _, status := range []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests, http.StatusInternalServerError} {
		s.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if reply200(w, r) {
				return true
			}
			w.WriteHeader(status)
			reply(w, map[string]any{"request_id": id, "errors": []string{"as the test wants it"}})
			return true
		}
		_, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db"))
		if e, ok := errors.AsType[*store.Error](err); !ok || e.RequestID != id {
			t.Errorf("%d is of request %+v", status, err)
		}
	}
}

// A denial stays one, at the mount as at the secret, while the token cannot be asked.
func TestDoubtAtEachStep(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusUnauthorized} {
		s := startServer(t)
		s.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/lookup-self") {
				refuse(w, http.StatusTooManyRequests)
				return true
			}
			refuse(w, status, "permission denied")
			return true
		}
		_, secret := openAmong(t, s.URL).Read(t.Context(), caller(), ref(t, "secret/shop/db"))
		_, mount := open(t, s.URL).Read(t.Context(), caller(), ref(t, "secret/shop/db"))
		_, resolved := open(t, s.URL).Resolve(t.Context(), caller(), ref(t, "secret/shop/db"))
		for step, err := range map[string]error{"the secret": secret, "the mount of a read": mount, "the mount of a path": resolved} {
			if e, ok := errors.AsType[*store.Error](err); !ok || e.Reason != store.Doubt {
				t.Errorf("%d at %s: %v", status, step, err)
			}
		}
	}
}
