package convert

import (
	"fmt"
	"maps"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// podUse is a pod of the files, or a template of pods.
type podUse struct{ manifest.Pod }

// findAccounts finds the service accounts of the pods that use a class.
func (c *conversion) findAccounts(cl *draft) {
	if cl.uses == nil {
		return
	}
	for _, pod := range c.pods[cl.namespace] {
		if !cl.uses(pod) {
			continue
		}
		cl.accounts = append(cl.accounts, pod.ServiceAccount)
		switch reader := (source{c, pod.Object}); {
		case cl.native == "" || pod.mounts(cl.name):
		case cl.synced != nil:
			reader.look(nil, "", fmt.Sprintf("it reads the native Secret of %s, which the driver writes while a pod mounts the class %q", titled(cl.object), cl.name),
				"mount the class in it as well, and better read the files there")
		default:
			reader.lost(nil, "", fmt.Sprintf("it reads the native Secret %q of %s, which is not kept", cl.native, titled(cl.object)),
				fmt.Sprintf("mount the class %q in it and read the files there, before the operator goes", cl.name))
		}
	}
	slices.Sort(cl.accounts)
	cl.accounts = slices.Compact(cl.accounts)
}

// mounts tells whether a pod mounts a class of the driver.
func (p podUse) mounts(class string) bool { return len(p.attributes(class)) > 0 }

// attributes are the parameters that a pod sets in each of its volumes of a class.
func (p podUse) attributes(class string) (sets []map[string]string) {
	for _, v := range items(p.Spec, "volumes") {
		set := map[string]string{}
		for _, m := range members(v, "csi", "volumeAttributes") {
			set[m.name.Value] = manifest.Text(m.value)
		}
		if set[attrClass] == class && manifest.Text(manifest.Field(v, "csi", "driver")) == "secrets-store.csi.k8s.io" {
			delete(set, attrClass)
			sets = append(sets, set)
		}
	}
	return sets
}

// attrClass names the class of a volume.
const attrClass = "secretProviderClass"

// overwrites tells whether a pod mounts a class with these parameters.
func (p podUse) overwrites(class string, set map[string]string) bool {
	return slices.ContainsFunc(p.attributes(class), func(has map[string]string) bool { return maps.Equal(has, set) }) || set == nil && p.mounts(class)
}

// reads tells whether a pod uses a native Secret: as a volume or in its environment.
func (p podUse) reads(secret string) bool {
	is := func(n *yaml.Node) bool { return secret != "" && manifest.Text(n) == secret }
	for _, v := range items(p.Spec, "volumes") {
		if is(manifest.Field(v, "secret", "secretName")) || slices.ContainsFunc(items(v, "projected", "sources"), func(s *yaml.Node) bool { return is(manifest.Field(s, "secret", "name")) }) {
			return true
		}
	}
	for _, list := range []string{"containers", "initContainers"} {
		for _, container := range items(p.Spec, list) {
			if slices.ContainsFunc(items(container, "envFrom"), func(e *yaml.Node) bool { return is(manifest.Field(e, "secretRef", "name")) }) ||
				slices.ContainsFunc(items(container, "env"), func(e *yaml.Node) bool { return is(manifest.Field(e, "valueFrom", "secretKeyRef", "name")) }) {
				return true
			}
		}
	}
	return slices.ContainsFunc(items(p.Spec, "imagePullSecrets"), func(s *yaml.Node) bool { return is(manifest.Field(s, "name")) })
}

// items are the elements of a list in a node; none where there is no list.
func items(n *yaml.Node, names ...string) []*yaml.Node {
	found := manifest.Resolved(manifest.Field(n, names...))
	if found == nil || found.Kind != yaml.SequenceNode {
		return nil
	}
	all := make([]*yaml.Node, len(found.Content))
	for i, item := range found.Content {
		all[i] = manifest.Resolved(item)
	}
	return all
}

// member is a name and its value in a map.
type member struct{ name, value *yaml.Node }

// members are those of a map in a node; none where there is no map.
func members(n *yaml.Node, names ...string) (all []member) {
	found := manifest.Resolved(manifest.Field(n, names...))
	if found == nil || found.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(found.Content); i += 2 {
		all = append(all, member{found.Content[i], manifest.Resolved(found.Content[i+1])})
	}
	return all
}
