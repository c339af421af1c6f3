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

// sumOf hashes each part after its length.
func sumOf(parts ...string) sum {
	const most = 512 // enough for nearly every key to stay on the stack
	text := make([]byte, 0, most)
	for _, part := range parts {
		text = append(binary.AppendUvarint(text, uint64(len(part))), part...)
	}
	return sha256.Sum256(text)
}

func volumeOf(v auth.Volume) sum { return sumOf(v.Namespace, v.PodUID, v.Class) }

// key identifies the answer for ref at its resolved path. The Literal is part of it, so that
// a credential never answers for an ordinary secret of the same path.
func (k *Keeper) key(request login.Request, ref store.Ref, resolved store.Resolved) key {
	i, pod := request.Identity, ""
	if k.o.PerPod {
		pod = i.PodUID
	}
	one := key{ref: sumOf(
		i.Issuer, i.Audience, i.Namespace, i.ServiceAccount, i.ServiceAccountUID, request.Role, pod,
		resolved.Path.String(), resolved.Literal, ref.Version, ref.Query, ref.Args,
	)}
	if resolved.Makes && !ref.Shared {
		one.volume = volumeOf(request.Volume)
	}
	return one
}

// pathKey leaves out the parts of a ref that do not affect Resolve.
func (k *Keeper) pathKey(request login.Request, ref store.Ref) key {
	kind := store.Ref{}
	if ref.Args != "" {
		kind.Args = "a write"
	}
	return k.key(request, kind, store.Resolved{Path: ref.Path})
}
