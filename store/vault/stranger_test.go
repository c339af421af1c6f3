package vault_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/vault"
)

// strangers are bodies that no Vault sends, by what they are.
var strangers = map[string]string{
	"an ingress":             "404 page not found\n",
	"a mesh":                 "RBAC: access denied",
	"a login page":           "<!DOCTYPE html><html>Sign in " + canary + "</html>",
	"XML":                    `<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>`,
	"nothing":                "",
	"spaces":                 " \r\n",
	"an empty object":        "{}",
	"null":                   "null",
	"a text":                 `"not found"`,
	"a number":               "404",
	"a list":                 `[{"errors":[]}]`,
	"a message":              `{"message":"not found"}`,
	"a code":                 `{"code":403}`,
	"Kubernetes":             `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`,
	"a problem":              `{"type":"about:blank","title":"Not Found","status":404,"detail":"` + canary + `"}`,
	"OAuth":                  `{"error":"invalid_token","error_description":"` + canary + `"}`,
	"a token of another API": `{"access_token":"` + canary + `","expires_in":3600}`,
	"GraphQL":                `{"data":null,"errors":[{"message":"not found"}]}`,
	"GraphQL without errors": `{"data":null,"errors":null}`,
	"the health of a server": `{"initialized":true,"sealed":false,"standby":false}`,
	"an empty login":         `{"auth":{}}`,
	"a registry":             `{"errors":[{"code":"DENIED","message":"` + canary + `"}]}`,
	"a text of errors":       `{"errors":"permission denied"}`,
	"an object of errors":    `{"errors":{"name":["is invalid"]}}`,
	"errors and more":        `{"status":404,"errors":["Not Found"]}`,
	"capital errors":         `{"Errors":["permission denied"]}`,
	"JSend":                  `{"status":"success","data":{"data":{"password":"` + canary + `"}}}`,
	"data that is a list":    `{"data":[{"password":"` + canary + `"}]}`,
	"data that is a text":    `{"data":"` + canary + `"}`,
	"no data":                `{"data":null}`,
	"broken JSON":            `{"data":{"data":{"password":"` + canary,
	"two documents":          `{"errors":[]} {"errors":[]}`,
}

// statuses are those that a stranger may have; 5xx and those that ask for patience are
// never an answer.
var statuses = []int{200, 201, 203, 206, 300, 303, 304, 400, 401, 402, 403, 404, 405, 409, 410, 412, 413, 418, 422, 429, 431, 451, 472, 473, 500, 502, 503, 504}

// ways are all that Vault is asked for.
func ways(t *testing.T) map[string]func(c *vault.Conn) error {
	t.Helper()
	mounts := map[string]vault.Engine{"secret": vault.KV2, "old": vault.KV1, "database": vault.Other}
	method := func(c *vault.Conn) vault.Method { return vault.Method{Conn: c, Mount: "kubernetes", Now: time.Now} }
	lease := store.Lease{ID: secret.New([]byte("database/creds/shop/1")), Duration: time.Hour}
	read := func(path, args string) func(*vault.Conn) error {
		return func(c *vault.Conn) error {
			at := ref(t, path)
			at.Args = args
			_, err := vault.New(c, "", mounts).Read(t.Context(), caller(), at)
			return err
		}
	}
	return map[string]func(*vault.Conn) error{
		"login": func(c *vault.Conn) error {
			_, err := method(c).Login(t.Context(), who(), secret.New([]byte(podToken)), "shop")
			return err
		},
		"renewal of a login": func(c *vault.Conn) error { _, err := method(c).Renew(t.Context(), who(), held()); return err },
		"end of a login":     func(c *vault.Conn) error { return method(c).Revoke(t.Context(), who(), held()) },
		"look-up": func(c *vault.Conn) error {
			_, err := vault.New(c, "", nil).Resolve(t.Context(), caller(), ref(t, "secret/shop/db"))
			return err
		},
		"read of KV v2":   read("secret/shop/db", ""),
		"read of KV v1":   read("old/shop/db", ""),
		"read of another": read("database/static-creds/shop", ""),
		"write":           read("database/sign/shop", `{"a":"b"}`),
		"renewal of a lease": func(c *vault.Conn) error {
			_, err := vault.New(c, "", nil).Renew(t.Context(), caller(), lease)
			return err
		},
		"end of a lease": func(c *vault.Conn) error { return vault.New(c, "", nil).Revoke(t.Context(), caller(), lease) },
	}
}

// stands is a way to a server.
func stands(t *testing.T, handler http.HandlerFunc) *vault.Conn {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	conn, err := vault.NewConn(vault.Options{Addresses: []string{server.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// What has not the form of Vault's own is no answer, whatever its status says and whatever
// was asked.
func TestStrangersGiveNoAnswer(t *testing.T) {
	var status atomic.Int32
	var body atomic.Value
	asked := ways(t)
	for name, text := range strangers {
		body.Store(text)
		conn := stands(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(int(status.Load()))
			text, _ := body.Load().(string)
			_, _ = fmt.Fprint(w, text)
		})
		for _, code := range statuses {
			status.Store(int32(code)) //nolint:gosec // G115: three digits
			for way, ask := range asked {
				err := ask(conn)
				if !errors.Is(err, store.Unavailable) || store.Answered(err) {
					t.Errorf("%s with %d in answer to a %s: %v", name, code, way, err)
				}
				if strings.Contains(fmt.Sprint(err), canary) {
					t.Errorf("%s with %d in answer to a %s: the error tells too much: %v", name, code, way, err)
				}
				if said := fmt.Sprint(err); code < 500 && text != "" && !strings.Contains(said, fmt.Sprintf("answers %d", code)) {
					t.Errorf("%s with %d in answer to a %s: %v", name, code, way, err)
				}
			}
		}
	}
}

// A 404 with data is Vault's for a deleted version of a KV v2 secret alone.
func TestNotFoundWithData(t *testing.T) {
	for text, is := range map[string]map[string]bool{
		`{"data":{"metadata":{"page":1}}}`:                                      {},
		`{"data":{"data":null,"metadata":{"version":2,"destroyed":true}}}`:      {"read of KV v2": true},
		`{"data":{"data":null,"metadata":{"deletion_time":"2026-01-01"}}}`:      {"read of KV v2": true},
		`{"data":{"data":null,"metadata":{"deletion_time":5,"destroyed":"x"}}}`: {},
	} {
		conn := stands(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprint(w, text)
		})
		for way, ask := range ways(t) {
			want := store.Unavailable
			if is[way] {
				want = store.NotFound
			}
			if err := ask(conn); !errors.Is(err, want) {
				t.Errorf("%s in answer to a %s: %v", text, way, err)
			}
		}
	}
}

// Nothing at all is an answer only to what Vault has nothing to say to.
func TestAnswersWithoutContent(t *testing.T) {
	conn := stands(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for way, ask := range ways(t) {
		want := map[string]error{"end of a login": nil, "end of a lease": nil, "write": store.Invalid}
		kind, is := want[way]
		if !is {
			kind = store.Unavailable
		}
		if err := ask(conn); !errors.Is(err, kind) {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// The reader learns which server that was, if it says so.
func TestStrangersAreNamed(t *testing.T) {
	conn := stands(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "istio\u200b-envoy "+r.Header.Get("X-Vault-Token"))
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, "RBAC: access denied")
	})
	err := ways(t)["read of KV v2"](conn)
	const want = ` answers 403 with text in place of Vault's own answer (its header Server is "istio\u200b-envoy [hidden]"); is there a proxy, ` +
		`an ingress, a service mesh or a login page in between, or another server at this address of keymount.yaml?`
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A redirect to what is not Vault's API, such as a login page, gets no second request.
func TestRedirectToALoginPage(t *testing.T) {
	requests := 0
	conn := stands(t, func(w http.ResponseWriter, _ *http.Request) {
		requests++
		w.Header().Set("Location", "/oauth2/start")
		w.WriteHeader(http.StatusFound)
	})
	err := ways(t)["login"](conn)
	if !errors.Is(err, store.Unavailable) || !strings.Contains(err.Error(), "answers 302 with a redirect to ") || requests != 1 {
		t.Errorf("%d requests: %v", requests, err)
	}
}

// What Vault says itself counts, also where it says little.
func TestVaultsOwnAnswers(t *testing.T) {
	const envelope = `"request_id":"4f6a8c60-0c9e-4c7c-8a57-b1b1c0a4a1f0","lease_id":"","renewable":false,"lease_duration":0,"wrap_info":null,"auth":null,"mount_type":"kv"`
	for name, test := range map[string]struct {
		way    string
		status int
		body   string
		kind   error
	}{
		"no such secret":         {"read of KV v2", 404, `{"errors":[]}`, store.NotFound},
		"no such route":          {"read of another", 404, `{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}`, store.NotFound},
		"a deleted version":      {"read of KV v2", 404, `{` + envelope + `,"data":{"data":null,"metadata":{"version":2,"deletion_time":"x"}},"warnings":null}`, store.NotFound},
		"a warning":              {"read of KV v1", 404, `{` + envelope + `,"data":null,"warnings":["Invalid path for a versioned K/V secrets engine."]}`, store.NotFound},
		"errors and data":        {"read of another", 400, `{"errors":["x"],"data":{"a":"b"}}`, store.Invalid},
		"a method":               {"read of another", 405, `{"errors":["1 error occurred:\n\t* unsupported operation\n\n"]}`, store.Invalid},
		"a policy":               {"login", 403, `{"errors":["permission denied"]}`, store.Denied},
		"a lease that has ended": {"renewal of a lease", 400, `{"errors":["lease not found"]}`, store.Invalid},
		"too large":              {"write", 413, `{"errors":["http: request body too large"]}`, store.Invalid},
		"a secret of KV v1":      {"read of KV v1", 200, `{` + envelope + `,"data":{"a":"b"},"warnings":null}`, nil},
		"of an older Vault":      {"read of KV v1", 200, `{"data":{"a":"b"}}`, nil},
		"only a warning":         {"read of another", 200, `{` + envelope + `,"data":null,"warnings":["Endpoint ignored"]}`, store.Invalid},
		"a lease that is ended":  {"end of a lease", 202, `{` + envelope + `,"data":null,"warnings":["x"]}`, nil},
		"more beside it":         {"read of another", 200, `{` + envelope + `,"data":{"a":"b"},"warnings":null,"a":"b"}`, nil},
	} {
		conn := stands(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/auth/token/lookup-self" {
				_, _ = fmt.Fprint(w, `{"data":{}}`)
				return
			}
			w.WriteHeader(test.status)
			_, _ = fmt.Fprint(w, test.body)
		})
		if err := ways(t)[test.way](conn); !errors.Is(err, test.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A member of Vault's envelope has one type, or is null: else the answer is a stranger's.
func TestEnvelopesHaveTheirTypes(t *testing.T) {
	for member, good := range map[string]bool{
		`"request_id":null`: true, `"request_id":1`: false, `"lease_id":null`: true, `"lease_id":{}`: false,
		`"renewable":null`: true, `"renewable":"true"`: false, `"mount_type":null`: true, `"mount_type":[]`: false,
		`"lease_duration":60`: true, `"lease_duration":null`: true, `"lease_duration":"60"`: false,
		`"lease_duration":1.5`: false, `"lease_duration":1e3`: false, `"lease_duration":123456789012345678901`: false,
		`"warnings":[]`: true, `"warnings":["a",null]`: true, `"warnings":[1]`: false, `"warnings":{}`: false, `"warnings":"a"`: false,
		`"auth":{}`: true, `"auth":{"policies":["a"],"renewable":true}`: true, `"auth":{"policies":"a"}`: false, `"auth":[]`: false, `"auth":{"lease_duration":"1"}`: false,
		`"wrap_info":{"token":"a","ttl":1}`: true, `"wrap_info":{"ttl":"1"}`: false, `"wrap_info":true`: false,
	} {
		conn := stands(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, `{"data":{"a":"b"},%s}`, member) })
		if err := ways(t)["read of KV v1"](conn); (err == nil) != good || err != nil && !errors.Is(err, store.Unavailable) {
			t.Errorf("%s: %v", member, err)
		}
	}
}

// While a stranger stands at the address, what was read last stands in, whatever it says,
// and comes back when Vault does.
func TestLastGoodValueOutlivesStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, "vault:8200")
		kept := keep.New(login.Open(login.Options{Store: r, Resolver: r, Leaser: r, Now: time.Now}), keep.Options{
			Refresh: time.Minute, Stale: time.Hour, Pool: keep.NewPool(1<<20, time.Now, nil), Now: time.Now,
		})
		var answer atomic.Pointer[func(w http.ResponseWriter)]
		stop := r.network.listen(t, "vault:8200", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			if say := answer.Load(); say != nil {
				(*say)(w)
				return
			}
			_, _ = fmt.Fprint(w, bodyOf(`{"a":"b"}`))
		}))
		defer stop()
		read := func(want keep.Source) {
			t.Helper()
			got, err := readOne(t, kept, "secret/shop/db")
			if err != nil || got.Source != want {
				t.Fatalf("from %q, want %q: %v", got.Source, want, err)
			}
		}
		read(keep.FromStore)
		for _, status := range []int{200, 403, 404, 400} {
			for name, body := range strangers {
				t.Log(status, name)
				answer.Store(new(func(w http.ResponseWriter) { w.WriteHeader(status); _, _ = fmt.Fprint(w, body) }))
				<-time.After(time.Minute)
				read(keep.Stale)
				answer.Store(nil)
				<-time.After(time.Minute)
				read(keep.FromStore)
			}
		}
	})
}

// One path that a proxy keeps to itself closes the way to no other: the address is not
// doubted for it, and what may have made something is not sent twice.
func TestStrangerAtOnePath(t *testing.T) {
	s, other := startServer(t), startServer(t)
	for _, server := range []*server{s, other} {
		server.secrets["shop/db"] = map[string]any{"a": "b"}
	}
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		odd := strings.HasPrefix(r.URL.Path, "/v1/database/") || r.URL.Path == "/v1/sys/health"
		if odd {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, "RBAC: access denied")
		}
		return odd
	}
	v := open(t, s.URL)
	for range 10 {
		if _, err := v.Read(t.Context(), caller(), ref(t, "database/creds/shop")); !errors.Is(err, store.Unavailable) || !isUncertain(err) {
			t.Fatal(err)
		}
	}
	if _, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
		t.Errorf("another path: %v", err)
	}
	v = open(t, s.URL, other.URL)
	_, err := v.Read(t.Context(), caller(), ref(t, "database/creds/shop"))
	if n := strings.Count(strings.Join(other.seen(), " "), "database/creds"); !errors.Is(err, store.Unavailable) || n != 0 {
		t.Errorf("it was sent %d times to the second address: %v", n, err)
	}
	if _, err := v.Read(t.Context(), caller(), ref(t, "database/creds/shop")); errors.Is(err, store.Unavailable) {
		t.Errorf("the next mount does not go to the second address: %v", err)
	}
}

// Where one of several addresses is a stranger's, the others serve.
func TestStrangerAmongAddresses(t *testing.T) {
	for name, body := range strangers {
		s, odd := startServer(t), startServer(t)
		s.secrets["shop/db"] = map[string]any{"a": "b"}
		odd.answer = func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprint(w, body)
			return true
		}
		if _, err := open(t, odd.URL, s.URL).Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
