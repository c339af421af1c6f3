// Package convert turns the objects of other tools into keymount's: SecretProviderClasses of
// other providers, objects of operators that write native Secrets, and pods with an injected
// agent become classes, rules of keymount.yaml and changed pods. It is pure.
//
// [Convert] goes through the objects of files, and a file of this package reads each source:
// dialect.go, external*.go, operator*.go, injector.go. Each makes [draft]s, which class.go
// writes, [origin]s, of which rules.go makes the stores, and notes. template.go translates the
// templates of all sources by their parse trees. What has no counterpart is in a [Note], and
// nothing is dropped in silence.
package convert

import (
	"cmp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// Options are what the files do not say.
type Options struct {
	Store     string // the name of the store; "default" when empty
	Namespace string // of objects that name none; "default" when empty
}

// Result is what became of the files.
type Result struct {
	Classes []*yaml.Node // SecretProviderClasses
	Rules   *yaml.Node   // a keymount.yaml with the stores and their rules; nil without any
	Pods    []*yaml.Node // the objects with pods that had an agent injected, changed
	Notes   []Note
	Found   int // objects that there was something to convert of
}

// Complete tells whether all that was found has a counterpart.
func (r *Result) Complete() bool {
	return !slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Lost })
}

// Convert converts the objects of the files. An object may need others, such as the store
// that it names, which are looked for in all the files.
func Convert(files []*manifest.File, o Options) *Result {
	o.Store, o.Namespace = cmp.Or(o.Store, defaultStore), cmp.Or(o.Namespace, defaultNamespace)
	c := &conversion{options: o, taken: map[[2]string]bool{}, told: map[Note]bool{}}
	for _, f := range files {
		for _, m := range f.Mistakes {
			c.result.Notes = append(c.result.Notes, Note{File: f.Name, Line: m.Line, Column: m.Column, Lost: true, Text: "not YAML: " + m.Text, Instead: "correct the file; what stands behind this line was not read"})
		}
		c.objects = append(c.objects, f.Objects...)
	}
	c.index()
	for _, object := range c.objects {
		c.object(object)
	}
	c.finish()
	return &c.result
}

const (
	defaultStore     = "default"
	defaultNamespace = "default" // as of kubectl
	// usualMount and usualAudience are what Vault's tools take where nothing is said.
	usualMount    = "kubernetes"
	usualAudience = "vault"
)

// conversion is one call of Convert on its way.
type conversion struct {
	options Options
	objects []manifest.Object
	pods    map[string][]podUse // by namespace
	taken   map[[2]string]bool  // namespace and name of classes
	origins []*origin
	classes []*draft
	patches []func() // change the pods, when the classes are checked
	told    map[Note]bool
	result  Result
}

// index finds the pods, and the names that classes have already: pods name them.
func (c *conversion) index() {
	c.pods = map[string][]podUse{}
	for _, o := range c.objects {
		namespace := c.namespace(o)
		if _, isClass := o.Class(); isClass {
			c.taken[[2]string{namespace, o.Name}] = true
		}
		if pod, ok := o.Pod(); ok {
			c.pods[namespace] = append(c.pods[namespace], podUse{pod})
		}
	}
}

// object converts one object, if it is of a kind that there is something to say of.
func (c *conversion) object(o manifest.Object) {
	group, _, _ := strings.Cut(o.APIVersion, "/")
	found := true
	switch source, isClass := o.Class(); {
	case isClass:
		c.dialect(source)
	case group == externalGroup || strings.HasSuffix(group, "."+externalGroup):
		found = c.externalObject(o)
	case group == operatorGroup:
		found = c.operatorObject(o)
	default:
		found = c.injectedPod(o)
	}
	if found {
		c.result.Found++
	}
}

// namespace is that of an object, as kubectl would create it.
func (c *conversion) namespace(o manifest.Object) string {
	return cmp.Or(o.Namespace, c.options.Namespace)
}

// named finds an object of a kind; an empty namespace is that of a kind without.
func (c *conversion) named(kind, namespace, name string) (manifest.Object, bool) {
	for _, o := range c.objects {
		if o.Kind == kind && o.Name == name && (namespace == "" || c.namespace(o) == namespace) {
			return o, true
		}
	}
	return manifest.Object{}, false
}

// finish checks the classes, gives the origins their names and rules, and writes all of it.
func (c *conversion) finish() {
	for _, cl := range c.classes {
		c.findAccounts(cl)
		c.check(cl)
	}
	c.nameOrigins()
	for _, cl := range c.classes {
		if c.allow(cl); len(cl.entries) == 0 {
			cl.lost(nil, "", "there is nothing of it that a class could have", "")
			continue
		}
		cl.unsync()
		c.result.Classes = append(c.result.Classes, cl.node())
	}
	c.result.Rules = c.rules()
	for _, patch := range c.patches {
		patch()
	}
	slices.SortStableFunc(c.result.Notes, func(a, b Note) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}

// Stores is Rules as a list, for those that write documents.
func (r *Result) Stores() []*yaml.Node {
	if r.Rules == nil {
		return nil
	}
	return []*yaml.Node{r.Rules}
}

// Documents are all that came out: classes, rules, pods.
func (r *Result) Documents() []*yaml.Node { return slices.Concat(r.Classes, r.Stores(), r.Pods) }
