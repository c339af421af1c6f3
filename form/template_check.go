package form

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template/parse"
	"unicode"

	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
)

// maxMistakes bounds the mistakes of one error.
const maxMistakes = 20

// checker looks at each node of a parsed template, before anything of ours is in
// the tree, and collects the secrets it asks for.
type checker struct {
	text      string
	known     []string // functions
	path      func(string) (store.Path, error)
	paths     map[string]store.Path
	variables int
	nodes     int
	tooDeep   bool
	mistakes  []error
}

func (c *checker) mistake(n parse.Node, format string, args ...any) {
	if len(c.mistakes) < maxMistakes {
		c.mistakes = append(c.mistakes, located(c.text, n.Position(), n.String(), fmt.Errorf(format, args...)))
	}
}

// node goes through the tree; depth counts the recursion of text/template.
func (c *checker) node(n parse.Node, depth int) {
	if c.nodes++; c.nodes == maxNodes+1 {
		c.mistakes = append(c.mistakes, fmt.Errorf("more than %d nodes; make two files of it", maxNodes))
	}
	if c.nodes > maxNodes || len(c.mistakes) >= maxMistakes {
		return // enough to refuse it
	}
	if depth > maxNesting {
		if !c.tooDeep { // once; the nodes around it are as deep
			c.mistakes = append(c.mistakes, located(c.text, n.Position(), "", fmt.Errorf("nested more than %d deep", maxNesting)))
		}
		c.tooDeep = true
		return
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, e := range n.Nodes {
			c.node(e, depth)
		}
	case *parse.ActionNode:
		c.node(n.Pipe, depth)
	case *parse.IfNode:
		c.branch(&n.BranchNode, depth+1)
	case *parse.RangeNode:
		c.branch(&n.BranchNode, depth+1)
	case *parse.WithNode:
		c.branch(&n.BranchNode, depth+1)
	case *parse.TemplateNode:
		c.mistake(n, "template and block are not available in a template")
	case *parse.PipeNode:
		c.pipe(n, depth+1)
	case *parse.ChainNode:
		c.node(n.Node, depth+1)
	case *parse.IdentifierNode:
		c.call(n, []parse.Node{n}, false)
	}
}

func (c *checker) branch(b *parse.BranchNode, depth int) {
	c.node(b.Pipe, depth)
	c.node(b.List, depth)
	if b.ElseList != nil {
		c.node(b.ElseList, depth)
	}
}

func (c *checker) pipe(p *parse.PipeNode, depth int) {
	if !p.IsAssign {
		c.variables += len(p.Decl)
		if c.variables > maxVariables && c.variables-len(p.Decl) <= maxVariables {
			c.mistake(p, "more than %d variables", maxVariables)
		}
	}
	for _, cmd := range p.Cmds[min(1, len(p.Cmds)):] {
		if isChoice(cmd) {
			depth++ // what is piped into it becomes its argument
		}
	}
	for i, cmd := range p.Cmds {
		args := cmd.Args
		if name, ok := args[0].(*parse.IdentifierNode); ok {
			c.call(name, args, i > 0)
			args = args[1:]
		}
		for _, arg := range args {
			c.node(arg, depth)
		}
	}
}

// call checks a function's name, and the arguments of the two functions that need them
// known before the template runs. args[0] is the name itself.
func (c *checker) call(name *parse.IdentifierNode, args []parse.Node, piped bool) {
	switch name.Ident {
	case "secret":
		c.secret(name, args, piped)
	case "required":
		if len(args) < 2 || args[1].Type() != parse.NodeString {
			// A computed text may be a value, and it ends up in an error.
			c.mistake(name, "required takes a literal text for its error first")
		}
	case "call", "html", "js", "urlquery":
		c.mistake(name, "%s is not available in a template", name.Ident)
	default:
		if !slices.Contains(c.known, name.Ident) {
			c.mistake(name, "there is no function %q%s", name.Ident, hint(name.Ident, c.known))
		}
	}
}

// hint is the function that was meant: ours for a name that another dialect has for it, or
// the nearest.
func hint(name string, known []string) string {
	ours := map[string]string{
		"get": "index", "dig": "index", "pluck": "index", "elementAt": "index", "hasKey": "index", "lookup": "secret",
		"coalesce": "or", "ternary": "if", "empty": "not", "fail": "required",
		"toString": "print", "squote": "quote", "cat": "print", "toPrettyJson": "toJson", "toRawJson": "toJson",
		"mustToJson": "toJson", "mustFromJson": "fromJson", "fromJsonArray": "fromJson", "parseJSON": "fromJson",
		"b64encode": "b64enc", "base64Encode": "b64enc", "b64decode": "b64dec", "base64Decode": "b64dec",
	}
	if word, foreign := ours[name]; foreign {
		return fmt.Sprintf("; did you mean %q?", word)
	}
	return spelling.Hint(name, known)
}

func (c *checker) secret(name *parse.IdentifierNode, args []parse.Node, piped bool) {
	var literal *parse.StringNode
	if len(args) == 2 && !piped {
		literal, _ = args[1].(*parse.StringNode)
	}
	if literal == nil {
		c.mistake(name, `secret takes one literal path: (secret "mount/name").key`)
		return
	}
	path, err := c.path(literal.Text)
	if err != nil {
		c.mistake(name, "the path %w", err)
		return
	}
	c.paths[literal.Text] = path
}

// functionNames are the functions for templates.
func functionNames() []string {
	ours := (&execution{}).functions()
	maps.DeleteFunc(ours, func(name string, _ any) bool { return strings.HasPrefix(name, hiddenPrefix) })
	for _, theirs := range []string{"and", "or", "not"} {
		ours[theirs] = nil
	}
	return slices.Sorted(maps.Keys(ours))
}

// located adds an error's place in the text; context is the node's text.
func located(text string, pos parse.Pos, context string, err error) error {
	before := text[:pos]
	return place(1+strings.Count(before, "\n"), len(before)-strings.LastIndex(before, "\n"), context, err)
}

// place is the beginning of every message about a place in a template. Lines and
// columns count from 1.
func place(line, column int, context string, err error) error {
	const longest = 60
	context = strings.Map(func(r rune) rune {
		if !spelling.IsPlain(r) {
			return ' '
		}
		return r
	}, context)
	if cut := []rune(context); len(cut) > longest {
		context = string(cut[:longest]) + "…"
	}
	if context != "" {
		err = fmt.Errorf("at <%s>: %w", context, err)
		return fmt.Errorf("line %d, column %d, %w", line, column, err)
	}
	return fmt.Errorf("line %d, column %d: %w", line, column, err)
}

// fault is an error made here, which never holds a value.
type fault struct {
	text  string
	cause error // nil, or the context's
}

func (f *fault) Error() string { return f.text }

func (f *fault) Unwrap() error { return f.cause }

func faultf(format string, args ...any) error { return &fault{text: fmt.Sprintf(format, args...)} }

// explain makes an error of ours out of one of text/template, which may hold values: it
// takes over only the place and the node's text, and has words of ours for the mistakes
// of a template's author.
func (t *Template) explain(err error) error {
	own, isOwn := errors.AsType[*fault](err)
	var line, column int
	var name string
	head, rest, _ := strings.Cut(err.Error(), " at <")
	if n, _ := fmt.Sscanf(head, "template: "+templateName+":%d:%d: executing %q", &line, &column, &name); n != 3 {
		if isOwn {
			return own // from writing the output, which is nowhere in particular
		}
		return errors.New("the template cannot be executed")
	}
	// Both the node's text and the message can hold this mark. The first one is
	// at most too early, and shows less.
	context, message, _ := strings.Cut(rest, ">: ")
	context = t.original.Replace(context)
	if strings.Contains(context, hiddenPrefix) {
		context = ""
	}
	if !isOwn {
		return place(line, column+1, context, errors.New(reworded(message)))
	}
	return place(line, column+1, context, own)
}

// reworded is text/template's message without values.
func reworded(message string) string {
	for _, prefix := range []string{"map has no entry for key ", "nil data; no entry for key ", "nil pointer evaluating interface {}."} {
		if key, ok := strings.CutPrefix(message, prefix); ok && isKey(key) {
			return fmt.Sprintf("there is no key %q", strings.Trim(key, `"`))
		}
	}
	if field, ok := strings.CutPrefix(message, "can't evaluate field "); ok {
		if key, _, _ := strings.Cut(field, " "); isKey(key) {
			return fmt.Sprintf("there is no key %q; what stands before it is not a map", key)
		}
	}
	switch {
	case strings.HasPrefix(message, "wrong number of args for "):
		return "too few or too many arguments"
	case strings.HasPrefix(message, "range can't iterate over "):
		return "range takes a list, a map or a whole number"
	}
	return "cannot be evaluated"
}

// isKey tells whether text is the name of a field as a template can hold it,
// quoted or not, and so surely from the template.
func isKey(text string) bool {
	text = strings.Trim(text, `"`)
	return text != "" && strings.IndexFunc(text, func(r rune) bool {
		return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) < 0
}
