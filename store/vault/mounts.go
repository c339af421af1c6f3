package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// Engine is what is mounted somewhere, as far as reading it goes.
type Engine string

// The engines. Anything but key/value is read by its API path.
const (
	KV1   Engine = "kv1"
	KV2   Engine = "kv2"
	Other Engine = "other"
)

// place is a path after its mount is known.
type place struct {
	mount  string // without a slash at its end
	rest   string // below the mount, as the engine's API has it
	engine Engine
}

// learnedFor is how long an answer of Vault's about a mount counts: an engine can
// be tuned, or another mounted in its place.
const learnedFor = 5 * time.Minute

// mounts knows which engine is where: from keymount.yaml, or by asking.
type mounts struct {
	conn       *Conn
	configured map[string]Engine // by mount, in every namespace; never changed
	flight     singleflight.Group

	mu      sync.Mutex
	learned map[string]learned // by namespace and mount; grows with the mounts of a Vault
}

type learned struct {
	engine Engine
	until  time.Time
}

func newMounts(conn *Conn, configured map[string]Engine) *mounts {
	m := &mounts{conn: conn, configured: map[string]Engine{}, learned: map[string]learned{}}
	for mount, engine := range configured {
		m.configured[strings.Trim(mount, "/")] = engine
	}
	return m
}

func key(namespace, mount string) string { return namespace + "\x00" + mount }

// isSystem tells the paths that belong to Vault itself. What is mounted there is
// no store of secrets, and Vault's look-up names it without its first segment.
func isSystem(path store.Path) bool {
	first := path.Segments()[0]
	return first == "auth" || first == "sys"
}

// find splits a path at its mount. What nobody wrote down is asked from Vault,
// with the token of whoever wants to read.
func (m *mounts) find(ctx context.Context, namespace string, token secret.Bytes, path store.Path) (place, error) {
	if isSystem(path) {
		first, rest, _ := strings.Cut(path.String(), "/")
		return place{mount: first, rest: rest, engine: Other}, nil
	}
	if p, ok := m.lookup(namespace, path); ok {
		return p, nil
	}
	// One asks for all paths that begin alike: most often they share a mount. Its
	// answer counts for what it is about, whoever asked; its failure for itself.
	first := path.Segments()[0]
	_, _, _ = m.flight.Do(key(namespace, first), func() (any, error) {
		return nil, m.ask(ctx, namespace, token, path)
	})
	if p, ok := m.lookup(namespace, path); ok {
		return p, nil
	}
	if err := m.ask(ctx, namespace, token, path); err != nil {
		return place{}, err
	}
	p, ok := m.lookup(namespace, path)
	if !ok {
		return place{}, fmt.Errorf("%w: Vault names a mount that %q is not in", store.ErrInvalid, path)
	}
	return p, nil
}

// lookup finds the longest known mount that path is below; the operator's word
// goes before Vault's.
func (m *mounts) lookup(namespace string, path store.Path) (place, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	segments := path.Segments()
	for n := len(segments); n > 0; n-- {
		mount := strings.Join(segments[:n], "/")
		p := place{mount: mount, rest: strings.Join(segments[n:], "/")}
		if engine, ok := m.configured[mount]; ok {
			p.engine = engine
			return p, true
		}
		if known, ok := m.learned[key(namespace, mount)]; ok && m.conn.now().Before(known.until) {
			p.engine = known.engine
			return p, true
		}
	}
	return place{}, false
}

// ask is the preflight of the vault command. It answers 403 for what the token
// may not see at all.
func (m *mounts) ask(ctx context.Context, namespace string, token secret.Bytes, path store.Path) error {
	answer, err := m.conn.Do(ctx, Request{
		Method: http.MethodGet, Path: "sys/internal/ui/mounts/" + path.String(), Namespace: namespace, Token: token,
	})
	if errors.Is(err, store.ErrDenied) {
		return fmt.Errorf("%w: nothing is mounted there, or nothing in it can be read", err)
	}
	if err != nil {
		return fmt.Errorf("look up the mount of %q: %w", path, err)
	}
	if answer == nil {
		return fmt.Errorf("%w: Vault says nothing of the mount of %q", store.ErrInvalid, path)
	}
	mount, _ := answer.Data["path"].(string)
	kind, _ := answer.Data["type"].(string)
	if mount == "" || kind == "" {
		return fmt.Errorf("%w: Vault says nothing of the mount of %q", store.ErrInvalid, path)
	}
	mount = strings.Trim(mount, "/")
	if path.String() != mount && !strings.HasPrefix(path.String(), mount+"/") {
		return fmt.Errorf("%w: Vault says that %q is in the mount %q", store.ErrInvalid, path, mount)
	}
	options, _ := answer.Data["options"].(map[string]any)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learned[key(namespace, mount)] = learned{engineOf(kind, options), m.conn.now().Add(learnedFor)}
	return nil
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
