package convert

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// draft is a SecretProviderClass to write, as long as it can still change.
type draft struct {
	source

	namespace string
	name      string
	origin    *origin
	role      string
	// accounts are the service accounts of the pods that use it. Where none is known, old is
	// the one that the old tool logged in with.
	accounts []string
	old      string
	uses     func(podUse) bool // tells the pods that use it
	dir      string            // the folder of its files in a pod that had an agent
	entries  []entry
	synced   *yaml.Node // secretObjects; nil without
	native   string     // the Secret that an operator wrote
	comments []string
}

// entry is an object of a class to write. Empty fields are left out.
type entry struct {
	at    *yaml.Node // its place in the input
	field string

	path, key, version, file, template, format, encoding, mode string
	args                                                       *yaml.Node
	origin                                                     *origin // where it is not the class's
	role                                                       string
	beside                                                     []string // paths that the template names
	comments                                                   []string
}

// freeName is the name of an object for its class, or with a number where another class of
// the namespace has it.
func (c *conversion) freeName(o manifest.Object) string {
	namespace, name := c.namespace(o), cmp.Or(o.Name, strings.TrimSuffix(manifest.Text(manifest.Field(o.Node, "metadata", "generateName")), "-"), "unnamed")
	free := name
	for n := 2; c.taken[[2]string{namespace, free}]; n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	c.taken[[2]string{namespace, free}] = true
	return free
}

// node writes the class.
func (cl *draft) node() *yaml.Node {
	metadata := mapping("name", cl.name)
	if cl.object.Namespace != "" || cl.namespace != defaultNamespace {
		metadata = mapping("name", cl.name, "namespace", cl.namespace)
	}
	for _, name := range []string{"labels", "annotations"} {
		if found := kept(cl.field("metadata", name)); found != nil && cl.dir == "" { // a pod keeps its own
			put(metadata, name, found)
		}
	}
	spec := mapping("provider", "keymount", "parameters", cl.parameters())
	if cl.synced != nil {
		put(spec, "secretObjects", cl.synced)
	}
	n := mapping("apiVersion", "secrets-store.csi.x-k8s.io/v1", "kind", "SecretProviderClass", "metadata", metadata, "spec", spec)
	n.HeadComment = comment(cl.comments...)
	return n
}

// parameters are the class's own.
func (cl *draft) parameters() *yaml.Node {
	parameters := mapping()
	if cl.origin.name != defaultStore {
		put(parameters, "store", cl.origin.name)
	}
	if cl.role != "" {
		put(parameters, "role", cl.role)
	}
	put(parameters, "objects", cl.objects())
	return parameters
}

// objects is the text of the objects, as a block that keeps its lines.
func (cl *draft) objects() *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, e := range cl.entries {
		list.Content = append(list.Content, e.node())
	}
	text, err := encode(list)
	if err != nil { // made of texts alone, it can always be written
		text = []byte("[]\n")
	}
	return block(string(text))
}

func (e entry) node() *yaml.Node {
	n := mapping()
	for _, f := range []struct{ name, text string }{{"path", e.path}, {"version", e.version}, {"key", e.key}} {
		if f.text != "" {
			put(n, f.name, f.text)
		}
	}
	if e.args != nil {
		put(n, "args", e.args)
	}
	put(n, "file", e.file)
	for _, f := range []struct{ name, text string }{{"format", e.format}, {"encoding", e.encoding}, {"mode", e.mode}} {
		if f.text != "" {
			put(n, f.name, f.text)
		}
	}
	if e.origin != nil {
		put(n, "store", e.origin.name)
	}
	if e.role != "" {
		put(n, "role", e.role)
	}
	if e.template != "" {
		put(n, "template", block(e.template))
	}
	n.HeadComment = comment(e.comments...)
	return n
}

// block is a text in its lines, or in quotes where a block would read as another text, as one
// of spaces alone does.
func block(text string) *yaml.Node {
	n := scalar(text)
	if !strings.Contains(text, "\n") {
		return n
	}
	n.Style = yaml.LiteralStyle
	var again struct{ Text string }
	written, err := encode(mapping("text", n))
	if err != nil || yaml.Unmarshal(written, &again) != nil || again.Text != text {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// mapping makes a map of names and values: texts or nodes.
func mapping(pairs ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i+1 < len(pairs); i += 2 {
		put(n, fmt.Sprint(pairs[i]), pairs[i+1])
	}
	return n
}

func put(n *yaml.Node, name string, value any) {
	node, ok := value.(*yaml.Node)
	if !ok {
		node = scalar(fmt.Sprint(value))
	}
	n.Content = append(n.Content, scalar(name), node)
}

func scalar(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// list makes a list of texts, in one line.
func list(texts []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, text := range texts {
		n.Content = append(n.Content, scalar(text))
	}
	return n
}

// comment makes lines of a comment, none of them too long for a terminal.
func comment(lines ...string) string {
	const widest = 90
	var all []string
	for _, line := range lines {
		for _, part := range Wrap(line, widest) {
			all = append(all, strings.TrimRight("# "+part, " "))
		}
	}
	return strings.Join(all, "\n")
}

// Wrap parts a text into lines of at most so many characters, at spaces.
func Wrap(text string, widest int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) > widest:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	if line == "" {
		return lines
	}
	return append(lines, line)
}

// YAML writes documents.
func YAML(documents ...*yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	for i, d := range documents {
		if i > 0 {
			out.WriteString("---\n")
		}
		text, err := encode(d)
		if err != nil {
			return nil, err
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}

func encode(n *yaml.Node) (text []byte, err error) {
	defer func() {
		if recover() != nil { // yaml.v3 panics about some nodes
			err = fmt.Errorf("write YAML: a node cannot be written")
		}
	}()
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(n); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), nil
}
