package keep

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// key identifies an answer in memory: the login and the ref that read it. It is a hash,
// because its parts take as much memory as a short secret.
type key struct {
	volume sum // owner of a credential; zero for values shared by a login
	ref    sum // of the login and the ref
}

type sum [sha256.Size]byte

// mostParts is enough for the parts of nearly every key.
const mostParts = 512

// appendParts puts each part behind its length: two different lists of parts make two texts.
func appendParts(text []byte, parts ...string) []byte {
	for _, part := range parts {
		text = append(binary.AppendUvarint(text, uint64(len(part))), part...)
	}
	return text
}

func volumeOf(v auth.Volume) sum {
	return sha256.Sum256(appendParts(make([]byte, 0, mostParts), v.Namespace, v.PodUID, v.Class))
}

// keys has the keys of all that one request asks for. It is for one goroutine.
type keys struct {
	login  []byte // its parts, with which each key begins, and room behind them for the rest
	volume auth.Volume
}

func (k *Keeper) keysOf(request login.Request) keys {
	i, pod := &request.Identity, ""
	if k.o.PerPod {
		pod = i.PodUID
	}
	parts := appendParts(make([]byte, 0, mostParts), i.Issuer, i.Audience, i.Namespace, i.ServiceAccount, i.ServiceAccountUID, request.Role, pod)
	return keys{parts, request.Volume}
}

// of identifies the answer for ref at its resolved path. The Literal is part of it, so that
// a credential never answers for an ordinary secret of the same path.
func (k *keys) of(ref *store.Ref, resolved *store.Resolved) key {
	one := key{ref: k.sum(resolved.Path, resolved.Literal, ref.Version, ref.Query, ref.Args)}
	if resolved.Makes && !ref.Shared {
		one.volume = volumeOf(k.volume)
	}
	return one
}

// ofPath leaves out the parts of a ref that do not affect Resolve.
func (k *keys) ofPath(ref *store.Ref) key {
	kind := ""
	if ref.Args != "" {
		kind = "a write"
	}
	return key{ref: k.sum(ref.Path, "", "", "", kind)}
}

func (k *keys) sum(path store.Path, literal, version, query, args string) sum {
	return sha256.Sum256(appendParts(k.login, path.String(), literal, version, query, args))
}
