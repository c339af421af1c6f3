package scrub_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/internal/scrub"
)

const (
	token = "hvs.obviously-fake-24-chars"
	jwt   = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJvYnZpb3VzbHkgZmFrZSJ9.b2J2aW91c2x5LWZha2U"
	// opaque has no token's form.
	opaque = "Zq8-obviously fake?/4711<x>"
)

func TestCleanHidesWhatWasSent(t *testing.T) {
	sent := scrub.Sent{
		Credentials: []string{token, opaque}, Arguments: []string{"api.shop.svc", "24h", "4711", "database/creds/shop/AbCdEfGhIj"},
		Kept: []string{"database/creds/shop", "shop-api"},
	}
	quoted, err := json.Marshal(opaque)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ text, want string }{
		"nothing of it":           {"permission denied", "permission denied"},
		"empty":                   {"", ""},
		"a token":                 {"bad token " + token + " of role shop-api", "bad token [hidden] of role shop-api"},
		"without a form":          {"no: " + opaque + "!", "no: [hidden]!"},
		"in JSON":                 {"body " + string(quoted), `body "[hidden]"`},
		"in Go's quotes":          {fmt.Sprintf("body %q", opaque), `body "[hidden]"`},
		"in a query":              {"x=" + url.QueryEscape(opaque), "x=[hidden]"},
		"in hexadecimal":          {"at " + strings.ToUpper(hex.EncodeToString([]byte(opaque))), "at [hidden]"},
		"in capitals":             {strings.ToUpper(opaque), "[hidden]"},
		"over two lines":          {opaque[:9] + "\n\t" + opaque[9:], "[hidden]"},
		"its beginning":           {"got " + opaque[:12] + "...", "got [hidden]..."},
		"its end":                 {"got ..." + opaque[12:], "got ...[hidden]"},
		"an argument":             {"common name api.shop.svc not allowed by this role", "common name [hidden] not allowed by this role"},
		"a short argument":        {"ttl 24h is beyond 124h, code 4711", "ttl [hidden] is beyond 124h, code [hidden]"},
		"a lease id":              {"lease database/creds/shop/AbCdEfGhIj not found", "lease database/creds/shop[hidden] not found"},
		"a path":                  {"no handler for database/creds/shop", "no handler for database/creds/shop"},
		"twice":                   {token + " and " + token, "[hidden] and [hidden]"},
		"bytes that are no text":  {"a\xff" + token + "\xff", "a[hidden]"},
		"a foreign JWT":           {"claims of " + jwt + ": expired", "claims of [hidden]: expired"},
		"a JWT that is cut off":   {"token eyJhbGciOiJSUzI1", "token [hidden]"},
		"a batch token":           {"hvb.AAAAAQ-fake_fake: no", "[hidden]: no"},
		"a recovery token":        {"(hvr.obviouslyfake)", "([hidden])"},
		"an old token":            {"bad s.obviouslyfake0123456789ab", "bad [hidden]"},
		"one of a namespace":      {"bad s.obviouslyfake0123456789ab.nsid1, sorry", "bad [hidden], sorry"},
		"an old batch token":      {"bad b.AAAAAQobviouslyfake01234", "bad [hidden]"},
		"an age key":              {"key AGE-SECRET-KEY-1OBVIOUSLYFAKE!", "key [hidden]!"},
		"a bearer token":          {"Authorization: Bearer obviously-fake-0123", "Authorization: [hidden]"},
		"a PEM block":             {"a -----BEGIN PRIVATE KEY-----\nZmFrZQ==\n-----END PRIVATE KEY----- b", "a [hidden] b"},
		"a PEM block that is cut": {"a -----BEGIN RSA PRIVATE KEY-----\nZmFr", "a [hidden]"},
		"hosts":                   {"vault-0.vault.svc:8200, services.example.org and b.example.org", "vault-0.vault.svc:8200, services.example.org and b.example.org"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sent.Clean(test.text); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

// A server may send back the whole of a request in base64, at any place.
func TestCleanHidesBase64(t *testing.T) {
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
		for shift := range 4 {
			body := strings.Repeat("{", shift) + opaque + "}"
			got := scrub.Sent{Credentials: []string{opaque}}.Clean("body: " + encoding.EncodeToString([]byte(body)))
			if left := strings.ReplaceAll(strings.TrimPrefix(got, "body: "), scrub.Hidden, ""); len(left) > 12 {
				t.Errorf("shifted by %d, %q is left", shift, left)
			}
		}
	}
}

func TestValues(t *testing.T) {
	got := scrub.Values([]byte(`{"name":"value","list":["a",{"deep":1.10,"no":null}],"yes":true,"last":"z"}`))
	if diff := cmp.Diff([]string{"value", "a", "1.10", "z"}, got); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string][]string{`"x"`: {"x"}, `{}`: nil, `no JSON`: {"no JSON"}, strings.Repeat("[", 100_000): {strings.Repeat("[", 100_000)}} {
		if diff := cmp.Diff(want, scrub.Values([]byte(text))); diff != "" {
			t.Error(diff)
		}
	}
}

// The time to clean a text is no multiple of what a server and a class may make of both.
func TestCleanIsQuick(t *testing.T) {
	began := time.Now()
	long := strings.Repeat("a", 1<<20)
	_ = scrub.Sent{Credentials: []string{long}, Arguments: []string{long, strings.Repeat("ab", 1<<19)}, Kept: []string{"a"}}.Clean(strings.Repeat("a", 4<<20))
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

// Whatever stands around it, nothing that was sent is left.
func FuzzClean(f *testing.F) {
	f.Add("bad token ", token, ": no", "shop")
	f.Add("", opaque, "", "secret/shop/db")
	f.Fuzz(func(t *testing.T, before, secret, after, kept string) {
		secret = strings.ToValidUTF8(secret, "")
		if len(strings.Join(strings.Fields(secret), "")) < 8 || len(before)+len(secret) > 1000 || strings.ContainsAny(secret, scrub.Hidden[:1]) {
			return
		}
		got := scrub.Sent{Credentials: []string{secret}, Kept: []string{kept}}.Clean(before + secret + after)
		if strings.Contains(got, secret) {
			t.Errorf("%q is left in %q", secret, got)
		}
	})
}
