package manifest

import (
	"cmp"
	"slices"

	"gopkg.in/yaml.v3"
)

// Pod is a pod, or the template of a workload's pods.
type Pod struct {
	Object

	Metadata       *yaml.Node // of the pod or template; may be nil
	Spec           *yaml.Node // a map
	ServiceAccount string     // "default" where none is named
}

// Pod reads a pod, or the template of a workload that has one; false for other objects.
// Workloads are known by their form, so that kinds of other groups count as well.
func (o Object) Pod() (Pod, bool) {
	of := Pod{Object: o}
	for _, path := range [][]string{{}, {"spec", "template"}, {"template"}, {"spec", "jobTemplate", "spec", "template"}} {
		if len(path) == 0 && o.Kind != "Pod" {
			continue
		}
		of.Metadata, of.Spec = Field(o.Node, slices.Concat(path, []string{"metadata"})...), Field(o.Node, slices.Concat(path, []string{"spec"})...)
		if of.Spec == nil || of.Spec.Kind != yaml.MappingNode || Field(of.Spec, "containers") == nil {
			continue
		}
		of.ServiceAccount = cmp.Or(Text(Field(of.Spec, "serviceAccountName")), Text(Field(of.Spec, "serviceAccount")), "default")
		return of, true
	}
	return Pod{}, false
}

// Annotation is one of the pod's annotations; empty where there is none.
func (p Pod) Annotation(name string) string {
	return Text(Field(p.Metadata, "annotations", name))
}
