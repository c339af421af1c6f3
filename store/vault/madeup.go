package vault

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// OpenMadeUp implements [kind.MadeUp]: everything is as for a real server, up to the requests,
// which a server in memory answers. Any role can log in there.
func (s *Settings) OpenMadeUp(env kind.Env, secrets map[string]secret.Tree) (kind.Layers, error) {
	server := &standIn{mounts: newMounts(nil, s.engines()), secrets: map[string]secret.Tree{}}
	server.guess(slices.Collect(maps.Keys(secrets)))
	for _, text := range slices.Sorted(maps.Keys(secrets)) {
		if err := server.add(text, secrets[text]); err != nil {
			return kind.Layers{}, &kind.Unfit{Path: text, Cause: err}
		}
	}
	const nowhere = "https://made-up.invalid"
	return s.open(env, Options{Addresses: []string{nowhere}, Log: env.Log, Answers: env.Answers, standIn: server})
}

// standIn is a Vault in memory, as far as mounts ask one.
type standIn struct {
	mounts  *mounts // of keymount.yaml, and those that paths with data/ tell of
	secrets map[string]secret.Tree
}

// guess takes what stands before data/ in a path for the mount of a KV v2 engine.
func (s *standIn) guess(paths []string) {
	for _, path := range paths {
		mount, _, ok := strings.Cut(path, "/data/")
		if _, known := s.mounts.configured[mount]; ok && !known && !isSystemSegment(mount) {
			s.mounts.configured[mount] = KV2
		}
	}
}

// place splits a path as Vault would: at a known mount, or else at its first segment, below
// which a KV v2 engine is, unless the path is known to be of another one.
func (s *standIn) place(path store.Path) place {
	if p, ok := s.mounts.lookup("", path); ok {
		return p
	}
	if mount, rest, ok := strings.Cut(path.String(), "/data/"); ok {
		return place{mount: mount, rest: "data/" + rest, engine: KV2}
	}
	mount, rest, _ := strings.Cut(path.String(), "/")
	p := place{mount: mount, rest: rest, engine: KV2}
	if isSystem(path) || isOther(rest) {
		p.engine = Other
	}
	return p
}

// isOther tells paths of engines that are not key/value, by the names in their APIs.
func isOther(rest string) bool {
	segments := strings.Split(rest, "/")
	if len(segments) > 1 && slices.Contains([]string{"issue", "sign", "sign-verbatim", "cert", "creds", "issuer", "keys", "export"}, segments[0]) {
		return true
	}
	return endsInText(rest) || slices.ContainsFunc(descriptions(), func(d described) bool { return d.fits(segments) })
}

// add puts a secret where a request will look for it: one of a KV v2 engine without data/.
func (s *standIn) add(text string, value secret.Tree) error {
	path, err := store.ParsePath(text)
	if err != nil {
		return err
	}
	at := s.place(path).key()
	if other, twice := s.secrets[at]; twice {
		if value, err = both(other, value); err != nil {
			return err
		}
	}
	if text, isText := value.Reveal().(string); isText && typeOf(text) == "" {
		return errors.New("the answer there is PEM or a public key of SSH; begin the text with -----BEGIN or ssh-")
	}
	s.secrets[at] = value
	return nil
}

// both are the keys of one secret in two spellings of its path.
func both(one, other secret.Tree) (secret.Tree, error) {
	all, isMap := one.Reveal().(map[string]any)
	more, areMaps := other.Reveal().(map[string]any)
	if !isMap || !areMaps {
		return one, errTwice
	}
	all = maps.Clone(all)
	for key, value := range more {
		if had, there := all[key]; there && !reflect.DeepEqual(had, value) {
			return one, errTwice
		}
		all[key] = value
	}
	return secret.NewTree(all)
}

var errTwice = errors.New("the same secret is there in another spelling, with another value; keep one")

// key is where a secret is looked for.
func (p place) key() string {
	if p.engine == KV2 {
		return p.mount + "/" + strings.TrimPrefix(p.rest, "data/")
	}
	return strings.TrimSuffix(p.mount+"/"+p.rest, "/")
}

// RoundTrip implements [http.RoundTripper].
func (s *standIn) RoundTrip(r *http.Request) (*http.Response, error) {
	text := strings.TrimPrefix(r.URL.Path, "/v1/")
	if r.Method == http.MethodPost && strings.HasPrefix(text, "auth/") && strings.HasSuffix(text, "/login") {
		return answerOf(r, http.StatusOK, map[string]any{"auth": map[string]any{"client_token": "made-up", "lease_duration": json.Number("3600")}}), nil
	}
	asked, isMount := strings.CutPrefix(text, "sys/internal/ui/mounts/")
	path, err := store.ParsePath(asked)
	if err != nil {
		return answerOf(r, http.StatusNotFound, map[string]any{"errors": []any{}}), nil //nolint:nilerr // as Vault answers
	}
	p := s.place(path)
	if isMount {
		return answerOf(r, http.StatusOK, map[string]any{"data": p.described()}), nil
	}
	value, known := s.secrets[p.key()]
	if !known {
		return answerOf(r, http.StatusNotFound, map[string]any{"errors": []any{}}), nil
	}
	if text, isText := value.Reveal().(string); isText {
		return responseOf(r, http.StatusOK, typeOf(text), []byte(text)), nil
	}
	data := value.Reveal()
	if p.engine == KV2 && !isInternalPath(p.rest) && r.Method == http.MethodGet {
		version := cmp.Or(r.URL.Query().Get("version"), "1")
		if _, err := strconv.ParseUint(version, 10, 32); err != nil {
			return answerOf(r, http.StatusBadRequest, map[string]any{"errors": []any{"the version is no number"}}), nil //nolint:nilerr // likewise
		}
		data = map[string]any{"data": data, "metadata": metadataOf(version)}
	}
	return answerOf(r, http.StatusOK, map[string]any{"data": data}), nil
}

// described is the mount in the words of Vault.
func (p place) described() map[string]any {
	if p.engine == Other {
		return map[string]any{"path": p.mount + "/", "type": "plugin"}
	}
	version := strings.TrimPrefix(string(p.engine), "kv")
	return map[string]any{"path": p.mount + "/", "type": "kv", "options": map[string]any{"version": version}}
}

// metadataOf is about any version that is asked for.
func metadataOf(version string) map[string]any {
	return map[string]any{
		"created_time": "2000-01-01T00:00:00Z", "custom_metadata": nil, "deletion_time": "", "destroyed": false, "version": json.Number(version),
	}
}

// typeOf is the content type of an answer that is one text; empty for a text that Vault would
// not answer with.
func typeOf(text string) string {
	for _, contentType := range []string{"application/pem-certificate-chain", "text/plain"} {
		if slices.ContainsFunc(beginnings(contentType), func(beginning string) bool { return strings.HasPrefix(text, beginning) }) {
			return contentType
		}
	}
	return ""
}

// answerOf puts Vault's envelope around members, unless they are errors.
func answerOf(r *http.Request, status int, members map[string]any) *http.Response {
	if status == http.StatusOK {
		whole := map[string]any{
			"request_id": "", "lease_id": "", "renewable": false, "lease_duration": json.Number("0"), "data": nil, "wrap_info": nil, "warnings": nil, "auth": nil,
		}
		maps.Copy(whole, members)
		members = whole
	}
	return responseOf(r, status, "application/json", secret.AppendJSON(nil, members))
}

func responseOf(r *http.Request, status int, contentType string, body []byte) *http.Response {
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
}
