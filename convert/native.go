package convert

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// nativeSecret is the Secret that an operator wrote.
type nativeSecret struct {
	name, kind          string
	keys                []string
	known               bool // the keys are all
	labels, annotations *yaml.Node
}

// keep has the driver write a native Secret as before, if its keys are known.
func (cl *draft) keep(n nativeSecret) {
	if !n.known {
		cl.lost(nil, "", fmt.Sprintf("the native Secret %q is not kept: it had all keys of a secret, and the driver has to be told each", n.name),
			"mount the files, or name the keys in secretObjects of the class")
		return
	}
	if len(n.keys) == 0 {
		return
	}
	data := &yaml.Node{Kind: yaml.SequenceNode}
	for i, key := range n.keys {
		if slices.Contains(n.keys[:i], key) {
			continue
		}
		one := mapping("objectName", key, "key", key)
		one.Style = yaml.FlowStyle
		data.Content = append(data.Content, one)
	}
	object := mapping("secretName", n.name, "type", cmp.Or(n.kind, "Opaque"))
	for _, m := range []struct {
		name string
		node *yaml.Node
	}{{"labels", n.labels}, {"annotations", n.annotations}} {
		if found := kept(m.node); found != nil {
			put(object, m.name, found)
		}
	}
	put(object, "data", data)
	object.HeadComment = comment(
		"The driver writes this Secret, as long as a pod mounts the class.",
		"Read the files instead, and remove secretObjects when nothing needs it.")
	cl.synced = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{object}}
	cl.look(nil, "", fmt.Sprintf("the native Secret %q is kept as a secretObject: it is there while a pod mounts the class", n.name),
		"mount the files in place of it, and remove secretObjects")
}

// unsync takes the keys out of the native Secrets whose files the class has not, and the
// Secrets without keys.
func (cl *draft) unsync() {
	if cl.synced == nil || cl.synced.Kind != yaml.SequenceNode {
		return
	}
	isThere := func(name string) bool {
		return slices.ContainsFunc(cl.entries, func(e entry) bool { return e.file == name || strings.HasSuffix(e.file, "/") })
	}
	cl.synced.Content = slices.DeleteFunc(cl.synced.Content, func(object *yaml.Node) bool {
		data := manifest.Field(object, "data")
		if data == nil || data.Kind != yaml.SequenceNode {
			return false
		}
		secret := manifest.Text(manifest.Field(object, "secretName"))
		data.Content = slices.DeleteFunc(data.Content, func(n *yaml.Node) bool {
			file := manifest.Text(manifest.Field(n, "objectName"))
			if !isThere(file) {
				cl.lost(nil, "secretObjects", fmt.Sprintf("the key %q of the native Secret %q is not kept, since the class has no file %q", manifest.Text(manifest.Field(n, "key")), secret, file), "")
			}
			return !isThere(file)
		})
		if len(data.Content) == 0 {
			cl.lost(nil, "secretObjects", fmt.Sprintf("the native Secret %q is not kept: it has no keys any more", secret), "")
		}
		return len(data.Content) == 0
	})
	if len(cl.synced.Content) == 0 {
		cl.synced = nil
	}
}
