// Package lint finds mistakes in files before a cluster does: in SecretProviderClasses, in
// the pods and workloads that mount them, and in keymount.yaml. It asks nothing of a
// cluster or a store.
//
// [Check] reads objects of [manifest] with the parsers of a mount and of serve, and gives a
// [Finding] for each mistake: its place in the file, a [Rule], and an [Edit] where the cure
// is safe. [Fix] makes such edits. There is a file for each subject: class.go, secret.go,
// pod.go, config.go and rules.go.
package lint

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/store/kind"
)

// Severity says how bad a finding is.
type Severity string

// The severities. With an error something will not work; a warning may be meant.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing to put right.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"` // 0 is the whole file
	Column   int      `json:"column,omitempty"`
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	// Add are lines for keymount.yaml that would put it right.
	Add string `json:"add,omitempty"`
	// Fix is a change that puts it right and changes nothing that works.
	Fix *Edit `json:"fix,omitempty"`
}

// Edit replaces a part of one line. Columns count characters from 1, and End is behind the
// last one.
type Edit struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	End    int    `json:"endColumn"`
	Text   string `json:"text"`
}

// Options say what is known besides the files.
type Options struct {
	// Namespace is that of objects that name none. Without it they may be of any.
	Namespace string
	// Config is a keymount.yaml or the chart's values; nil takes the one among the files.
	Config *manifest.File
	Kinds  []kind.Kind // of stores
	// Warn is what a keymount.yaml may say and seldom means.
	Warn func(*config.Config) []kind.Mistake
}

// Result is what was found.
type Result struct {
	Findings []Finding
	Classes  int // of keymount
	Others   int // classes of other providers, which were not read
	Pods     int // and workloads
	Configs  int
	// Judged says that there was a keymount.yaml to hold the classes against.
	Judged bool
}

// Check reads files. Its findings are in the order of files and lines.
func Check(files []*manifest.File, o Options) Result {
	c := checker{o: o, order: map[string]int{}, seen: map[Finding]bool{}, templates: map[*manifest.File]bool{}}
	if o.Config != nil {
		c.number(o.Config)
	}
	for _, f := range files {
		c.number(f)
		c.addSyntax(f)
	}
	c.readConfigs(files)
	for _, f := range files {
		for _, object := range f.Objects {
			if !c.templates[f] {
				c.contained(f, object.Node, func() { c.read(object) })
			}
		}
	}
	c.index()
	c.checkSecrets()
	for i := range c.pods {
		p := &c.pods[i]
		c.contained(p.File, p.Node, func() { c.checkPod(p) })
	}
	c.checkRules()
	return c.result()
}

// contained calls a check, and notes a bug of keymount in it: that costs what is left of one
// check.
func (c *checker) contained(f *manifest.File, at *yaml.Node, check func()) {
	if err := contain.Run(func() error { check(); return nil }); err != nil {
		c.at(f, manifest.At(at), Bug, Error, "keymount ran into a bug of its own and did not check this to its end; please report it with the file")
	}
}

// addSyntax notes why a file could not be read to its end. A chart's template is no YAML.
func (c *checker) addSyntax(f *manifest.File) {
	if isTemplate(f) {
		c.at(f, manifest.Position{}, "template", Warning, "a template is no YAML and was not read; check what 'helm template' makes of it")
		c.templates[f] = true
		return
	}
	for _, m := range f.Mistakes {
		at := manifest.BadLine(f.Text)
		if at.Line == 0 {
			at = m.Position
		}
		c.at(f, at, "yaml", Error, "%s", m.Text)
	}
}

// isTemplate tells the template of a chart, which may be YAML by chance, from templates in
// classes, which never begin a line of the file, and from comments.
func isTemplate(f *manifest.File) bool {
	return regexp.MustCompile(`(?m)^\{\{|^[^#\n]*\{\{[^}]*(\.(Values|Release|Chart|Capabilities)\.|\b(include|template|define|tpl) ")`).Match(f.Text)
}

// checker is the state of one Check.
type checker struct {
	o       Options
	order   map[string]int // of files
	configs map[*manifest.File]bool
	// templates are files that were not read.
	templates map[*manifest.File]bool
	config    *known // nil without one

	classes []checkedClass
	byName  map[string][]*checkedClass
	names   map[string][]string // of classes, by their namespaces
	pods    []pod
	others  int
	// otherNames are the names of classes of other providers.
	otherNames []string
	secrets    map[string][]synced // by their names
	overridden []overridden

	findings []Finding
	seen     map[Finding]bool
}

func (c *checker) number(f *manifest.File) {
	if _, twice := c.order[f.Name]; !twice {
		c.order[f.Name] = len(c.order)
	}
}

// read keeps an object that lint knows, and checks what it is by itself.
func (c *checker) read(object manifest.Object) {
	if class, ok := object.Class(); ok {
		c.checkTwice(object, object.Node)
		c.readClass(class)
		return
	}
	if looksLikeClass(object) {
		c.at(object.File, manifest.At(object.Node), "kind", Error,
			"this looks like a SecretProviderClass, and is none; write apiVersion: %s and kind: %s", apiVersion, classKind)
		return
	}
	if p, ok := object.Pod(); ok {
		c.checkTwice(object, object.Node)
		c.readPod(p)
	}
}

// index makes the classes known by name, once all are read.
func (c *checker) index() {
	c.byName, c.names = map[string][]*checkedClass{}, map[string][]string{}
	for i := range c.classes {
		of := &c.classes[i]
		c.byName[of.Name] = append(c.byName[of.Name], of)
		c.names[of.namespace] = append(c.names[of.namespace], of.Name)
	}
}

// namespace is that of an object; empty for one that may be in any.
func (c *checker) namespace(o manifest.Object) string { return cmp.Or(o.Namespace, c.o.Namespace) }

// at notes a finding, each once. Its text is for a terminal: whatever a file has in it, it
// is all visible.
func (c *checker) at(f *manifest.File, at manifest.Position, rule string, severity Severity, format string, args ...any) *Finding {
	found := Finding{File: f.Name, Line: at.Line, Column: at.Column, Rule: rule, Severity: severity, Text: spelling.Visible(fmt.Sprintf(format, args...))}
	if c.seen[found] {
		return &Finding{} // of no use
	}
	c.seen[found] = true
	c.findings = append(c.findings, found)
	return &c.findings[len(c.findings)-1]
}

// node is [checker.at] for a node of an object.
func (c *checker) node(o manifest.Object, n *yaml.Node, rule string, severity Severity, format string, args ...any) *Finding {
	if n == nil {
		n = o.Node
	}
	return c.at(o.File, manifest.At(n), rule, severity, format, args...)
}

func (c *checker) result() Result {
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(c.order[a.File]-c.order[b.File], a.Line-b.Line, a.Column-b.Column, cmp.Compare(a.Rule, b.Rule))
	})
	return Result{c.findings, len(c.classes), c.others, len(c.pods), len(c.configs), c.config != nil}
}
