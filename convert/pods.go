package convert

import (
	"fmt"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// podUse is a pod of the files, or a template of pods.
type podUse struct{ manifest.Pod }

// findAccounts finds the service accounts of the pods that use a class.
func (c *conversion) findAccounts(cl *class) {
	if cl.uses == nil {
		return
	}
	for _, pod := range c.pods[cl.namespace] {
		if !cl.uses(pod) {
			continue
		}
		cl.accounts = append(cl.accounts, pod.ServiceAccount)
		if cl.synced != nil && !pod.mounts(cl.name) {
			source{c, pod.Object}.look(nil, "", fmt.Sprintf("it reads the native Secret of %s, which the driver writes while a pod mounts the class %q", titled(cl.object), cl.name),
				"mount the class in it as well, and better read the files there")
		}
	}
	slices.Sort(cl.accounts)
	cl.accounts = slices.Compact(cl.accounts)
}

// mounts tells whether a pod mounts a class of the driver.
func (p podUse) mounts(class string) bool {
	return slices.ContainsFunc(items(p.Spec, "volumes"), func(v *yaml.Node) bool {
		return manifest.Text(manifest.Field(v, "csi", "driver")) == "secrets-store.csi.k8s.io" &&
			manifest.Text(manifest.Field(v, "csi", "volumeAttributes", "secretProviderClass")) == class
	})
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
