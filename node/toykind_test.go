package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

// toy is a third kind of store, to see that a new one needs nothing beside its own package
// and a line in store/all: a cloud whose logins may have a role, and whose paths may begin
// with a slash. It is about as short as a kind can be.
type toy struct {
	cloud     *cloud
	forgetful bool // without Memory
	open      bool // without Logins
}

func (toy) Name() string    { return "toy" }
func (toy) Example() string { return "toy: {server: ...}" }
func (k toy) Traits() kind.Traits {
	return kind.Traits{Roles: access.Optional, Logins: !k.open, Memory: !k.forgetful}
}
func (k toy) New() kind.Settings { return &toySettings{toy: k} }

type toySettings struct {
	Server string `yaml:"server"`
	toy    toy
}

func (s *toySettings) Check(m kind.Mistakes) {
	if s.Server == "" {
		m.At("server").Add("missing; name the server")
	}
}
func (*toySettings) Audience() string     { return "toys" }
func (*toySettings) Files() []*string     { return nil }
func (s *toySettings) Fingerprint() []any { return []any{s.Server} }
func (*toySettings) Path(text string) (store.Path, error) {
	return store.ParsePath(strings.TrimPrefix(text, "/"))
}
func (*toySettings) IsText(store.Path) bool { return false }

func (*toySettings) Fits(kind.Place) bool { return false }
func (s *toySettings) Open(env kind.Env) (kind.Layers, error) {
	cloud := s.toy.cloud
	opened := toys{cloud, env.Now}
	layers := kind.Layers{Store: opened, Login: opened, Probe: func(context.Context) error {
		cloud.mu.Lock()
		defer cloud.mu.Unlock()
		cloud.probes++
		return nil
	}}
	if s.toy.open {
		layers.Login = nil
	}
	return layers, nil
}

type toys struct {
	cloud *cloud
	now   func() time.Time
}

func (t toys) Login(ctx context.Context, _ auth.Identity, token secret.Bytes, role string) (login.Login, error) {
	session, code := t.cloud.logIn(ctx, string(token.Reveal()), role)
	if code != "" {
		return login.Login{}, code.Errorf("log in as role %q", role)
	}
	return login.Login{Token: secret.New([]byte(session)), Expires: t.now().Add(time.Hour)}, nil
}

func (t toys) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	if ref.Version != "" {
		return store.Value{}, store.Invalid.Errorf("toys have no versions")
	}
	data, code := t.cloud.get(ctx, string(caller.Login.Reveal()), ref.Path.String())
	if code != "" {
		return store.Value{}, code.Errorf("read %q", ref.Path)
	}
	return store.Value{Data: data}, nil
}

// cloud is what toys are asked over their network, with its answers by reason: "" is a
// good one.
type cloud struct {
	roles []string // beside "", which every token may have

	mu      sync.Mutex
	proof   string // the one token that counts; empty is any
	secrets map[string]secret.Tree
	behave  func(ctx context.Context) store.Reason
	logins  int
	reads   int
	probes  int
	open    bool // needs no login
}

func newCloud(t *testing.T, secrets map[string]map[string]any) *cloud {
	t.Helper()
	c := &cloud{roles: []string{"arn:aws:iam::1:role/shop/api"}, secrets: map[string]secret.Tree{}}
	c.behave = func(context.Context) store.Reason { return "" }
	for path, data := range secrets {
		tree, err := secret.NewTree(data)
		if err != nil {
			t.Fatal(err)
		}
		c.secrets[path] = tree
	}
	return c
}

func (c *cloud) logIn(ctx context.Context, token, role string) (session string, code store.Reason) {
	if code := c.ask(ctx, &c.logins); code != "" {
		return "", code
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proof != "" && token != c.proof || role != "" && !slices.Contains(c.roles, role) {
		return "", store.Denied
	}
	return "session of " + role, ""
}

func (c *cloud) get(ctx context.Context, session, path string) (secret.Tree, store.Reason) {
	if code := c.ask(ctx, &c.reads); code != "" {
		return secret.Tree{}, code
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	data, known := c.secrets[path]
	switch {
	case !c.open && !strings.HasPrefix(session, "session of "):
		return secret.Tree{}, store.Ended
	case strings.HasPrefix(path, "prod/locked"):
		return secret.Tree{}, store.Denied
	case !known:
		return secret.Tree{}, store.NotFound
	}
	return data, ""
}

// ask counts a request, and behaves.
func (c *cloud) ask(ctx context.Context, counter *int) store.Reason {
	c.mu.Lock()
	*counter++
	behave := c.behave
	c.mu.Unlock()
	if code := behave(ctx); code != "" {
		return code
	}
	if ctx.Err() != nil {
		return store.Unavailable
	}
	return ""
}

// faults are all that there are.
func (c *cloud) faults() storetest.Faults {
	set := func(f func(context.Context) store.Reason) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.behave = f
	}
	return storetest.Faults{
		Fail: func(reason store.Reason) { set(func(context.Context) store.Reason { return reason }) },
		Hang: func() <-chan struct{} {
			reached := make(chan struct{})
			reach := sync.OnceFunc(func() { close(reached) })
			set(func(ctx context.Context) store.Reason { reach(); <-ctx.Done(); return "" })
			return reached
		},
	}
}

func TestToyKind(t *testing.T) {
	storetest.Kind(t, storetest.KindSubject{
		Kind: toy{cloud: newCloud(t, nil)}, Settings: "server: one.invalid", Elsewhere: "server: other.invalid",
		Paths: []string{"prod/db", "/prod/db", "arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf"},
	})
}

func TestToyRead(t *testing.T) {
	storetest.Read(t, func(t *testing.T, secrets map[string]map[string]any) storetest.Subject {
		t.Helper()
		c := newCloud(t, secrets)
		caller := store.Caller{Login: secret.New([]byte("session of "))}
		return storetest.Subject{Store: toys{c, time.Now}, Caller: caller, Faults: c.faults()}
	})
}

func TestToyLogin(t *testing.T) {
	storetest.Login(t, func(t *testing.T) storetest.LoginSubject {
		t.Helper()
		c := newCloud(t, map[string]map[string]any{"prod/db": {"password": storetest.Canary}})
		c.proof = "proof of a pod"
		opened := toys{c, time.Now}
		return storetest.LoginSubject{
			Method: opened, Token: secret.New([]byte(c.proof)), Role: c.roles[0], UnknownRole: "arn:aws:iam::2:role/shop/api", Now: time.Now, Faults: c.faults(),
			Use: func(ctx context.Context, l login.Login) error {
				path, err := (&toySettings{}).Path("/prod/db")
				if err != nil {
					return err
				}
				_, err = opened.Read(ctx, store.Caller{Login: l.Token}, store.Ref{Path: path})
				return err
			},
		}
	})
}

// The mistakes of a keymount.yaml are told in the toy's name.
func TestToyMistakes(t *testing.T) {
	var examples []string
	for _, k := range all.All() {
		examples = append(examples, k.Example())
	}
	others := strings.Join(examples, ", ")
	const rules = `access: [{namespaces: ["*"], serviceAccounts: ["*"], paths: ["**"]`
	for name, test := range map[string]struct{ store, want string }{
		"settings":      {`toy: {}, ` + rules + `, roles: [""]}]`, "line 2: stores[0].toy.server: missing; name the server"},
		"unknown field": {`toy: {sever: a}`, `line 2: unknown field "sever"; did you mean "server"?`},
		"no settings":   {`refresh: 1m`, "line 2: stores[0]: says no kind of store; add " + others + " or toy: {server: ...}"},
		"two kinds":     {`vault: {addresses: ["https://a"]}, toy: {server: a}`, "line 2: stores[0]: is a vault and a toy; make two stores of it"},
		"no roles":      {`toy: {server: a}, ` + rules + `}]`, `line 2: stores[0].access[0].roles: missing; a list that is not there allows nothing, write ["", "**"] for all`},
		"no policies":   {`toy: {server: a}, access: store`, "line 2: stores[0].access: store leaves the decision to the store's own policies, and a toy has none; write rules"},
		"no writes":     {`toy: {server: a}, ` + rules + `, roles: [""], writes: ["**"]}]`, "line 2: stores[0].access[0].writes: this kind of store answers no writes; remove the list"},
		"session":       {`toy: {server: a}, session: nobody, ` + rules + `, roles: [""]}]`, `line 2: stores[0].session: "nobody" is none of serviceAccount, pod`},
		"refresh":       {`toy: {server: a}, refresh: 2h, ` + rules + `, roles: [""]}]`, "line 2: stores[0].refresh: 2h0m0s is not from 0s to 1h"},
		"no mistake":    {`toy: {server: a}, ` + rules + `, roles: ["", "arn:aws:iam::1:role/{namespace}/*"]}]`, "<nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse([]byte("stores:\n  - {"+test.store+"}\n"), append(all.All(), toy{}))
			if got := fmt.Sprint(err); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
