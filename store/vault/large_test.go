package vault_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/internal/turns"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

// openAt reads from a server that answers with one body, in this lane.
func openAt(t *testing.T, answers *room.Answers, status int, body string) *vault.Store {
	t.Helper()
	text := []byte(body)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(text)
	}))
	t.Cleanup(server.Close)
	conn, err := vault.NewConn(vault.Options{Addresses: []string{server.URL}, Answers: answers}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return vault.New(conn, "", map[string]vault.Engine{"secret": vault.KV2, "database": vault.Other})
}

// occupied is a lane without a free place until the function is called.
func occupied(t *testing.T) (answers *room.Answers, leave func()) {
	t.Helper()
	answers = room.NewAnswers(1, time.Now)
	holding, left := make(chan struct{}), make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		_ = answers.Read(t.Context(), turns.Of{Namespace: "blog"}, strings.NewReader(`["`+strings.Repeat("x", 2*room.Small)+`"]`), 4<<20, func([]byte) {
			close(holding)
			<-left
		})
	})
	<-holding
	leave = sync.OnceFunc(func() { close(left); ended.Wait() })
	t.Cleanup(leave)
	return answers, leave
}

// readWithin is enough for 2 MiB to arrive on a busy machine, and wait.
const readWithin = 2 * time.Second

// Large answers are parsed in their turn, and small ones at once.
func TestLargeAnswersWait(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body  string
		waits bool
	}{
		"small":           {bodyOf(`{"value":"` + strings.Repeat("x", 60<<10) + `"}`), false},
		"long and light":  {bodyOf(`{"value":"` + strings.Repeat("x", 300<<10) + `"}`), false},
		"large":           {bodyOf(`{"value":"` + strings.Repeat("x", 2<<20) + `"}`), true},
		"short and heavy": {bodyOf(`{"value":[` + strings.Repeat(`{},`, 15_000) + `{}]}`), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answers, leave := occupied(t)
			v := openAt(t, answers, http.StatusOK, test.body)
			ctx, cancel := context.WithTimeout(t.Context(), readWithin)
			defer cancel()
			if !test.waits {
				ctx = t.Context()
			}
			_, err := v.Read(ctx, caller(), ref(t, "secret/shop/db"))
			if waited := errors.Is(err, store.Unavailable) && errors.Is(err, room.ErrNoPlace); waited != test.waits || err != nil && !waited {
				t.Errorf("got %v", err)
			}
			leave()
			if _, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
				t.Errorf("in its turn: %v", err)
			}
		})
	}
}

// What may have made something is not asked for again because its answer had no place.
func TestNoPlaceIsUncertain(t *testing.T) {
	t.Parallel()
	answers, _ := occupied(t)
	v := openAt(t, answers, http.StatusOK, bodyOf(`{"value":"`+strings.Repeat("x", 2<<20)+`"}`))
	ctx, cancel := context.WithTimeout(t.Context(), readWithin)
	defer cancel()
	if _, err := v.Read(ctx, caller(), ref(t, "database/creds/shop")); !errors.Is(err, room.ErrNoPlace) || !isUncertain(err) {
		t.Errorf("got %v", err)
	}
}

// An answer that would take too much memory is refused before it is parsed.
func TestHeavyAnswersAreNotParsed(t *testing.T) {
	const most = 48 << 20 // of its text, read in pieces that grow; parsed it takes 100 MiB more
	for name, body := range map[string]string{
		"maps":         bodyOf(`{"value":[` + strings.TrimSuffix(strings.Repeat("{},", 1_350_000), ",") + `]}`),
		"lists":        bodyOf(`{"value":[` + strings.TrimSuffix(strings.Repeat("[],", 1_350_000), ",") + `]}`),
		"beside data":  `{"data":{"data":{"a":"b"},"metadata":[` + strings.TrimSuffix(strings.Repeat("{},", 1_350_000), ",") + `]}}`,
		"unknown ones": `{"data":{"data":{"a":"b"}},"more":[` + strings.TrimSuffix(strings.Repeat("{},", 1_350_000), ",") + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			v := openAt(t, nil, http.StatusOK, body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db"))
			runtime.ReadMemStats(&after)
			const want = "invalid: too large: parsed, the secret would take more than 12 MiB of memory; split it"
			if !errors.Is(err, store.Invalid) || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > most {
				t.Errorf("%d MiB were allocated", allocated>>20)
			}
		})
	}
}

// The reasons of a refusal are not parsed either when they would take too much.
func TestHeavyRefusalsAreNotParsed(t *testing.T) {
	v := openAt(t, nil, http.StatusInternalServerError, `{"errors":[`+strings.TrimSuffix(strings.Repeat(`"",`, 1_350_000), ",")+`]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db"))
	runtime.ReadMemStats(&after)
	if !errors.Is(err, store.Unavailable) {
		t.Errorf("got %v", err)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 40<<20 {
		t.Errorf("%d MiB were allocated", allocated>>20)
	}
}
