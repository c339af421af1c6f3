package convert

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// path is a path of Vault's API in the spelling of rules, and a note where that is a guess.
func (p *origin) path(s source, at *yaml.Node, field, text string) string {
	path := p.canonical(text)
	if mount, _, ok := strings.Cut(path, "/"); ok && path != trimmed(text) && p.mounts[mount] != kv2 {
		s.look(at, field, "data/ stands behind several segments, so that they are taken for the mount of a KV v2 engine",
			"correct mounts of keymount.yaml, the path and the rule if that is another mount")
	}
	return path
}

// trimmed is a path without its slashes at the ends and the API's version.
func trimmed(text string) string {
	return strings.Trim(strings.TrimPrefix(strings.TrimPrefix(text, "/"), "v1/"), "/")
}

// canonical is a path of Vault's API in the spelling of rules: of a KV v2 secret mount and
// name. Where the mount's engine is not known, data behind it tells a KV v2.
func (p *origin) canonical(text string) string {
	text = trimmed(text)
	mount, below, ok := strings.Cut(text, "/data/")
	if !ok || below == "" || p.isBelow(mount, kv1) {
		return text
	}
	if p.isBelow(mount, kv2) && p.mounts[mount] != kv2 {
		return text // a folder called data in a KV v2 engine
	}
	p.learn(mount, kv2)
	return mount + "/" + below
}

// isBelow tells whether a path is or lies below a mount of this engine.
func (p *origin) isBelow(path, engine string) bool {
	for mount, is := range p.mounts {
		if is == engine && (path == mount || strings.HasPrefix(path, mount+"/")) {
			return true
		}
	}
	return false
}

// Engines, as keymount.yaml names them.
const (
	kv1 = "kv1"
	kv2 = "kv2"
)
