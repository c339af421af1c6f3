package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// Store reads with the token of each session. It is safe for concurrent use.
type Store struct {
	conn      *Conn
	namespace string // may hold {namespace}
	mounts    *mounts
}

// New reads over conn. namespace is Vault's, and {namespace} in it stands for the
// pod's; configured says which engine is mounted where, for what is not asked then.
func New(conn *Conn, namespace string, configured map[string]Engine) *Store {
	return &Store{conn: conn, namespace: namespace, mounts: newMounts(conn, configured)}
}

// Namespace is Vault's namespace for a pod of this Kubernetes namespace.
func Namespace(pattern, kubernetes string) string {
	return strings.ReplaceAll(pattern, "{namespace}", kubernetes)
}

// Resolve implements [store.Resolver]: the path of a KV v2 secret is mount and
// name, with or without data/ between them.
func (s *Store) Resolve(ctx context.Context, session store.Session, ref store.Ref) (store.Resolved, error) {
	makes := ref.Args != ""
	if isSystem(ref.Path) {
		return store.Resolved{Path: ref.Path, Literal: ref.Path.Segments()[0], Makes: true}, nil
	}
	p, err := s.find(ctx, session, ref.Path)
	if err != nil {
		return store.Resolved{}, s.explain(ctx, session, err, store.ErrDoubt)
	}
	makes = makes || p.engine == Other
	if p.engine != KV2 {
		return store.Resolved{Path: ref.Path, Makes: makes}, nil
	}
	first, name, deeper := strings.Cut(p.rest, "/")
	switch {
	case first == "data" && deeper:
		path, err := store.ParsePath(p.mount + "/" + name)
		if err != nil {
			return store.Resolved{}, fmt.Errorf("%w: %w", store.ErrInvalid, err)
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
func (s *Store) Read(ctx context.Context, session store.Session, ref store.Ref) (store.Value, error) {
	p, err := s.find(ctx, session, ref.Path)
	if err != nil {
		return store.Value{}, s.explain(ctx, session, err, store.ErrDoubt)
	}
	request, err := p.request(ref)
	if err != nil {
		return store.Value{}, err
	}
	request.Namespace, request.Token = s.in(session), session.Token
	answer, err := s.conn.Do(ctx, request)
	if err != nil {
		return store.Value{}, s.explain(ctx, session, err, store.ErrDoubt)
	}
	value, err := p.value(answer)
	if err == nil {
		value.NotAfter = notAfter(answer, s.conn.now())
		value.Warnings = trimmedAll(answer.Warnings)
	}
	return value, err
}

// Renew implements [store.Leaser], and asks for the life that the lease had.
func (s *Store) Renew(ctx context.Context, session store.Session, lease store.Lease) (store.Lease, error) {
	answer, err := s.conn.Do(ctx, Request{
		Method: http.MethodPut, Path: "sys/leases/renew", Namespace: s.in(session), Token: session.Token,
		Body: map[string]any{"lease_id": string(lease.ID.Reveal()), "increment": int(lease.Duration.Seconds())},
	})
	switch {
	case err != nil:
		return store.Lease{}, s.explain(ctx, session, err, store.ErrUnavailable)
	case answer == nil || answer.LeaseDuration <= 0:
		return store.Lease{}, fmt.Errorf("%w: the answer says nothing of the lease's life", store.ErrInvalid)
	}
	lease.Duration, lease.Renewable = time.Duration(answer.LeaseDuration)*time.Second, answer.Renewable
	return lease, nil
}

// Revoke implements [store.Leaser]. No policy that Vault brings allows it.
func (s *Store) Revoke(ctx context.Context, session store.Session, lease store.Lease) error {
	_, err := s.conn.Do(ctx, Request{
		Method: http.MethodPut, Path: "sys/leases/revoke", Namespace: s.in(session), Token: session.Token,
		Body: map[string]any{"lease_id": string(lease.ID.Reveal())},
	})
	if err != nil {
		return s.explain(ctx, session, err, store.ErrUnavailable)
	}
	return nil
}

// Ends implements [store.Leaser]. Whoever logs in knows.
func (s *Store) Ends(store.Session, store.Lease) (ends time.Time, final bool) {
	return time.Time{}, false
}

// notAfter is a certificate's expiration, or for a password that Vault changes by
// itself the seconds until it does.
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

func trimmedAll(texts []string) []string {
	var all []string
	for _, text := range texts {
		all = append(all, trimmed(text))
	}
	return all
}

func (s *Store) in(session store.Session) string {
	return Namespace(s.namespace, session.Identity.Namespace)
}

func (s *Store) find(ctx context.Context, session store.Session, path store.Path) (place, error) {
	return s.mounts.find(ctx, s.in(session), session.Token, path)
}

// explain tells the two meanings of a 403 apart: the token has ended, or a policy
// says no. It asks about the token instead of logging in to see. A token without
// the default policy may not ask; where the server does not say which it is, the
// answer is a doubt. Where it cannot be asked at all, the error is of the kind unasked:
// for a read a denial is an answer all the same, and what is done in the background is
// tried again.
func (s *Store) explain(ctx context.Context, session store.Session, err, unasked error) error {
	if !errors.Is(err, store.ErrDenied) {
		return err
	}
	_, asked := s.conn.Do(ctx, Request{
		Method: http.MethodGet, Path: "auth/token/lookup-self", Namespace: s.in(session), Token: session.Token,
	})
	denial := strings.TrimPrefix(err.Error(), store.ErrDenied.Error())
	switch {
	case errors.Is(asked, store.ErrUnavailable):
		return fmt.Errorf("%w%s; whether the login has ended cannot be asked: %s", unasked, denial, asked.Error())
	case !errors.Is(asked, store.ErrDenied):
		return fmt.Errorf("%w%s; no policy of the role allows it", store.ErrDenied, denial)
	case HasEnded(asked):
		return fmt.Errorf("%w%s", store.ErrSession, denial)
	}
	return fmt.Errorf("%w%s; no policy of the role allows it, and none lets it look at its own token", store.ErrDoubt, denial)
}

// HasEnded tells a denial of a token that has ended from one by a policy, where the
// server says which it is.
func HasEnded(denial error) bool {
	text := denial.Error()
	return strings.Contains(text, "invalid token") || strings.Contains(text, "bad token")
}

// request is what the API wants for a place.
func (p place) request(ref store.Ref) (Request, error) {
	if ref.Args != "" {
		return Request{Method: http.MethodPut, Path: ref.Path.String(), Body: json.RawMessage(ref.Args), Once: true}, nil
	}
	query, err := url.ParseQuery(ref.Query)
	if err != nil {
		return Request{}, fmt.Errorf("%w: the query is not of the form name=value", store.ErrInvalid)
	}
	r := Request{Method: http.MethodGet, Path: ref.Path.String(), Query: query, Once: p.engine == Other}
	if p.engine == KV2 && !isInternalPath(p.rest) {
		r.Path = p.mount + "/data/" + strings.TrimPrefix(p.rest, "data/")
		if p.rest == "" {
			return Request{}, fmt.Errorf("%w: %q is a mount; name a secret in it", store.ErrInvalid, ref.Path)
		}
		if ref.Version != "" {
			r.Query.Set("version", ref.Version)
		}
		return r, nil
	}
	if ref.Version != "" {
		return Request{}, fmt.Errorf("%w: only secrets of a KV v2 engine have versions; remove version: %s", store.ErrInvalid, ref.Version)
	}
	return r, nil
}

func isInternalPath(rest string) bool {
	first, _, deeper := strings.Cut(rest, "/")
	return isInternal(first, deeper)
}

// value is what a class sees of an answer: of KV v2 the secret without its envelope.
func (p place) value(answer *api.Secret) (store.Value, error) {
	if answer == nil || answer.Data == nil {
		return store.Value{}, fmt.Errorf("%w: the answer holds no data%s", store.ErrInvalid, said(answer))
	}
	data, version := any(answer.Data), ""
	enveloped := p.engine == KV2 && !isInternalPath(p.rest)
	if enveloped {
		inner, ok := answer.Data["data"].(map[string]any)
		if !ok {
			return store.Value{}, fmt.Errorf("%w: this version was deleted or holds nothing%s", store.ErrNotFound, said(answer))
		}
		metadata, _ := answer.Data["metadata"].(map[string]any)
		data, version = inner, fmt.Sprint(metadata["version"])
	}
	tree, err := secret.NewTree(data)
	if err != nil {
		return store.Value{}, fmt.Errorf("%w: the answer: %w", store.ErrInvalid, err)
	}
	whole, err := envelope(answer, tree, enveloped)
	if err != nil {
		return store.Value{}, fmt.Errorf("%w: the answer: %w", store.ErrInvalid, err)
	}
	return store.Value{Data: tree, Envelope: whole, Version: version, Lease: lease(answer)}, nil
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

func said(answer *api.Secret) string {
	if answer == nil || len(answer.Warnings) == 0 {
		return ""
	}
	return ": " + trimmed(strings.Join(answer.Warnings, "; "))
}
