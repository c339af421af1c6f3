package manifest

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// classGroup is the API group of the driver's objects.
const classGroup = "secrets-store.csi.x-k8s.io"

// Class is a SecretProviderClass.
type Class struct {
	Object

	Provider   string
	Parameters map[string]string
	// Nodes are the values of the parameters, also of those that are no texts, and Keys
	// their names.
	Nodes, Keys map[string]*yaml.Node
}

// Class reads a SecretProviderClass; false for an object of another kind. Parameters that
// are no texts, which the API server would refuse, are in Nodes alone.
func (o Object) Class() (Class, bool) {
	if o.Kind != "SecretProviderClass" || !strings.HasPrefix(o.APIVersion, classGroup+"/") {
		return Class{}, false
	}
	c := Class{Object: o, Provider: Text(Field(o.Node, "spec", "provider")), Parameters: map[string]string{}, Nodes: map[string]*yaml.Node{}, Keys: map[string]*yaml.Node{}}
	for _, e := range Entries(Field(o.Node, "spec", "parameters")) {
		name := e.Key.Value
		c.Nodes[name], c.Keys[name] = e.Value, e.Key
		if TypeOf(e.Value) == TypeText {
			c.Parameters[name] = e.Value.Value
		}
	}
	return c, true
}
