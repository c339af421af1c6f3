package convert

import (
	"strings"
)

// path is a path of Vault's API in the spelling of rules: of a KV v2 secret mount and name.
// Where the mount's engine is not known, data as the second segment tells a KV v2.
func (p *place) path(s source, e *entry, text string) string {
	text = strings.Trim(strings.TrimPrefix(strings.TrimPrefix(text, "/"), "v1/"), "/")
	for mount, engine := range p.mounts {
		below, ok := strings.CutPrefix(text, mount+"/data/")
		if ok && engine == kv2 {
			return mount + "/" + below
		}
	}
	mount, below, ok := strings.Cut(text, "/data/")
	switch {
	case !ok || p.mounts[mount] == kv1:
		return text
	case !strings.Contains(mount, "/"):
		p.mounts[mount] = kv2
		return mount + "/" + below
	}
	s.look(e.at, e.field, "a KV v2 mount is taken to be "+mount+", since data/ follows", "correct mounts of keymount.yaml, the path and the rule if that is another mount")
	p.mounts[mount] = kv2
	return mount + "/" + below
}

// Engines, as keymount.yaml names them.
const (
	kv1 = "kv1"
	kv2 = "kv2"
)
