package store

import (
	"crypto/sha256"
	"encoding/binary"
)

// key is who reads what. It is a hash because what it is made of takes as much memory
// as a short secret.
type key struct {
	volume sum // that something is made for; zero for what a session shares
	what   sum
}

type sum [sha256.Size]byte

// sumOf hashes each part behind its length.
func sumOf(parts ...string) sum {
	const most = 512 // for most; what is longer is put elsewhere
	text := make([]byte, 0, most)
	for _, part := range parts {
		text = append(binary.AppendUvarint(text, uint64(len(part))), part...)
	}
	return sha256.Sum256(text)
}

func volumeOf(namespace, podUID, class string) sum { return sumOf(namespace, podUID, class) }

// key names what ref reads, at the path that it is. What is no ordinary secret is
// another thing than a secret of that name.
func (k *Keeper) key(session Session, ref Ref, resolved Resolved) key {
	i, pod := session.Identity, ""
	if k.o.PerPod {
		pod = i.PodUID
	}
	one := key{what: sumOf(
		i.Issuer, i.Audience, i.Namespace, i.ServiceAccount, i.ServiceAccountUID, session.Role, pod,
		resolved.Path.String(), resolved.Literal, ref.Version, ref.Query, ref.Args,
	)}
	if resolved.Makes && !ref.Shared {
		one.volume = volumeOf(i.Namespace, i.PodUID, session.Class)
	}
	return one
}

// pathKey leaves out what does not change what a path is.
func (k *Keeper) pathKey(session Session, ref Ref) key {
	kind := Ref{}
	if ref.Args != "" {
		kind.Args = "a write"
	}
	return k.key(session, kind, Resolved{Path: ref.Path})
}
