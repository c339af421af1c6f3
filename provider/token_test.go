package provider_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/provider/providertest"
)

const refusedToken = "service account token refused: "

// Each case changes one thing in a good request. All run after the pod was served
// once, so that nothing remembered can vouch for a bad token.
func TestTokens(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	p := pod("shop", "api")
	if _, _, err := w.mount(t, w.volume(p, oneKey)); err != nil {
		t.Fatal(err)
	}
	past, future := time.Now().Add(-time.Hour).Truncate(time.Second), time.Now().Add(2*time.Hour).Truncate(time.Second)
	tests := map[string]struct {
		change func(*providertest.Claims)
		issuer *providertest.Issuer // signs instead of the accepted one
		want   string               // a ... stands for the time now
	}{
		"of another pod": {
			change: func(c *providertest.Claims) { c.Pod = providertest.Reference{Name: "web-0", UID: "uid-web"} },
			want:   "it belongs to pod web-0 (uid uid-web), the request is for pod api-0 (uid uid-shop-api)",
		},
		"of the same pod's predecessor": {
			change: func(c *providertest.Claims) { c.Pod.UID = "uid-before" },
			want:   "it belongs to pod api-0 (uid uid-before), the request is for pod api-0 (uid uid-shop-api)",
		},
		"of a pod of another name": {
			change: func(c *providertest.Claims) { c.Pod.Name = "web-0" },
			want:   "it belongs to pod web-0 (uid uid-shop-api), the request is for pod api-0 (uid uid-shop-api)",
		},
		"of no pod": {
			change: func(c *providertest.Claims) { c.Pod = providertest.Reference{} },
			want:   "it is not bound to a pod; where such tokens are wanted (secrets-store-sync-controller) set tokensWithoutPod: true on the store",
		},
		"of another service account": {
			change: func(c *providertest.Claims) {
				c.ServiceAccount.Name, c.Subject = "web", "system:serviceaccount:shop:web"
			},
			want: "it belongs to service account shop/web, the pod runs as shop/api",
		},
		"of another namespace": {
			change: func(c *providertest.Claims) { c.Namespace, c.Subject = "blog", "system:serviceaccount:blog:api" },
			want:   "it belongs to service account blog/api, the pod runs as shop/api",
		},
		"whose subject differs": {
			change: func(c *providertest.Claims) { c.Subject = "system:serviceaccount:kube-system:admin" },
			want:   `its subject "system:serviceaccount:kube-system:admin" and its claims ("system:serviceaccount:shop:api") differ`,
		},
		"without a uid of the account": {
			change: func(c *providertest.Claims) { c.ServiceAccount.UID = "" },
			want:   "it does not carry the uid of a service account; it is not from a TokenRequest",
		},
		"of another node": {
			change: func(c *providertest.Claims) { c.Node = providertest.Reference{Name: "node-2", UID: "u"} },
			want:   `it is bound to node "node-2", this is node "node-1"`,
		},
		"expired": {
			change: func(c *providertest.Claims) { c.Expires = past },
			want:   "it expired at " + past.UTC().Format(time.RFC3339) + " and this node's clock says ...; the kubelet sends a fresh one with its next call",
		},
		"not yet valid": {
			change: func(c *providertest.Claims) { c.NotBefore = future },
			want:   "it is not valid before " + future.UTC().Format(time.RFC3339) + " and this node's clock says ...; check the node's clock",
		},
		"without an end": {
			change: func(c *providertest.Claims) { c.Expires = time.Time{} },
			want:   "it has no expiry",
		},
		"with another audience": {
			change: func(c *providertest.Claims) { c.Audience = []string{"https://kubernetes.default.svc"} },
			want:   `it is for audience ["https://kubernetes.default.svc"], the store wants "keymount"`,
		},
		"without an audience": {
			change: func(c *providertest.Claims) { c.Audience = nil },
			want:   `it is for audience [], the store wants "keymount"`,
		},
		"of a foreign issuer": {
			issuer: newIssuer(t, "https://elsewhere.invalid", "key-1"),
			want:   `issuer "https://elsewhere.invalid" is not accepted, only "https://cluster.invalid" (issuers in keymount.yaml)`,
		},
		"signed with a key of the same name": {
			issuer: newIssuer(t, issuerName, "key-1"),
			want:   `the signature is not that of issuer "https://cluster.invalid"`,
		},
		"signed with an unknown key": {
			issuer: newIssuer(t, issuerName, "key-9"),
			want:   `issuer "https://cluster.invalid" has no key "key-9"`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			issuer := w.issuer
			if test.issuer != nil {
				issuer = test.issuer
			}
			claims := issuer.ClaimsFor(p, audience)
			if test.change != nil {
				test.change(&claims)
			}
			v := w.volume(p, oneKey)
			v.Tokens[audience] = w.sign(issuer, claims)
			_, _, err := w.mount(t, v)
			checkTokenRefusal(t, err, test.want)
		})
	}
}

// checkTokenRefusal compares a refusal whose text may hold the present time.
func checkTokenRefusal(t *testing.T, err error, want string) {
	t.Helper()
	before, after, dated := strings.Cut(refusedToken+want, "...")
	text := statusText(err)
	if dated && strings.HasPrefix(text, before) && strings.HasSuffix(text, after) {
		return
	}
	checkStatus(t, err, codes.Unauthenticated, refusedToken+want)
}

// What is no proper token at all is refused before any key is looked at.
func TestMalformedTokens(t *testing.T) {
	w := start(t)
	p := pod("shop", "api")
	good := w.sign(w.issuer, w.issuer.ClaimsFor(p, audience))
	parts := strings.Split(good, ".")
	header := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	tests := map[string]struct{ token, want string }{
		"algorithm none":              {header(`{"alg":"none","kid":"key-1"}`) + "." + parts[1] + ".", `signature algorithm "none" is not accepted, only RS256 to RS512 and ES256 to ES512`},
		"algorithm none, with a rest": {header(`{"alg":"none","kid":"key-1"}`) + "." + parts[1] + "." + parts[2], `signature algorithm "none" is not accepted, only RS256 to RS512 and ES256 to ES512`},
		"algorithm HS256":             {header(`{"alg":"HS256","kid":"key-1"}`) + "." + parts[1] + "." + parts[2], `signature algorithm "HS256" is not accepted, only RS256 to RS512 and ES256 to ES512`},
		"another algorithm":           {header(`{"alg":"RS256","kid":"key-1"}`) + "." + parts[1] + "." + parts[2], `the signature is not that of issuer "https://cluster.invalid"`},
		"no signature":                {parts[0] + "." + parts[1] + ".", `the signature is not that of issuer "https://cluster.invalid"`},
		"no key id":                   {header(`{"alg":"ES256"}`) + "." + parts[1] + "." + parts[2], "its header names no key (kid)"},
		"a key of its own":            {header(`{"alg":"ES256","jwk":{"kty":"oct","k":"AAAA"}}`) + "." + parts[1] + "." + parts[2], "it is not a signed JWT in compact form"},
		"not a JWT":                   {"not a token", "it is not a signed JWT in compact form"},
		"two parts":                   {parts[0] + "." + parts[1], "it is not a signed JWT in compact form"},
		"claims that are no object":   {parts[0] + "." + header(`"text"`) + "." + parts[2], "its claims are not those of a JWT"},
		"claims of a foreign payload": {parts[0] + "." + header(`{"iss":"https://cluster.invalid"}`) + "." + parts[2], `the signature is not that of issuer "https://cluster.invalid"`},
		"more bytes than a token has": {strings.Repeat("a", 64<<10+1), "65537 bytes are more than a token has (65536 at most)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := w.volume(p, oneKey)
			v.Tokens[audience] = test.token
			w.refused(t, v, codes.Unauthenticated, refusedToken+test.want)
		})
	}
	if w.memory.Reads() != 0 {
		t.Error("the store was read for a pod without a token")
	}
}

func TestMissingTokens(t *testing.T) {
	w := start(t)
	const cure = `: list the audience under tokenRequests of the CSIDriver object secrets-store.csi.k8s.io; with the driver's Helm chart: --set 'tokenRequests[0].audience=keymount'`
	for name, test := range map[string]struct {
		tokens map[string]string
		want   string
	}{
		"none":           {nil, `the driver sent no token for audience "keymount" (it sent none at all)` + cure},
		"others":         {map[string]string{"vault": "x", "": "y"}, `the driver sent no token for audience "keymount" (it sent "", "vault")` + cure},
		"an empty token": {map[string]string{audience: ""}, `the driver sent no token for audience "keymount" (it sent "keymount")` + cure},
	} {
		t.Run(name, func(t *testing.T) {
			v := w.volume(pod("shop", "api"), oneKey)
			v.Tokens = test.tokens
			w.refused(t, v, codes.Unauthenticated, refusedToken+test.want)
		})
	}
}

// A pod's author can write the tokens key himself when the CSIDriver object asks
// for no tokens: what he writes proves nothing.
func TestTokensKeyOfTheClass(t *testing.T) {
	w := start(t)
	stolen := w.sign(w.issuer, w.issuer.ClaimsFor(pod("shop", "api"), audience))
	v := w.volume(pod("blog", "web"), oneKey)
	v.Tokens = nil
	v.Parameters["csi.storage.k8s.io/serviceAccount.tokens"] = `{"keymount":{"token":"` + stolen + `"}}`
	w.refused(t, v, codes.Unauthenticated, refusedToken+"it belongs to service account shop/api, the pod runs as blog/web")
}

func TestTokensWithoutPod(t *testing.T) {
	w := start(t, func(_ *world, s *setup) { s.options.Backends[0].TokensWithoutPod = true })
	w.memory.Set("shop/db", map[string]any{"password": canary})
	controller := pod("shop", "api")
	controller.Name, controller.UID = "sync-controller-0", "uid-controller"
	v := w.volume(controller, oneKey)
	claims := w.issuer.ClaimsFor(controller, audience)
	claims.Pod = providertest.Reference{}
	v.Tokens[audience] = w.sign(w.issuer, claims)
	if _, _, err := w.mount(t, v); err != nil {
		t.Errorf("a token without a pod is refused where the operator allows it: %v", err)
	}
	claims.Pod = providertest.Reference{Name: "api-0", UID: "uid-other"}
	v.Tokens[audience] = w.sign(w.issuer, claims)
	w.refused(t, v, codes.Unauthenticated, refusedToken+"it belongs to pod api-0 (uid uid-other), the request is for pod sync-controller-0 (uid uid-controller)")
}

func TestNodeClaim(t *testing.T) {
	bound := func(w *world) providertest.Volume {
		w.memory.Set("shop/db", map[string]any{"password": canary})
		v := w.volume(pod("shop", "api"), oneKey)
		claims := w.issuer.ClaimsFor(pod("shop", "api"), audience)
		claims.Node = providertest.Reference{Name: node, UID: "u"}
		v.Tokens[audience] = w.sign(w.issuer, claims)
		return v
	}
	w := start(t)
	if _, _, err := w.mount(t, bound(w)); err != nil {
		t.Errorf("a token of this node is refused: %v", err)
	}
	nameless := start(t, func(_ *world, s *setup) { s.node = "" })
	nameless.refused(t, bound(nameless), codes.Unauthenticated,
		refusedToken+`it is bound to node "node-1" and keymount does not know its own node: start it with --node-name or NODE_NAME`)
}

// The API server's clock may run a minute ahead of the node's, and no more.
func TestClockSkew(t *testing.T) {
	w := start(t)
	w.memory.Set("shop/db", map[string]any{"password": canary})
	v := w.volume(pod("shop", "api"), oneKey)
	claims := w.issuer.ClaimsFor(pod("shop", "api"), audience)
	claims.NotBefore = time.Now().Add(50 * time.Second)
	v.Tokens[audience] = w.sign(w.issuer, claims)
	if _, _, err := w.mount(t, v); err != nil {
		t.Errorf("a clock 50 seconds behind: %v", err)
	}
	claims.NotBefore = time.Now().Add(90 * time.Second)
	v.Tokens[audience] = w.sign(w.issuer, claims)
	if _, _, err := w.mount(t, v); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a clock 90 seconds behind: %v", err)
	}
}

// Claims of another shape are refused after the signature, and say so.
func TestOddClaims(t *testing.T) {
	w := start(t)
	v := w.volume(pod("shop", "api"), oneKey)
	claims := w.issuer.ClaimsFor(pod("shop", "api"), audience)
	for name, change := range map[string]map[string]any{
		"claims as a text":  {"kubernetes.io": "x"},
		"audience a number": {"aud": 7},
		"end as a text":     {"exp": "tomorrow"},
		"no claims":         {"kubernetes.io": nil},
	} {
		claims.Extra = change
		v.Tokens[audience] = w.sign(w.issuer, claims)
		_, _, err := w.mount(t, v)
		if text := statusText(err); status.Code(err) != codes.Unauthenticated || strings.Contains(text, "signature") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
