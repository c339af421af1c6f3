package convert

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// patch writes the pod without the agent, and with a volume for each class at the place of
// the agent's files.
func (i injection) patch(classes []*draft) {
	classes = slices.DeleteFunc(slices.Clone(classes), func(cl *draft) bool { return len(cl.entries) == 0 })
	if len(classes) == 0 {
		return // with a note about each object
	}
	changed := copied(i.object.Node)
	if changed == nil {
		i.lost(nil, "", "the object is too large to be changed", "change it by hand")
		return
	}
	if manifest.Field(changed, "kind") == nil { // an item of a list of one kind
		changed.Content = append([]*yaml.Node{scalar("apiVersion"), scalar(i.object.APIVersion), scalar("kind"), scalar(i.object.Kind)}, changed.Content...)
	}
	tidy(changed)
	pod, ok := manifest.Object{Node: changed, Kind: i.object.Kind}.Pod()
	if !ok {
		return
	}
	i.removeAnnotations(pod.Metadata)
	for _, cl := range classes {
		name := freeVolume(pod.Spec)
		addItem(pod.Spec, "volumes", mapping("name", name, "csi", mapping(
			"driver", "secrets-store.csi.k8s.io", "readOnly", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"},
			"volumeAttributes", mapping("secretProviderClass", cl.name))))
		i.mount(pod.Spec, name, cl)
	}
	i.c.result.Pods = append(i.c.result.Pods, changed)
}

// freeVolume is a name that no volume of the pod has.
func freeVolume(spec *yaml.Node) string {
	const name = "keymount"
	free := name
	for n := 2; slices.ContainsFunc(items(spec, "volumes"), func(v *yaml.Node) bool { return manifest.Text(manifest.Field(v, "name")) == free }); n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	return free
}

// mount mounts a volume into the containers that the injector would have chosen: all or those
// of an annotation, and every init container unless no agent runs before them.
func (i injection) mount(spec *yaml.Node, volume string, cl *draft) {
	chosen := i.value("agent-inject-containers")
	for _, container := range items(spec, "containers") {
		name := manifest.Text(manifest.Field(container, "name"))
		if chosen == "" || slices.ContainsFunc(strings.Split(chosen, ","), func(one string) bool { return strings.TrimSpace(one) == name }) {
			i.mountIn(container, volume, cl)
		}
	}
	if i.value("agent-pre-populate") == "false" {
		return
	}
	for _, container := range items(spec, "initContainers") {
		i.mountIn(container, volume, cl)
	}
}

// mountIn mounts a volume into a container, unless another one is there.
func (i injection) mountIn(container *yaml.Node, volume string, cl *draft) {
	for _, mount := range items(container, "volumeMounts") {
		name, at := manifest.Text(manifest.Field(mount, "name")), path.Clean(manifest.Text(manifest.Field(mount, "mountPath")))
		container, inside := manifest.Text(manifest.Field(container, "name")), path.Clean(cl.dir)
		why := ""
		switch {
		case at == inside:
			why = fmt.Sprintf("container %q has the volume %q at %s, where the files of class %q belong", container, name, at, cl.name)
		case isBelow(at, inside):
			why = fmt.Sprintf("container %q has the volume %q at %s, within the files of class %q, and nothing can be mounted into a volume that is read-only", container, name, at, cl.name)
		default:
			continue
		}
		i.lost(nil, "volumeMounts", why, "move one of them, with secret-volume-path before converting, and have the application read there")
		return
	}
	addMount(container, volume, cl.dir)
}

// isBelow tells whether a path lies in a folder.
func isBelow(text, dir string) bool {
	return strings.HasPrefix(text, strings.TrimSuffix(dir, "/")+"/")
}

func addMount(container *yaml.Node, volume, dir string) {
	addItem(container, "volumeMounts", mapping("name", volume, "mountPath", dir, "readOnly", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"}))
}

// addItem adds to a list of a map, which is made where it is absent.
func addItem(n *yaml.Node, name string, item *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	found := manifest.Field(n, name)
	if found == nil || found.Kind != yaml.SequenceNode {
		remove(n, func(field string) bool { return field == name })
		found = &yaml.Node{Kind: yaml.SequenceNode}
		put(n, name, found)
	}
	if found.Style&yaml.FlowStyle != 0 || n.Style&yaml.FlowStyle != 0 {
		flow(item)
	}
	found.Content = append(found.Content, item)
}

// flow writes a node in one line, as all around it.
func flow(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	}
	for _, below := range n.Content {
		flow(below)
	}
}

// remove takes fields out of a map.
func remove(n *yaml.Node, drop func(name string) bool) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	var left []*yaml.Node
	for k := 0; k+1 < len(n.Content); k += 2 {
		if !drop(n.Content[k].Value) {
			left = append(left, n.Content[k], n.Content[k+1])
		}
	}
	n.Content = left
}

func (i injection) removeAnnotations(metadata *yaml.Node) {
	annotations := manifest.Field(metadata, "annotations")
	remove(annotations, func(name string) bool { return strings.HasPrefix(name, i.prefix) })
	if annotations != nil && len(annotations.Content) == 0 {
		remove(metadata, func(name string) bool { return name == "annotations" })
	}
}

// tidy takes out of an object what a cluster has added to it.
func tidy(object *yaml.Node) {
	remove(object, func(name string) bool { return name == "status" })
	metadata := manifest.Field(object, "metadata")
	remove(metadata, func(name string) bool {
		return slices.Contains([]string{"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"}, name)
	})
	remove(manifest.Field(metadata, "annotations"), func(name string) bool {
		return name == "kubectl.kubernetes.io/last-applied-configuration" || name == "deployment.kubernetes.io/revision"
	})
}
