package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// Store reads with the login of each caller. It is safe for concurrent use.
type Store struct {
	conn      *Conn
	namespace string // may hold {namespace}
	login     string // the namespace of the logins, likewise
	mounts    *mounts
}

// New reads over conn. namespace is Vault's, and {namespace} in it stands for the
// pod's; configured has the engines of mounts that need no look-up.
func New(conn *Conn, namespace string, configured map[string]Engine) *Store {
	return &Store{conn: conn, namespace: namespace, login: namespace, mounts: newMounts(conn, configured)}
}

// LoggedInIn is a Store with logins of another namespace of Vault's than it reads in.
func (s *Store) LoggedInIn(namespace string) *Store {
	other := *s
	other.login = namespace
	return &other
}

// Namespace is Vault's namespace for a pod of this Kubernetes namespace.
func Namespace(pattern, kubernetes string) string {
	return strings.ReplaceAll(pattern, "{namespace}", kubernetes)
}

// Resolve implements [store.Resolver]: the path of a KV v2 secret is mount and
// name, with or without data/ between them.
func (s *Store) Resolve(ctx context.Context, caller store.Caller, ref store.Ref) (store.Resolved, error) {
	if isSystem(ref.Path) {
		return ofSystem(ref.Path), nil
	}
	p, err := s.find(ctx, caller, ref.Path)
	if err != nil {
		return store.Resolved{}, s.explain(ctx, caller, err, store.Doubt)
	}
	return p.resolve(ref)
}

// RecallPath implements [store.PathRecaller]: keymount.yaml names the mount, or Vault has
// named it for somebody.
func (s *Store) RecallPath(caller store.Caller, ref store.Ref) (store.Resolved, bool) {
	if isSystem(ref.Path) {
		return ofSystem(ref.Path), true
	}
	p, known := s.mounts.lookup(s.in(caller), ref.Path)
	if !known {
		return store.Resolved{}, false
	}
	resolved, err := p.resolve(ref)
	return resolved, err == nil
}

// ofSystem is a path that belongs to Vault itself.
func ofSystem(path store.Path) store.Resolved {
	return store.Resolved{Path: path, Literal: path.Segments()[0], Makes: true}
}

// resolve is the one spelling of a path in this place.
func (p place) resolve(ref store.Ref) (store.Resolved, error) {
	if literal := p.system(); literal != "" {
		return store.Resolved{Path: ref.Path, Literal: literal, Makes: true}, nil
	}
	makes := ref.Args != "" || p.engine == Other
	if p.engine != KV2 {
		return store.Resolved{Path: ref.Path, Makes: makes}, nil
	}
	first, name, deeper := strings.Cut(p.rest, "/")
	switch {
	case first == "data" && deeper:
		path, err := store.ParsePath(p.mount + "/" + name)
		if err != nil {
			return store.Resolved{}, &store.Error{Reason: store.Invalid, Cause: err}
		}
		return store.Resolved{Path: path, Makes: makes}, nil
	case isInternal(first, deeper):
		return store.Resolved{Path: ref.Path, Literal: first, Makes: makes}, nil
	}
	return store.Resolved{Path: ref.Path, Makes: makes}, nil
}

// isInternal tells the parts of a KV v2 engine that are no secrets.
func isInternal(first string, deeper bool) bool {
	switch first {
	case "metadata", "delete", "undelete", "destroy", "subkeys":
		return deeper
	case "config":
		return !deeper
	}
	return false
}

// Read implements [store.Store].
func (s *Store) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	p, err := s.find(ctx, caller, ref.Path)
	if err != nil {
		return store.Value{}, s.explain(ctx, caller, err, store.Doubt)
	}
	request, err := p.request(ref)
	if err != nil {
		return store.Value{}, err
	}
	request.Namespace, request.Token, request.For = s.in(caller), caller.Login, caller.Identity.Namespace
	answer, err := s.conn.Do(ctx, request)
	if err != nil {
		return store.Value{}, s.explain(ctx, caller, err, store.Doubt)
	}
	words := request.words()
	value, err := p.value(answer, words)
	if err == nil {
		value.NotAfter = notAfter(answer, s.conn.now())
		value.Warnings = words.cleanAll(answer.Warnings)
	}
	return value, err
}

// Renew implements [store.Leaser]. It asks for the life that the lease had.
func (s *Store) Renew(ctx context.Context, caller store.Caller, lease store.Lease) (store.Lease, error) {
	answer, err := s.conn.Do(ctx, Request{
		Method: http.MethodPut, Path: "sys/leases/renew", Namespace: s.in(caller), Token: caller.Login,
		Wants: ofLease, Public: pathOf(lease),
		Body: map[string]any{"lease_id": string(lease.ID.Reveal()), "increment": int(lease.Duration.Seconds())},
	})
	switch {
	case err != nil:
		return store.Lease{}, s.explain(ctx, caller, err, store.Unavailable)
	case answer == nil || answer.LeaseDuration <= 0:
		return store.Lease{}, store.Invalid.Errorf("the answer says nothing of the lease's life")
	}
	lease.Duration, lease.Renewable = time.Duration(answer.LeaseDuration)*time.Second, answer.Renewable
	return lease, nil
}

// Revoke implements [store.Leaser]. None of Vault's built-in policies allows it.
func (s *Store) Revoke(ctx context.Context, caller store.Caller, lease store.Lease) error {
	_, err := s.conn.Do(ctx, Request{
		Method: http.MethodPut, Path: "sys/leases/revoke", Namespace: s.in(caller), Token: caller.Login,
		Wants: ofNothing, Public: pathOf(lease),
		Body: map[string]any{"lease_id": string(lease.ID.Reveal())},
	})
	if err != nil {
		return s.explain(ctx, caller, err, store.Unavailable)
	}
	return nil
}

// pathOf is what a lease's id begins with: the path that it was read from.
func pathOf(lease store.Lease) []string {
	id := string(lease.ID.Reveal())
	return []string{id[:max(strings.LastIndexByte(id, '/'), 0)]}
}

// notAfter is a certificate's expiration, or the next change of a password that Vault
// changes by itself.
func notAfter(answer *api.Secret, now time.Time) time.Time {
	if end, ok := number(answer.Data["expiration"]); ok && answer.Data["certificate"] != nil {
		return time.Unix(end, 0)
	}
	if seconds, ok := number(answer.Data["ttl"]); ok && answer.Data["last_vault_rotation"] != nil {
		return now.Add(time.Duration(seconds) * time.Second)
	}
	return time.Time{}
}

func number(v any) (int64, bool) {
	text, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	n, err := text.Int64()
	return n, err == nil
}

func (s *Store) in(caller store.Caller) string {
	return Namespace(s.namespace, caller.Identity.Namespace)
}

func (s *Store) find(ctx context.Context, caller store.Caller, path store.Path) (place, error) {
	return s.mounts.find(ctx, s.in(caller), caller, path)
}

// explain tells the two meanings of a 403 apart: the token has ended, or a policy
// denies. It looks up the token instead of logging in anew. A token without the default
// policy may not look itself up; where the server does not tell the two apart, the
// reason is [store.Doubt]. Without an answer to the look-up the reason is unanswered:
// for a read a denial is an answer all the same, and a renewal is tried again.
func (s *Store) explain(ctx context.Context, caller store.Caller, err error, unanswered store.Reason) error {
	denied := denial(err)
	if denied == nil {
		return err
	}
	_, lookup := s.conn.Do(ctx, Request{
		Method: http.MethodGet, Path: "auth/token/lookup-self", Namespace: Namespace(s.login, caller.Identity.Namespace), Token: caller.Login, Wants: ofData,
	})
	switch {
	case errors.Is(lookup, store.Unavailable):
		return resaid(denied, unanswered, "; whether the login has ended cannot be asked: "+lookup.Error())
	case errors.Is(lookup, store.Ended):
		return resaid(denied, store.Ended, "")
	case errors.Is(lookup, store.Denied):
		return resaid(denied, store.Doubt, "; no policy of the role allows it, and none lets it look at its own token")
	}
	return resaid(denied, store.Denied, "; no policy of the role allows it")
}

// denial is the error of a 403; nil for any other.
func denial(err error) *store.Error {
	if e, ok := errors.AsType[*store.Error](err); ok && (e.Reason == store.Denied || e.Reason == store.Ended) {
		return e
	}
	return nil
}

// resaid is e with another reason and more text.
func resaid(e *store.Error, reason store.Reason, more string) *store.Error {
	other := *e
	other.Reason = reason
	if other.Said += more; e.Said == "" {
		other.Said = strings.TrimLeft(more, ";: ")
	}
	return &other
}

// request is the API's request for a place.
func (p place) request(ref store.Ref) (Request, error) {
	if ref.Args != "" {
		return Request{Method: http.MethodPut, Path: ref.Path.String(), Body: json.RawMessage(ref.Args), Once: true, Wants: ofWrite}, nil
	}
	query, err := url.ParseQuery(ref.Query)
	if err != nil {
		return Request{}, store.Invalid.Errorf("the query is not of the form name=value")
	}
	r := Request{Method: http.MethodGet, Path: ref.Path.String(), Query: query, Once: p.engine == Other, Wants: p.wants()}
	if p.engine == KV2 && !isInternalPath(p.rest) {
		r.Wants, r.Path = ofKV2, p.mount+"/data/"+strings.TrimPrefix(p.rest, "data/")
		if p.rest == "" {
			return Request{}, store.Invalid.Errorf("%q is a mount; name a secret in it", ref.Path)
		}
		if ref.Version != "" {
			r.Query.Set("version", ref.Version)
		}
		return r, nil
	}
	if ref.Version != "" {
		return Request{}, store.Invalid.Errorf("only secrets of a KV v2 engine have versions; remove version: %s", ref.Version)
	}
	return r, nil
}

func isInternalPath(rest string) bool {
	first, _, deeper := strings.Cut(rest, "/")
	return isInternal(first, deeper)
}

// value is the value of an answer: of KV v2 the secret without its envelope.
func (p place) value(answer *api.Secret, words words) (store.Value, error) {
	if text, is, err := p.textValue(answer); is || err != nil {
		return valueOfText(text), err
	}
	if answer == nil || answer.Data == nil {
		return store.Value{}, store.Invalid.Errorf("the answer holds no data%s", said(answer, words))
	}
	data, version := any(answer.Data), ""
	enveloped := p.engine == KV2 && !isInternalPath(p.rest)
	if enveloped {
		inner, ok := answer.Data["data"].(map[string]any)
		if !ok {
			return store.Value{}, store.NotFound.Errorf("this version was deleted or holds nothing%s", said(answer, words))
		}
		metadata, _ := answer.Data["metadata"].(map[string]any)
		if n, ok := metadata["version"].(json.Number); ok { // any text may be there
			version = trimmed(n.String())
		}
		data = inner
	}
	tree, err := secret.NewTree(data)
	if err != nil {
		return store.Value{}, &store.Error{Reason: store.Invalid, Said: "the answer", Cause: err}
	}
	return store.Value{
		Data: tree, About: p.about(answer.Data), Envelope: envelope(answer, tree, enveloped), Version: version, RequestID: words.id(answer.RequestID), Lease: lease(answer),
	}, nil
}

func valueOfText(text string) store.Value {
	tree, _ := secret.NewTree(text) // which takes any text
	return store.Value{Data: tree}
}

func lease(answer *api.Secret) *store.Lease {
	if answer.LeaseID == "" {
		return nil
	}
	return &store.Lease{
		ID:        secret.New([]byte(answer.LeaseID)),
		Duration:  time.Duration(answer.LeaseDuration) * time.Second,
		Renewable: answer.Renewable,
	}
}

func said(answer *api.Secret, words words) string {
	if answer == nil || len(answer.Warnings) == 0 {
		return ""
	}
	return ": " + words.clean(strings.Join(answer.Warnings, "; "))
}
