package storetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/keymount/keymount/store"
)

// checkError checks the promises for every error of a store; nil is none. Besides the
// canary it holds none of the secrets.
func checkError(t *testing.T, err error, secrets ...string) {
	t.Helper()
	if err == nil {
		return
	}
	e, ok := errors.AsType[*store.Error](err)
	if !ok {
		t.Errorf("error %q is no *store.Error", err)
		return
	}
	given := slices.DeleteFunc(reasons(), func(r store.Reason) bool { return !errors.Is(err, r) })
	if len(given) != 1 || given[0] != e.Reason {
		t.Errorf("error %q of reason %q wraps the reasons %q; want that one", err, e.Reason, given)
	}
	if e.Reason != store.Unavailable && (e.Uncertain || e.RetryAfter != 0) {
		t.Errorf("error %q has Uncertain %t and RetryAfter %s; those are of %q alone", err, e.Uncertain, e.RetryAfter, store.Unavailable)
	}
	if !tells(e) || !strings.Contains(err.Error(), e.Error()) {
		t.Errorf("error %q does not begin with its reason, %q, or the words of a wrapper and then that", err, e.Reason)
	}
	checkSecrets(t, "the error", err, append(secrets, Canary))
}

// tells is true for an error that begins with its reason, or with a cause of that reason.
func tells(e *store.Error) bool {
	if e.Said == "" && errors.Is(e.Cause, e.Reason) {
		return strings.Contains(e.Error(), string(e.Reason))
	}
	return strings.HasPrefix(e.Error(), string(e.Reason))
}

// checkSecrets looks for secrets in every text made of a value.
func checkSecrets(t *testing.T, name string, v any, secrets []string) {
	t.Helper()
	var text bytes.Buffer
	_, _ = fmt.Fprintf(&text, "%v %+v %#v", v, v, v)
	slog.New(slog.NewJSONHandler(&text, nil)).Info("value", slog.Any("value", v))
	data, _ := json.Marshal(v)
	text.Write(data)
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text.String(), secret) {
			t.Errorf("%s has a part of a secret", name)
		}
	}
}
