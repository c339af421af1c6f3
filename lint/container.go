package lint

import (
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/manifest"
)

// containers are those of a pod, in the order in which they start.
func containers(p *pod) []*yaml.Node {
	return slices.Concat(items(manifest.Field(p.Spec, "initContainers")), items(manifest.Field(p.Spec, "containers")))
}

// checkMounts checks what containers see of a volume.
func (c *checker) checkMounts(p *pod, v volume, of class.Checked) {
	var mounting []*yaml.Node
	for _, container := range containers(p) {
		for _, mount := range items(manifest.Field(container, "volumeMounts")) {
			if manifest.Text(manifest.Field(mount, "name")) != v.name {
				continue
			}
			if !slices.Contains(mounting, container) {
				mounting = append(mounting, container)
			}
			c.checkSubPath(p, v, container, mount)
		}
	}
	if len(mounting) == 0 {
		c.node(p.Object, v.node, "unmounted", Warning, "volume %q: no container mounts it, so the kubelet leaves it out: there are no files, and no Secret is made of them", v.name)
		return
	}
	c.checkModes(p, of, mounting)
}

func (c *checker) checkSubPath(p *pod, v volume, container, mount *yaml.Node) {
	for _, field := range []string{"subPath", "subPathExpr"} {
		if name := manifest.Key(mount, field); name != nil && manifest.Text(manifest.Field(mount, field)) != "" {
			c.node(p.Object, name, "sub-path", Warning, "container %q mounts a part of volume %q by %s, and never sees a rotated secret; mount the whole volume", nameOf(container), v.name, field)
		}
	}
}

func nameOf(container *yaml.Node) string { return manifest.Text(manifest.Field(container, "name")) }

// checkModes finds files that a container cannot read. They belong to root, user and
// group, and fsGroup does not change that.
func (c *checker) checkModes(p *pod, of class.Checked, mounting []*yaml.Node) {
	for _, o := range of.Objects {
		if isWrong(of, o.Index) {
			continue // its mode may be none
		}
		var cannot []*yaml.Node
		for _, container := range mounting {
			if !mayRead(p, container, o.Mode) {
				cannot = append(cannot, container)
			}
		}
		severity := Warning // another container may be the one that reads it
		if len(cannot) == len(mounting) {
			severity = Error
		}
		for _, container := range cannot {
			c.node(p.Object, manifest.Field(container, "name"), "unreadable", severity,
				"container %q is not root and cannot read %q, which has mode %04o; the files belong to root, and fsGroup does not reach them: use mode 0444, or runAsUser: 0",
				nameOf(container), spelling.Visible(fileOf(o)), o.Mode)
		}
	}
}

// fileOf is an object's file as the class has it.
func fileOf(o class.Object) string {
	if o.Folder {
		return o.File + "/"
	}
	return o.File
}

// isWrong tells whether an object of a class has a mistake.
func isWrong(of class.Checked, object int) bool {
	return slices.ContainsFunc(of.Mistakes, func(m class.Mistake) bool { return m.Object == object })
}

// mayRead is false for a container with a user that cannot read a file of root with that
// mode, as far as the pod tells.
func mayRead(p *pod, container *yaml.Node, mode int32) bool {
	const groupReads, othersRead = 0o040, 0o004
	user := manifest.Text(setting(p, container, "runAsUser"))
	isRoot := user == "0" || user == "" && !manifest.IsTrue(setting(p, container, "runAsNonRoot"))
	if isRoot || mode&othersRead != 0 {
		return true
	}
	group := manifest.Text(setting(p, container, "runAsGroup")) // without one it may be root's
	return mode&groupReads != 0 && (group == "" || group == "0" || hasRootGroup(p))
}

// setting is a field of a container's securityContext, or else of its pod's.
func setting(p *pod, container *yaml.Node, field string) *yaml.Node {
	if own := manifest.Field(container, "securityContext", field); own != nil && !isNull(own) {
		return own
	}
	return manifest.Field(p.Spec, "securityContext", field)
}

func hasRootGroup(p *pod) bool {
	return slices.ContainsFunc(items(manifest.Field(p.Spec, "securityContext", "supplementalGroups")), func(n *yaml.Node) bool { return n.Value == "0" })
}

// checkEnv finds variables from Secrets that the driver makes only while a pod mounts the
// class.
func (c *checker) checkEnv(p *pod, mounted []*checkedClass) {
	for _, container := range containers(p) {
		for _, variable := range items(manifest.Field(container, "env")) {
			c.checkReference(p, mounted, container, manifest.Field(variable, "valueFrom", "secretKeyRef"))
		}
		for _, from := range items(manifest.Field(container, "envFrom")) {
			c.checkReference(p, mounted, container, manifest.Field(from, "secretRef"))
		}
	}
}

func (c *checker) checkReference(p *pod, mounted []*checkedClass, container, reference *yaml.Node) {
	name := manifest.Field(reference, "name")
	makers := c.makersOf(p, manifest.Text(name))
	if len(makers) == 0 {
		return
	}
	if !slices.ContainsFunc(makers, func(s synced) bool { return slices.Contains(mounted, s.of) }) {
		c.node(p.Object, name, "env-secret", Warning, "container %q: Secret %q is there only while some pod mounts class %q; mount it in this pod, too", nameOf(container), name.Value, makers[0].of.Name)
		return
	}
	if optional := manifest.Field(reference, "optional"); manifest.IsTrue(optional) {
		c.node(p.Object, optional, "env-optional", Warning, "container %q may start before the driver has made Secret %q, and without its variables; remove optional", nameOf(container), name.Value)
	}
	wanted := manifest.Field(reference, "key")
	if keys := makers[0].keys; len(makers) == 1 && wanted != nil && !slices.Contains(keys, wanted.Value) {
		c.node(p.Object, wanted, "env-key", Warning, "container %q: class %q gives Secret %q no key %q%s", nameOf(container), makers[0].of.Name, name.Value, spelling.Visible(wanted.Value), spelling.Hint(wanted.Value, keys))
	}
}

// makersOf are the secretObjects that make a Secret of a pod's namespace.
func (c *checker) makersOf(p *pod, name string) (makers []synced) {
	if name == "" {
		return nil
	}
	for _, s := range c.secrets[name] {
		if s.of.namespace == p.namespace || s.of.namespace == "" || p.namespace == "" {
			makers = append(makers, s)
		}
	}
	return makers
}
