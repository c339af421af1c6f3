package vault

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/keymount/keymount/store"
)

// Engine is the type of a secrets engine, as far as reads differ.
type Engine string

// The engines. Anything but key/value is read by its API path.
const (
	KV1   Engine = "kv1"
	KV2   Engine = "kv2"
	Other Engine = "other"
)

// place is a path split at its mount.
type place struct {
	mount  string // without a slash at its end
	rest   string // below the mount, as the engine's API has it
	engine Engine
	kind   string // the engine's type in Vault's words; empty for a mount of keymount.yaml
	// learned says that Vault has named the mount, and no namespace is in its place.
	learned bool
}

// maxLearned is how many mounts are remembered: more than a Vault has for one node.
const maxLearned = 512

// learnedFor is the life of Vault's answer about a mount: an engine can be tuned, or
// another mounted in its place.
const learnedFor = 5 * time.Minute

// mounts knows the engine of each mount, from keymount.yaml or from Vault.
type mounts struct {
	conn       *Conn
	configured map[string]Engine // by mount, in every namespace; never changed
	flight     singleflight.Group

	mu      sync.Mutex
	learned map[mountKey]learned // maxLearned at most
}

type learned struct {
	engine Engine
	kind   string
	until  time.Time
	by     string // the pods' namespace that it was asked for
}

func newMounts(conn *Conn, configured map[string]Engine) *mounts {
	m := &mounts{conn: conn, configured: map[string]Engine{}, learned: map[mountKey]learned{}}
	for mount, engine := range configured {
		m.configured[strings.Trim(mount, "/")] = engine
	}
	return m
}

// mountKey is a mount in a namespace of Vault.
type mountKey struct{ namespace, mount string }

// isSystem tells the paths that belong to Vault itself. The mounts below them hold no
// secrets, and Vault's look-up names them without the first segment.
func isSystem(path store.Path) bool {
	first, _, _ := strings.Cut(path.String(), "/")
	return isSystemSegment(first)
}

func isSystemSegment(segment string) bool { return segment == "auth" || segment == "sys" }

// system is the segment from which on a path belongs to Vault itself; empty for a secret.
// A path may begin with namespaces of Vault, and where they end Vault alone knows: its word
// for a mount is taken, so that a secret may be called sys. A mount that keymount.yaml calls other may
// be a namespace, and no name in it is free.
func (p place) system() string {
	segments := strings.Split(p.mount, "/")
	if !p.learned && p.engine == Other {
		segments = append(segments, strings.Split(p.rest, "/")...)
	}
	if i := slices.IndexFunc(segments, isSystemSegment); i >= 0 {
		return segments[i]
	}
	return ""
}

// find splits a path at its mount. A mount that keymount.yaml leaves out is looked up
// in Vault, with the reader's token.
func (m *mounts) find(ctx context.Context, namespace string, caller store.Caller, path store.Path) (place, error) {
	if isSystem(path) {
		first, rest, _ := strings.Cut(path.String(), "/")
		return place{mount: first, rest: rest, engine: Other}, nil
	}
	if p, ok := m.lookup(namespace, path); ok {
		return p, nil
	}
	// One look-up runs for all paths that begin alike: most often they share a mount.
	// Its answer counts for all of them, its failure only for its own path.
	first := path.Segments()[0]
	_, _, _ = m.flight.Do(namespace+"\x00"+first, func() (any, error) {
		_, err := m.ask(ctx, namespace, caller, path)
		return nil, err
	})
	if p, ok := m.lookup(namespace, path); ok {
		return p, nil
	}
	return m.ask(ctx, namespace, caller, path)
}

// lookup finds the longest known mount above path; keymount.yaml goes before Vault.
func (m *mounts) lookup(namespace string, path store.Path) (place, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text := path.String()
	for end := len(text); end > 0; end = strings.LastIndexByte(text[:end], '/') {
		p := place{mount: text[:end], rest: strings.TrimPrefix(text[end:], "/")}
		if engine, ok := m.configured[p.mount]; ok {
			p.engine = engine
			return p, true
		}
		if known, ok := m.learned[mountKey{namespace, p.mount}]; ok && m.conn.now().Before(known.until) {
			p.engine, p.kind, p.learned = known.engine, known.kind, true
			return p, true
		}
	}
	return place{}, false
}

// ask is the preflight of the vault command. Vault answers 403 for a mount that the
// token may not see at all.
func (m *mounts) ask(ctx context.Context, namespace string, caller store.Caller, path store.Path) (place, error) {
	request := Request{
		Method: http.MethodGet, Path: "sys/internal/ui/mounts/" + path.String(), Namespace: namespace, Token: caller.Login,
		Wants: ofMount, Public: []string{path.String()},
	}
	answer, err := m.conn.Do(ctx, request)
	if e := denial(err); e != nil {
		return place{}, resaid(e, e.Reason, ": nothing is mounted there, or nothing in it can be read")
	}
	if err != nil {
		return place{}, fmt.Errorf("look up the mount of %q: %w", path, err)
	}
	mount, _ := answer.Data["path"].(string)
	kind, _ := answer.Data["type"].(string)
	mount = strings.Trim(mount, "/")
	rest, below := strings.CutPrefix(path.String()+"/", mount+"/")
	if mount == "" || !below {
		return place{}, store.Invalid.Errorf("Vault says that %q is in the mount %q", path, request.words().clean(mount))
	}
	options, _ := answer.Data["options"].(map[string]any)
	engine := engineOf(kind, options)
	m.learn(mountKey{namespace, mount}, learned{engine, kind, m.conn.now().Add(learnedFor), caller.Identity.Namespace})
	return place{mount: mount, rest: strings.TrimSuffix(rest, "/"), engine: engine, kind: kind, learned: true}, nil
}

// learn remembers a mount. Where there are too many, what is too old goes, and then the
// oldest of the pods' namespace that has most of them: none pushes out those of others.
func (m *mounts) learn(at mountKey, l learned) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.learned[at]; !known && len(m.learned) >= maxLearned {
		m.forgetLocked()
	}
	m.learned[at] = l
}

func (m *mounts) forgetLocked() {
	now := m.conn.now()
	maps.DeleteFunc(m.learned, func(_ mountKey, l learned) bool { return !now.Before(l.until) })
	if len(m.learned) < maxLearned {
		return
	}
	of := map[string]int{}
	for _, l := range m.learned {
		of[l.by]++
	}
	var oldest mountKey
	for at, l := range m.learned {
		worst, ok := m.learned[oldest]
		if more := of[l.by] - of[worst.by]; !ok || more > 0 || more == 0 && l.until.Before(worst.until) {
			oldest = at
		}
	}
	delete(m.learned, oldest)
}

func engineOf(kind string, options map[string]any) Engine {
	switch {
	case kind != "kv" && kind != "generic":
		return Other
	case options["version"] == "2":
		return KV2
	default:
		return KV1
	}
}
