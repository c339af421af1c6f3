package vault_test

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/vault"
)

// bodyOf is an answer of the KV v2 engine.
func bodyOf(data string) string {
	return `{"request_id":"4f6a8c60-0c9e-4c7c-8a57-b1b1c0a4a1f0","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":` + data +
		`,"metadata":{"created_time":"2026-01-01T00:00:00.123456789Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}},` +
		`"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}`
}

// listOf repeats an element in which %[1]d is its number.
func listOf(n int, element string) string {
	elements := make([]string, n)
	for i := range elements {
		elements[i] = fmt.Sprintf(element, i)
	}
	return strings.Join(elements, ",")
}

// answering reads from a server with one body for everything, and keeps the answer.
func answering(t *testing.T, status int, body string, engine vault.Engine) *keep.Keeper {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	conn, err := vault.NewConn(vault.Options{Addresses: []string{server.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := vault.New(conn, "", map[string]vault.Engine{"secret": engine})
	return keep.New(login.Open(login.Options{Store: s, Resolver: s, Leaser: s, Now: time.Now}), keep.Options{
		Refresh: time.Hour, Pool: keep.NewPool(1<<30, time.Now, nil), Now: time.Now,
	})
}

func readOne(t *testing.T, s *keep.Keeper, path string) (keep.Answer, error) {
	t.Helper()
	at := ref(t, path)
	resolved, err := s.Resolve(t.Context(), login.Request{}, at)
	if err != nil {
		return keep.Answer{}, err
	}
	return s.Read(t.Context(), login.Request{}, at, resolved)
}

func readMany(t *testing.T, s *keep.Keeper, from, to int) {
	t.Helper()
	for i := range to - from {
		_, err := readOne(t, s, fmt.Sprintf("secret/shop/%d", from+i))
		if err != nil && !errors.Is(err, store.Doubt) {
			t.Fatal(err)
		}
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // for what the first one handed to finalizers and pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // G115: less than the machine has
}

// A value's Held is the growth of the heap: its bound would mean nothing otherwise.
func TestHeldIsWhatTheHeapGrowsBy(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		engine vault.Engine
		status int // 0 is 200
	}{
		"a text of 4 KiB":  {body: bodyOf(`{"value":"` + strings.Repeat("x", 4096) + `"}`), engine: vault.KV2},
		"two short texts":  {body: bodyOf(`{"username":"shop","password":"obviously fake"}`), engine: vault.KV2},
		"texts and lists":  {body: bodyOf(`{"hosts":[` + listOf(20, `{"name":"host-%[1]d","port":%[1]d,"up":true}`) + `]}`), engine: vault.KV2},
		"a hundred values": {body: bodyOf(`{` + listOf(100, `"name_%[1]d":"value of name %[1]d"`) + `}`), engine: vault.KV2},
		"metadata":         {body: strings.Replace(bodyOf(`{"a":"b"}`), `"custom_metadata":null`, `"custom_metadata":{`+listOf(50, `"name_%[1]d":"value %[1]d"`)+`}`, 1), engine: vault.KV2},
		"KV v1":            {body: `{"data":{"username":"shop","password":"obviously fake"}}`, engine: vault.KV1},
		"a denial":         {body: `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, engine: vault.KV2, status: http.StatusForbidden},
		"warnings":         {body: `{"data":{"a":"b"},"warnings":["` + strings.Repeat("w", 400) + `"]}`, engine: vault.KV1},
	} {
		t.Run(name, func(t *testing.T) {
			const warm, all, tolerance = 10, 500, 0.15
			s := answering(t, cmp.Or(c.status, http.StatusOK), c.body, c.engine)
			readMany(t, s, 0, warm)
			before, said := heap(), s.Held()
			readMany(t, s, warm, all)
			grown, held := heap()-before, s.Held()-said
			if ratio := float64(held) / float64(grown); ratio < 1-tolerance || ratio > 1+tolerance {
				t.Errorf("%d bytes a value are said to be held, and the heap grows by %d", held/(all-warm), grown/(all-warm))
			}
			runtime.KeepAlive(s)
		})
	}
}

// The envelope is made anew for each use, and is always the same.
func TestEnvelope(t *testing.T) {
	s := answering(t, http.StatusOK, bodyOf(`{"a":1.10}`), vault.KV2)
	value, err := readOne(t, s, "secret/shop/db")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"data":{"data":{"a":1.10},"metadata":{"created_time":"2026-01-01T00:00:00.123456789Z","custom_metadata":null,` +
		`"deletion_time":"","destroyed":false,"version":1}},"lease_duration":0,"lease_id":"","renewable":false,"warnings":null}`
	for range 2 {
		text, err := value.Envelope.Text()
		if err != nil {
			t.Fatal(err)
		}
		if got := string(text.Reveal()); got != want {
			t.Errorf("got\n%s, want\n%s", got, want)
		}
	}
}
