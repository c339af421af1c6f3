package vault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	goodToken = "hvs.obviously-fake"
	canary    = "canary-51c0"
)

// server is a Vault as far as reading goes; a test may answer in its place.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	answer   func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	secrets  map[string]map[string]any                         // of the KV v2 engine "secret"
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{secrets: map[string]map[string]any{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
	answer := s.answer
	s.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	switch name, isSecret := strings.CutPrefix(path, "secret/data/"); {
	case r.Header.Get("X-Vault-Token") != goodToken:
		refuse(w, http.StatusForbidden, "permission denied")
	case strings.HasPrefix(path, "sys/internal/ui/mounts/secret/"):
		reply(w, map[string]any{"data": map[string]any{"path": "secret/", "type": "kv", "options": map[string]any{"version": "2"}}})
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		reply(w, map[string]any{"data": map[string]any{"path": strings.Split(path, "/")[4] + "/", "type": "database"}})
	case isSecret && s.secrets[name] != nil && r.URL.Query().Get("version") != "999999":
		reply(w, map[string]any{"data": map[string]any{"data": s.secrets[name], "metadata": map[string]any{"version": 3}}})
	default:
		refuse(w, http.StatusNotFound)
	}
}

func reply(w http.ResponseWriter, body any) { _ = json.NewEncoder(w).Encode(body) }

func refuse(w http.ResponseWriter, status int, reasons ...string) {
	w.WriteHeader(status)
	reply(w, map[string]any{"errors": reasons})
}

func (s *server) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

func open(t *testing.T, addresses ...string) *vault.Store {
	t.Helper()
	conn, err := vault.NewConn(vault.Options{Addresses: addresses}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return vault.New(conn, "", nil)
}

// isUncertain tells whether the request may have been carried out.
func isUncertain(err error) bool {
	e, ok := errors.AsType[*store.Error](err)
	return ok && e.Uncertain
}

func caller() store.Caller {
	return store.Caller{Identity: auth.Identity{Namespace: "shop"}, Role: "shop", Login: secret.New([]byte(goodToken))}
}

func ref(t *testing.T, path string) store.Ref {
	t.Helper()
	p, err := store.ParsePath(path)
	if err != nil {
		t.Fatal(err)
	}
	return store.Ref{Path: p}
}

func TestSpellingsOfOneSecret(t *testing.T) {
	s := startServer(t)
	s.secrets["shop/db"] = map[string]any{"password": canary}
	v := open(t, s.URL)
	for _, path := range []string{"secret/shop/db", "secret/data/shop/db"} {
		resolved, err := v.Resolve(t.Context(), caller(), ref(t, path))
		if err != nil || resolved.Path.String() != "secret/shop/db" || resolved.Literal != "" {
			t.Errorf("%s is judged as %q, %v", path, resolved.Path, err)
		}
		value, err := v.Read(t.Context(), caller(), ref(t, path))
		if err != nil || value.Version != "3" {
			t.Errorf("%s: version %q, %v", path, value.Version, err)
		}
	}
	for path, literal := range map[string]string{
		"secret/metadata/shop/db": "metadata", "secret/config": "config", "secret/destroy/shop/db": "destroy",
		"secret/config/app": "", "secret/undelete/shop/db": "undelete", "secret/delete/shop/db": "delete", "secret/subkeys/shop/db": "subkeys",
		"sys/mounts": "sys", "auth/token/lookup-self": "auth", "secret/metadata": "", "secret/shop/metadata": "", "database/config": "", "database/metadata/x": "",
	} {
		resolved, err := v.Resolve(t.Context(), caller(), ref(t, path))
		if err != nil || resolved.Literal != literal {
			t.Errorf("%s has to be named as %q, want %q (%v)", path, resolved.Literal, literal, err)
		}
	}
}

func TestMountIsLookedUpOnce(t *testing.T) {
	s := startServer(t)
	v := open(t, s.URL)
	var all sync.WaitGroup
	for i := range 20 {
		s.secrets[fmt.Sprint(i)] = map[string]any{"a": "b"}
	}
	for i := range 20 {
		all.Go(func() {
			if _, err := v.Read(t.Context(), caller(), store.Ref{Path: ref(t, fmt.Sprintf("secret/%d", i)).Path}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	lookups := 0
	for _, request := range s.seen() {
		if strings.Contains(request, "/sys/internal/ui/mounts/") {
			lookups++
		}
	}
	if lookups != 1 {
		t.Errorf("20 secrets of one mount cost %d look-ups", lookups)
	}
}

func TestConfiguredMountsAreNotLookedUp(t *testing.T) {
	s := startServer(t)
	s.secrets["shop/db"] = map[string]any{"a": "b"}
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	v := vault.New(conn, "", map[string]vault.Engine{"secret": vault.KV2})
	if _, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
		t.Error(err)
	}
	if got := s.seen(); len(got) != 1 || got[0] != "GET /v1/secret/data/shop/db" {
		t.Errorf("requests %q", got)
	}
}

// Every odd answer is an error of the right kind; none holds what was answered.
func TestOddAnswers(t *testing.T) {
	const question = "; is there a proxy, an ingress, a service mesh or a login page in between, or another server at this address of keymount.yaml?"
	status := func(code int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code); _, _ = fmt.Fprint(w, body) }
	}
	tests := map[string]struct {
		answer func(http.ResponseWriter)
		kind   error
		want   string // HOST stands for the server's
	}{
		"no content":       {status(204, ""), store.Unavailable, "store unavailable: HOST answers 204 with no content in place of Vault's own answer" + question},
		"empty body":       {status(200, ""), store.Unavailable, "store unavailable: HOST answers 200 with no content in place of Vault's own answer" + question},
		"no data":          {status(200, `{"data":null,"warnings":["odd"]}`), store.Invalid, "invalid: the answer holds no data: odd"},
		"no inner data":    {status(200, `{"data":{"data":null,"metadata":{}}}`), store.NotFound, "not found: this version was deleted or holds nothing"},
		"HTML":             {status(200, "<html>"+canary), store.Unavailable, "store unavailable: HOST answers 200 with HTML in place of Vault's own answer" + question},
		"HTML as an error": {status(400, "<html>"+canary), store.Unavailable, "store unavailable: HOST answers 400 with HTML in place of Vault's own answer" + question},
		"truncated JSON":   {status(200, `{"data":{"data":{"password":"`+canary), store.Unavailable, "store unavailable: HOST answers 200 with broken JSON in place of Vault's own answer" + question},
		"a JSON text":      {status(200, `"`+canary+`"`), store.Unavailable, "store unavailable: HOST answers 200 with JSON of another form in place of Vault's own answer" + question},
		"10 MiB of data":   {status(200, `{"data":{"a":"`+strings.Repeat("x", 10<<20)), store.Invalid, "invalid: HOST answers with more than 4194304 bytes"},
		"10 MiB":           {status(200, strings.Repeat(" ", 10<<20)), store.Unavailable, "store unavailable: HOST answers 200 with more than 4194304 bytes in place of Vault's own answer" + question},
		"not found":        {status(404, `{"errors":[]}`), store.NotFound, "not found"},
		"no such path":     {status(404, `{"errors":["no handler for route"]}`), store.NotFound, "not found: no handler for route"},
		"deleted":          {status(404, `{"data":{"data":null,"metadata":{"version":2,"deletion_time":"2026-01-01T00:00:00Z"}}}`), store.NotFound, "not found: version 2 was deleted at 2026-01-01T00:00:00Z; 'vault kv undelete' brings it back"},
		"destroyed":        {status(404, `{"data":{"data":null,"metadata":{"version":2,"destroyed":true,"deletion_time":""}}}`), store.NotFound, "not found: version 2 was destroyed"},
		"policy":           {status(403, `{"errors":["permission denied"]}`), store.Denied, "denied by the store: permission denied; no policy of the role allows it"},
		"bad request":      {status(400, `{"errors":["missing field"]}`), store.Invalid, "invalid: refused: HOST answers 400: missing field"},
		"precondition":     {status(412, `{}`), store.Unavailable, "store unavailable: HOST answers 412"},
		"throttled":        {status(429, `{"errors":["request path quota exceeded"]}`), store.Unavailable, "store unavailable: HOST answers 429: request path quota exceeded"},
		"standby":          {status(473, ""), store.Unavailable, "store unavailable: HOST answers 473"},
		"sealed":           {status(503, `{"errors":["Vault is sealed"]}`), store.Unavailable, "store unavailable: HOST is sealed; unseal it"},
		"internal error":   {status(500, `{"errors":["internal error"]}`), store.Unavailable, "store unavailable: HOST answers 500: internal error"},
		"bad gateway":      {status(502, "<html>"), store.Unavailable, "store unavailable: HOST answers 502 with HTML in place of Vault's own answer" + question},
		"redirect": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://evil.invalid/v1/x")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, store.Unavailable, "store unavailable: HOST redirects to evil.invalid, which is none of the store's addresses in keymount.yaml; add it there"},
		"redirect nowhere": {status(307, ""), store.Unavailable, "store unavailable: HOST redirects without saying where to"},
		"reset":            {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, store.Unavailable, "store unavailable: HOST: EOF"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.answer = func(w http.ResponseWriter, r *http.Request) bool {
				mine := strings.HasPrefix(r.URL.Path, "/v1/secret/")
				if mine {
					test.answer(w)
				}
				return mine || reply200(w, r)
			}
			_, err := open(t, s.URL).Read(t.Context(), caller(), ref(t, "secret/shop/db"))
			want := strings.ReplaceAll(test.want, "HOST", strings.TrimPrefix(s.URL, "http://"))
			if !errors.Is(err, test.kind) || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if strings.Contains(fmt.Sprint(err), canary) || strings.Contains(fmt.Sprint(err), goodToken) {
				t.Errorf("the error tells too much: %v", err)
			}
		})
	}
}

// reply200 answers the question after the token: it is a good one.
func reply200(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path != "/v1/auth/token/lookup-self" {
		return false
	}
	reply(w, map[string]any{"data": map[string]any{}})
	return true
}

// A 403 means two things: a policy says no, or the token has ended.
func TestEndedTokenIsToldFromPolicy(t *testing.T) {
	s := startServer(t)
	v := open(t, s.URL)
	ended := caller()
	ended.Login = secret.New([]byte("hvs.ended"))
	for said, kind := range map[string]error{"invalid token": store.Ended, "bad token": store.Ended, "permission denied": store.Doubt} {
		s.answer = func(w http.ResponseWriter, _ *http.Request) bool { refuse(w, http.StatusForbidden, said); return true }
		if _, err := v.Read(t.Context(), ended, ref(t, "secret/shop/db")); !errors.Is(err, kind) {
			t.Errorf("an ended token, %q: %v", said, err)
		}
		if _, err := v.Resolve(t.Context(), ended, ref(t, "secret/shop/db")); !errors.Is(err, kind) {
			t.Errorf("an ended token, %q, at the mount: %v", said, err)
		}
	}
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if reply200(w, r) {
			return true
		}
		refuse(w, http.StatusForbidden, "permission denied")
		return true
	}
	_, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db"))
	if errors.Is(err, store.Ended) || !errors.Is(err, store.Denied) {
		t.Errorf("a policy: %v", err)
	}
}

// A request that may make a credential is not sent to a second address once it is on
// its way.
func TestWhatMakesSomethingIsSentOnce(t *testing.T) {
	first, second := startServer(t), startServer(t)
	broken := func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/database/") {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	first.answer = broken
	v := open(t, first.URL, second.URL)
	_, err := v.Read(t.Context(), caller(), ref(t, "database/creds/shop"))
	if !errors.Is(err, store.Unavailable) || !isUncertain(err) {
		t.Errorf("got %v", err)
	}
	if got := second.seen(); len(got) != 0 {
		t.Errorf("the second address got %q", got)
	}
}

func TestFailoverAndReturn(t *testing.T) {
	home, away := startServer(t), startServer(t)
	for _, s := range []*server{home, away} {
		s.secrets["shop/db"] = map[string]any{"a": "b"}
	}
	var mu sync.Mutex
	now, sealed := time.Now(), true
	home.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if sealed {
			refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
		}
		return sealed
	}
	conn, err := vault.NewConn(vault.Options{Addresses: []string{home.URL, away.URL}}, func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	if err != nil {
		t.Fatal(err)
	}
	v := vault.New(conn, "", map[string]vault.Engine{"secret": vault.KV2})
	read := func() (toHome, toAway int) {
		h, a := len(home.seen()), len(away.seen())
		if _, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
			t.Error(err)
		}
		return len(home.seen()) - h, len(away.seen()) - a
	}
	check := func(when string, wantHome, wantAway int) {
		t.Helper()
		if h, a := read(); h != wantHome || a != wantAway {
			t.Errorf("%s: %d requests to the first and %d to the second address, want %d and %d", when, h, a, wantHome, wantAway)
		}
	}
	check("the first is sealed", 1, 1)
	check("the second answered last", 0, 1)
	mu.Lock()
	sealed, now = false, now.Add(30*time.Second)
	mu.Unlock()
	check("after half a minute", 1, 0)
}

// On a connection that was used before, Go's own pool would send it again.
func TestWhatMakesSomethingIsSentOnceOnAWarmConnection(t *testing.T) {
	s := startServer(t)
	s.secrets["shop/db"] = map[string]any{"a": "b"}
	v := open(t, s.URL)
	if _, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string]string{"a read": "", "a write": `{"a":"b"}`} {
		if _, err := v.Resolve(t.Context(), caller(), ref(t, "database/creds/shop")); err != nil {
			t.Fatal(err)
		}
		s.answer = func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/v1/database/") {
				panic(http.ErrAbortHandler)
			}
			return false
		}
		before := len(s.seen())
		wanted := ref(t, "database/creds/shop")
		wanted.Args = args
		_, err := v.Read(t.Context(), caller(), wanted)
		if got := s.seen()[before:]; len(got) != 1 || !isUncertain(err) {
			t.Errorf("%s: requests %q, %v", name, got, err)
		}
		s.answer = nil
	}
}

// A server that failed while answering may have made something all the same.
func TestFailuresThatAreUncertain(t *testing.T) {
	for status, uncertain := range map[int]bool{500: true, 502: true, 503: true, 412: false, 429: false, 473: false} {
		s := startServer(t)
		s.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/v1/database/") {
				w.WriteHeader(status)
				return true
			}
			return false
		}
		_, err := open(t, s.URL).Read(t.Context(), caller(), ref(t, "database/creds/shop"))
		if !errors.Is(err, store.Unavailable) || isUncertain(err) != uncertain {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// Vault names the mount of an auth path without its first segment. No answer may
// change the meaning of another path, and keymount.yaml goes first.
func TestMountsCannotBePoisoned(t *testing.T) {
	s := startServer(t)
	s.secrets["shop/db"] = map[string]any{"a": "b"}
	v := open(t, s.URL)
	if _, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
		t.Fatal(err)
	}
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
			reply(w, map[string]any{"data": map[string]any{"path": "secret/", "type": "token"}})
			return true
		}
		return false
	}
	resolved, err := v.Resolve(t.Context(), caller(), ref(t, "auth/secret/lookup-self"))
	if err != nil || resolved.Literal != "auth" {
		t.Errorf("a path below auth/ is judged as %+v, %v", resolved, err)
	}
	if _, err := v.Resolve(t.Context(), caller(), ref(t, "elsewhere/x")); !errors.Is(err, store.Invalid) {
		t.Errorf("a mount that the path is not in: %v", err)
	}
	if _, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
		t.Errorf("the victim's secret: %v", err)
	}
	resolved, err = v.Resolve(t.Context(), caller(), ref(t, "secret/metadata/shop/db"))
	if err != nil || resolved.Literal != "metadata" {
		t.Errorf("the endpoint is judged as %+v, %v", resolved, err)
	}
}

// A mount of one namespace tells nothing about another namespace.
func TestMountsOfNamespaces(t *testing.T) {
	s := startServer(t)
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
			return false
		}
		version := map[string]string{"shop": "2", "blog": "1"}[r.Header.Get("X-Vault-Namespace")]
		reply(w, map[string]any{"data": map[string]any{"path": "secret/", "type": "kv", "options": map[string]any{"version": version}}})
		return true
	}
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	v := vault.New(conn, "{namespace}", nil)
	for namespace, literal := range map[string]string{"shop": "metadata", "blog": ""} {
		in := caller()
		in.Identity.Namespace = namespace
		for range 2 {
			if resolved, err := v.Resolve(t.Context(), in, ref(t, "secret/metadata/x")); err != nil || resolved.Literal != literal {
				t.Errorf("%s: %+v, %v", namespace, resolved, err)
			}
		}
	}
}

// An engine can be changed; Vault's answer about it does not count for ever.
func TestMountsAreLearnedAnew(t *testing.T) {
	s := startServer(t)
	s.secrets["shop/db"] = map[string]any{"a": "b"}
	now := time.Now()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	v := vault.New(conn, "", nil)
	for _, step := range []struct {
		after   time.Duration
		lookups int
	}{{0, 1}, {4 * time.Minute, 1}, {2 * time.Minute, 2}} {
		now = now.Add(step.after)
		if _, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(strings.Join(s.seen(), " "), "/ui/mounts/"); got != step.lookups {
			t.Errorf("%s later: %d look-ups, want %d", step.after, got, step.lookups)
		}
	}
}

// A denial is a policy's only when the token is known to be good.
func TestDenialWhileTheTokenCannotBeAsked(t *testing.T) {
	s := startServer(t)
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/auth/token/lookup-self" {
			refuse(w, http.StatusTooManyRequests)
			return true
		}
		refuse(w, http.StatusForbidden, "permission denied")
		return true
	}
	_, err := open(t, s.URL).Read(t.Context(), caller(), ref(t, "secret/shop/db"))
	if !errors.Is(err, store.Doubt) || errors.Is(err, store.Unavailable) {
		t.Errorf("a read: %v", err)
	}
	lease := store.Lease{ID: secret.New([]byte("database/creds/shop/1")), Duration: time.Hour}
	_, err = open(t, s.URL).Renew(t.Context(), caller(), lease) // is tried again
	for what, err := range map[string]error{"a renewal": err, "a return": open(t, s.URL).Revoke(t.Context(), caller(), lease)} {
		if !errors.Is(err, store.Unavailable) || errors.Is(err, store.Doubt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A value has the warnings and the end of its answer.
func TestWarningsAndEnds(t *testing.T) {
	s := startServer(t)
	end := time.Now().Add(20 * time.Hour).Truncate(time.Second)
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/v1/pki/issue/shop":
			reply(w, map[string]any{"data": map[string]any{"certificate": "x", "expiration": end.Unix()}, "warnings": []string{"TTL is\nlonger\u202e"}})
		case "/v1/database/static-creds/shop":
			reply(w, map[string]any{"data": map[string]any{"password": "x", "ttl": 60, "last_vault_rotation": "2026-01-01T00:00:00Z"}})
		default:
			return false
		}
		return true
	}
	v := open(t, s.URL)
	certificate, err := v.Read(t.Context(), caller(), ref(t, "pki/issue/shop"))
	if err != nil || !certificate.NotAfter.Equal(end) || len(certificate.Warnings) != 1 || certificate.Warnings[0] != `TTL is longer\u202e` {
		t.Errorf("ends %s, warnings %q, %v", certificate.NotAfter, certificate.Warnings, err)
	}
	static, err := v.Read(t.Context(), caller(), ref(t, "database/static-creds/shop"))
	if left := time.Until(static.NotAfter); err != nil || left > time.Minute || left < 50*time.Second {
		t.Errorf("ends in %s, %v", left, err)
	}
}

// A standby redirects to the active node; the token goes there only when the
// operator has listed it.
func TestStandbyRedirects(t *testing.T) {
	standby, active := startServer(t), startServer(t)
	active.secrets["shop/db"] = map[string]any{"a": "b"}
	standby.answer = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Location", active.URL+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
	if _, err := open(t, standby.URL, active.URL).Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
		t.Error(err)
	}
	before := len(active.seen())
	if _, err := open(t, standby.URL).Read(t.Context(), caller(), ref(t, "secret/shop/db")); !errors.Is(err, store.Unavailable) {
		t.Errorf("got %v", err)
	}
	if len(active.seen()) != before {
		t.Error("a token was sent to an address that is not listed")
	}
}

func TestNobodyThere(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = open(t, "http://"+host).Read(t.Context(), caller(), ref(t, "database/creds/shop"))
	if !errors.Is(err, store.Unavailable) || isUncertain(err) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(t, "http://"+host).Read(ctx, caller(), ref(t, "secret/x")); !errors.Is(err, store.Unavailable) {
		t.Errorf("after the end: %v", err)
	}
}

// Nothing of the process's environment becomes a credential or a way to the store.
func TestEnvironmentIsIgnored(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "hvs.ambient")
	t.Setenv("VAULT_NAMESPACE", "ambient")
	t.Setenv("VAULT_ADDR", "http://ambient.invalid")
	t.Setenv("VAULT_HEADERS", `{"X-Ambient":"1"}`)
	t.Setenv("VAULT_CACERT", "/nonexistent")
	t.Setenv("VAULT_CLIENT_TIMEOUT", "nonsense")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	s := startServer(t)
	var got http.Header
	s.answer = func(_ http.ResponseWriter, r *http.Request) bool { got = r.Header.Clone(); return false }
	nobody := caller()
	nobody.Login = secret.Bytes{}
	_, _ = open(t, s.URL).Read(t.Context(), nobody, ref(t, "secret/shop/db"))
	for _, name := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Ambient"} {
		if got.Get(name) != "" {
			t.Errorf("%s: %s was sent", name, got.Get(name))
		}
	}
}

func TestNamespacePerPod(t *testing.T) {
	s := startServer(t)
	var got string
	s.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		got = r.Header.Get("X-Vault-Namespace")
		return false
	}
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = vault.New(conn, "teams/{namespace}", nil).Read(t.Context(), caller(), ref(t, "secret/shop/db"))
	if got != "teams/shop" {
		t.Errorf("namespace %q", got)
	}
}

func TestWritesAndVersions(t *testing.T) {
	s := startServer(t)
	var body map[string]any
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		reply(w, map[string]any{"lease_id": "pki/issue/shop/" + canary, "lease_duration": 3600, "data": map[string]any{"certificate": "x"}})
		return true
	}
	v := open(t, s.URL)
	write := ref(t, "pki/issue/shop")
	write.Args = `{"common_name":"a.invalid"}`
	value, err := v.Read(t.Context(), caller(), write)
	if err != nil || body["common_name"] != "a.invalid" || value.Lease == nil || value.Lease.Duration != time.Hour {
		t.Errorf("sent %v, lease %v, %v", body, value.Lease, err)
	}
	pinned := ref(t, "secret/shop/db")
	pinned.Version = "2"
	s.secrets["shop/db"] = map[string]any{"a": "b"}
	if _, err := v.Read(t.Context(), caller(), pinned); err != nil {
		t.Error(err)
	}
	if got := s.seen(); got[len(got)-1] != "GET /v1/secret/data/shop/db?version=2" {
		t.Errorf("requests %q", got)
	}
	pinned.Path = ref(t, "database/creds/shop").Path
	if _, err := v.Read(t.Context(), caller(), pinned); !errors.Is(err, store.Invalid) {
		t.Errorf("a version of a database credential: %v", err)
	}
}

// A lease is revoked with the login that made it; the error for one that is gone, or
// not ours to revoke, has its kind.
func TestRevoke(t *testing.T) {
	s := startServer(t)
	v := open(t, s.URL)
	lease := store.Lease{ID: secret.New([]byte("database/creds/shop/1"))}
	for status, kind := range map[int]error{
		http.StatusNoContent: nil, http.StatusNotFound: store.NotFound, http.StatusServiceUnavailable: store.Unavailable, http.StatusForbidden: store.Doubt,
	} {
		var sent string
		s.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v1/sys/leases/revoke" {
				body, _ := io.ReadAll(r.Body)
				sent = r.Method + " " + r.Header.Get("X-Vault-Token") + " " + strings.TrimSpace(string(body))
			}
			if status == http.StatusNoContent {
				w.WriteHeader(status)
			} else {
				refuse(w, status)
			}
			return true
		}
		if err := v.Revoke(t.Context(), caller(), lease); !errors.Is(err, kind) {
			t.Errorf("%d becomes %v, want %v", status, err, kind)
		}
		if want := "PUT " + goodToken + ` {"lease_id":"database/creds/shop/1"}`; sent != want {
			t.Errorf("sent %s\nwant %s", sent, want)
		}
	}
}
