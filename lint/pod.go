package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/manifest"
)

const driver = "secrets-store.csi.k8s.io"

// pod is a pod, or a template of pods.
type pod struct {
	manifest.Pod

	namespace string // empty for one that may be in any
	volumes   []volume
}

// volume is one of the driver's in a pod.
type volume struct {
	node       *yaml.Node
	name       string
	attributes *yaml.Node // may be nil
	class      string
}

// readPod keeps a pod with the driver's volumes.
func (c *checker) readPod(of manifest.Pod) {
	c.checkMetadata(of.Object, manifest.Field(of.Node, "metadata"))
	c.checkMetadata(of.Object, of.Metadata)
	c.checkTexts(of.Object, of.Spec, "spec", "serviceAccountName", "serviceAccount")
	c.checkSlips(of.Object, of.Spec, "spec", "serviceAccountName", "serviceAccount", "containers", "initContainers", "securityContext", "volumes")
	p := pod{Pod: of, namespace: c.namespace(of.Object)}
	for _, node := range items(manifest.Field(of.Spec, "volumes")) {
		csi := manifest.Field(node, "csi")
		if !c.isDriver(of.Object, manifest.Field(csi, "driver")) {
			continue
		}
		attributes := manifest.Field(csi, "volumeAttributes")
		p.volumes = append(p.volumes, volume{
			node: node, name: manifest.Text(manifest.Field(node, "name")), attributes: attributes, class: manifest.Text(manifest.Field(attributes, attrClass)),
		})
	}
	c.pods = append(c.pods, p)
}

// isDriver tells the driver's name. One with a slip is a mistake, and counts as the driver's.
func (c *checker) isDriver(o manifest.Object, name *yaml.Node) bool {
	text := manifest.Text(name)
	if text == driver || text == "" {
		return text == driver
	}
	if isGroup := strings.HasPrefix(apiVersion, text+"/"); !isGroup && spelling.Clear(text, []string{driver}) == "" {
		return false
	}
	f := c.node(o, name, "driver", Error, "csi: there is no driver %q; did you mean %q?", text, driver)
	f.Fix = replace(o.File, name, driver)
	return true
}

// attrClass names the class in a pod's volume.
const attrClass = "secretProviderClass"

// items are those of a list; none of anything else.
func items(list *yaml.Node) []*yaml.Node {
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil
	}
	all := make([]*yaml.Node, len(list.Content))
	for i, item := range list.Content {
		all[i] = manifest.Resolved(item)
	}
	return all
}

// checkPod checks a pod's volumes, and what its containers do with them.
func (c *checker) checkPod(p *pod) {
	var mounted []*checkedClass
	for _, v := range p.volumes {
		c.checkVolume(p, v)
		of := c.find(p, v)
		if of == nil {
			continue
		}
		mounted = append(mounted, of)
		c.checkMounts(p, v, c.merged(p, v, of))
	}
	c.checkEnv(p, mounted)
}

// checkVolume checks the volume as it is written.
func (c *checker) checkVolume(p *pod, v volume) {
	csi := manifest.Field(v.node, "csi")
	c.checkFields(p.Object, csi, "csi", "driver", "readOnly", "volumeAttributes", "fsType", "nodePublishSecretRef")
	c.checkReadOnly(p, v, csi)
	if slip := slipOf(v.attributes, attrClass); v.class == "" && slip != nil {
		c.node(p.Object, slip, "unknown-parameter", Error, "volume %q: unknown attribute %q; did you mean %q?", v.name, slip.Value, attrClass).Fix = replace(p.File, slip, attrClass)
	} else if v.class == "" && !misspelled(csi, "volumeAttributes") {
		c.node(p.Object, cmp.Or(manifest.Key(csi, "volumeAttributes"), manifest.Key(v.node, "csi")), "missing", Error, "volume %q: volumeAttributes name no secretProviderClass", v.name)
	}
	for _, e := range manifest.Entries(v.attributes) {
		if isText(e.Value) {
			continue
		}
		f := c.node(p.Object, e.Value, "not-a-text", Error, "volumeAttributes: %s is no text, and the API server takes texts alone; write it in quotes", e.Key.Value)
		if e.Value.Kind == yaml.ScalarNode && !isNull(e.Value) {
			f.Fix = quote(p.File, e.Value)
		}
	}
}

// checkReadOnly finds a volume that is not read-only, or is by a text, which the API server
// refuses.
func (c *checker) checkReadOnly(p *pod, v volume, csi *yaml.Node) {
	readOnly := manifest.Field(csi, "readOnly")
	if manifest.IsTrue(readOnly) || misspelled(csi, "readOnly") {
		return
	}
	text := "the driver mounts it only with readOnly: true"
	if readOnly != nil && isText(readOnly) {
		text = fmt.Sprintf("readOnly: %q is a text, and the API server takes true or false; write readOnly: true, without quotes", readOnly.Value)
	}
	f := c.node(p.Object, cmp.Or(readOnly, manifest.Field(csi, "driver")), "read-only", Error, "volume %q: %s", v.name, text)
	f.Fix = readOnlyFix(p.File, csi, readOnly)
}

// readOnlyFix writes readOnly: true, behind the driver's name where there is none.
func readOnlyFix(f *manifest.File, csi, readOnly *yaml.Node) *Edit {
	if readOnly != nil {
		return trueFix(f, readOnly)
	}
	name := manifest.Key(csi, "driver")
	value := manifest.Field(csi, "driver")
	e := replace(f, value, "")
	if e == nil || name.Line != value.Line || !slices.Contains(csi.Content, name) { // merged into it
		return nil
	}
	written := []rune(f.Line(e.Line))
	switch rest := strings.TrimLeft(string(written[e.End-1:]), " "); {
	case csi.Style&yaml.FlowStyle != 0 && name.Style&yaml.DoubleQuotedStyle == 0:
		return &Edit{e.Line, e.End, e.End, ", readOnly: true"}
	case csi.Style&yaml.FlowStyle == 0 && rest == "":
		end := "\n"
		if bytes.Contains(f.Text, []byte("\r\n")) {
			end = "\r\n"
		}
		return &Edit{e.Line, e.End, e.End, end + strings.Repeat(" ", name.Column-1) + "readOnly: true"}
	}
	return nil
}

// trueFix writes true for what is false, or the text of it.
func trueFix(f *manifest.File, readOnly *yaml.Node) *Edit {
	if manifest.TypeOf(readOnly) != manifest.TypeBool && readOnly.Value != "true" {
		return nil
	}
	e := replace(f, readOnly, "true")
	if e != nil {
		e.Text = "true" // without quotes
	}
	return e
}

// find is the class that a volume mounts; nil for one that is not among the files.
func (c *checker) find(p *pod, v volume) *checkedClass {
	if v.class == "" {
		return nil
	}
	var own, near, elsewhere []*checkedClass // near may be of the pod's namespace
	for _, of := range c.byName[v.class] {
		switch {
		case of.namespace == p.namespace:
			own = append(own, of)
		case of.namespace == "" || p.namespace == "":
			near = append(near, of)
		default:
			elsewhere = append(elsewhere, of)
		}
	}
	beside := c.names[p.namespace]
	node := manifest.Field(v.attributes, attrClass)
	switch {
	case len(own) > 0:
		return nearest(own, p.File.Name)
	case len(near) > 0:
		return nearest(near, p.File.Name)
	case len(elsewhere) > 0:
		c.node(p.Object, node, "other-namespace", Error, "class %q is in namespace %q, and a pod of namespace %q can mount classes of its own alone", v.class, elsewhere[0].namespace, p.namespace)
	case len(beside) > 0 && !slices.Contains(c.otherNames, v.class):
		c.node(p.Object, node, "no-class", Warning, "class %q is not among the files, and others of its namespace are%s", v.class, spelling.Hint(v.class, beside))
	}
	return nil
}

// nearest is the class in the file with most of the path of another: folders may hold the
// same objects for several clusters.
func nearest(classes []*checkedClass, file string) *checkedClass {
	shared := func(of *checkedClass) (n int) {
		for n < len(file) && n < len(of.File.Name) && file[n] == of.File.Name[n] {
			n++
		}
		return n
	}
	return slices.MaxFunc(classes, func(a, b *checkedClass) int { return shared(a) - shared(b) })
}

// merged is the class as the pod mounts it: the pod's attributes win over its parameters.
func (c *checker) merged(p *pod, v volume, of *checkedClass) class.Checked {
	own := map[string]string{}
	for _, name := range attributeNames(v.attributes) {
		own[name] = manifest.Text(manifest.Field(v.attributes, name))
	}
	if len(own) == 0 {
		of.users = append(of.users, user{p.ServiceAccount, p.namespace})
		return of.checked
	}
	parameters := maps.Clone(of.Parameters)
	maps.Copy(parameters, own)
	checked := class.Check(of.dialect, cmp.Or(p.namespace, of.namespace, anyNamespace), parameters, c.storesFor(of.dialect))
	known := map[string]bool{}
	for _, m := range slices.Concat(of.checked.Mistakes, of.checked.Warnings) {
		known[m.Whole()] = true
	}
	at := manifest.Class{Object: p.Object, Nodes: map[string]*yaml.Node{}, Keys: map[string]*yaml.Node{}}
	for name := range own {
		at.Nodes[name], at.Keys[name] = manifest.Field(v.attributes, name), manifest.Key(v.attributes, name)
	}
	for i, m := range slices.Concat(checked.Mistakes, checked.Warnings) {
		if known[m.Whole()] {
			continue
		}
		severity := Error
		if i >= len(checked.Mistakes) {
			severity = Warning
		}
		c.ofAttributes(at, v, m, severity)
	}
	c.overridden = append(c.overridden, overridden{p: p, v: v, of: of, checked: checked})
	return checked
}

// ofAttributes notes a mistake of a class with a pod's attributes, at the attribute.
func (c *checker) ofAttributes(at manifest.Class, v volume, m class.Mistake, severity Severity) {
	if at.Nodes[m.Parameter] == nil {
		c.node(at.Object, v.attributes, string(m.Reason), severity, "class %q with these attributes: %s", v.class, textOf(m))
		return
	}
	f := c.at(at.File, placeOf(at, m.Place, m.Reason), string(m.Reason), severity, "volumeAttributes: %s", textOf(m))
	f.Add = m.Add
	if severity == Error {
		f.Fix = instead(at, m)
	}
}

// attributeNames are those of a volume that are parameters of the class.
func attributeNames(attributes *yaml.Node) (names []string) {
	for _, e := range manifest.Entries(attributes) {
		if e.Key.Value != attrClass && isText(e.Value) {
			names = append(names, e.Key.Value)
		}
	}
	return names
}

// overridden is a class with a pod's attributes.
type overridden struct {
	p       *pod
	v       volume
	of      *checkedClass
	checked class.Checked
}
