package form

import (
	"slices"
	"strconv"
	"strings"
	"text/template/parse"
)

// The functions that we put into a template's tree. The checker refuses their
// names in the author's text like those of any other unknown function.
const (
	hiddenPrefix = "keymount_"
	stepName     = hiddenPrefix + "step"   // in front of each range body: counts
	textName     = hiddenPrefix + "text"   // at the end of a printed pipeline: null is empty
	lookupName   = hiddenPrefix + "lookup" // in place of a field that may be absent: null without it
	indexName    = hiddenPrefix + "index"  // in place of an index that may find nothing: null then
	walkName     = hiddenPrefix + "walk"   // at the end of a range's pipeline: pays for the order of a map
	ifPrefix     = hiddenPrefix + "if_"    // in front of a function that may have nothing to work on: null then
)

// guarding changes a checked tree so that its execution ends. It remembers the author's
// text of each change, for messages, and the functions that may have nothing to work on.
type guarding struct {
	changed []string
	unsure  []string
}

// originals turns a node's text back into the author's.
func (g *guarding) originals() *strings.Replacer {
	return strings.NewReplacer(append(g.changed, " | "+textName, "", " | "+walkName, "", indexName, "index", ifPrefix, "")...)
}

// node returns the number of nodes below n, the cost of one round.
func (g *guarding) node(n parse.Node) int {
	switch n := n.(type) {
	case *parse.ListNode:
		return g.list(n)
	case *parse.ActionNode:
		work := g.pipe(n.Pipe, strict)
		if len(n.Pipe.Decl) == 0 {
			n.Pipe.Cmds = append(n.Pipe.Cmds, command(n.Pos, textName))
		}
		return work
	case *parse.IfNode:
		return g.branch(&n.BranchNode, condition)
	case *parse.WithNode:
		return g.branch(&n.BranchNode, condition)
	case *parse.RangeNode:
		work := g.branch(&n.BranchNode, strict)
		n.Pipe.Cmds = append(n.Pipe.Cmds, command(n.Pos, walkName))
		n.List.Nodes = append([]parse.Node{step(n.Pos, work)}, n.List.Nodes...)
		return work
	case *parse.PipeNode:
		return g.pipe(n, strict)
	case *parse.ChainNode:
		return 1 + g.node(n.Node)
	}
	return 1
}

func (g *guarding) list(l *parse.ListNode) int {
	work := 1
	for _, e := range l.Nodes {
		work += g.node(e)
	}
	return work
}

func (g *guarding) branch(b *parse.BranchNode, asked strictness) int {
	work := g.pipe(b.Pipe, asked) + g.node(b.List)
	if b.ElseList != nil {
		work += g.node(b.ElseList)
	}
	return work
}

// strictness is the meaning of an absent key at some place of a template.
type strictness int

const (
	// strict: the execution ends with an error.
	strict strictness = iota
	// lenient: the value is null, and the code around it has an answer for that.
	lenient
	// condition: lenient, and null compares to other values, for nothing there is printed.
	condition
)

func (g *guarding) pipe(p *parse.PipeNode, asked strictness) int {
	written := p.String()
	isChanged := unpipeChoices(p)
	own := make([]strictness, len(p.Cmds))
	for i := len(p.Cmds) - 1; i >= 0; i-- {
		own[i] = asked
		if i+1 < len(p.Cmds) {
			own[i] = piped(p.Cmds[i+1], own[i+1])
		}
	}
	work := 1
	for i, cmd := range p.Cmds {
		work += g.command(cmd, i > 0, own[i])
	}
	if isChanged {
		g.changed = append(g.changed, p.String(), written)
	}
	return work
}

// unpipeChoices turns .a | or .b into or .b (.a): the last argument of a choice is made only
// where it is chosen, while a piped one is made first.
func unpipeChoices(p *parse.PipeNode) (isChanged bool) {
	for i := len(p.Cmds) - 1; i > 0; i-- {
		if !isChoice(p.Cmds[i]) {
			continue
		}
		last := &parse.PipeNode{NodeType: parse.NodePipe, Pos: p.Cmds[0].Pos, Line: p.Line, Cmds: p.Cmds[:i:i]}
		p.Cmds[i].Args = append(p.Cmds[i].Args, last)
		p.Cmds = p.Cmds[i:]
		return true
	}
	return false
}

func isChoice(cmd *parse.CommandNode) bool {
	name, isCall := cmd.Args[0].(*parse.IdentifierNode)
	return isCall && (name.Ident == "and" || name.Ident == "or")
}

// piped is the strictness of the value piped into a command, as its last argument.
func piped(into *parse.CommandNode, asked strictness) strictness {
	name, isCall := into.Args[0].(*parse.IdentifierNode)
	if !isCall {
		return strict
	}
	return ofArgument(name.Ident, len(into.Args), true, asked)
}

// command goes through a call, or a value alone. A piped value is the last argument.
func (g *guarding) command(cmd *parse.CommandNode, isPiped bool, asked strictness) int {
	name, isCall := cmd.Args[0].(*parse.IdentifierNode)
	if !isCall {
		work := 0
		for i := range cmd.Args {
			work += g.argument(&cmd.Args[i], asked)
		}
		return work
	}
	work := 1
	for i := 1; i < len(cmd.Args); i++ {
		work += g.argument(&cmd.Args[i], ofArgument(name.Ident, i, i == len(cmd.Args)-1 && !isPiped, asked))
	}
	switch {
	case asked == strict:
	case name.Ident == "index":
		cmd.Args[0] = parse.NewIdentifier(indexName).SetPos(name.Pos)
	case hasSubject(name.Ident) && (asked != condition || !isEquality(name.Ident)):
		cmd.Args[0] = parse.NewIdentifier(ifPrefix + name.Ident).SetPos(name.Pos)
		if !slices.Contains(g.unsure, name.Ident) {
			g.unsure = append(g.unsure, name.Ident)
		}
	}
	return work
}

// ofArgument is the strictness of the argument at a place, of a call that is itself at a
// place of the strictness asked.
func ofArgument(function string, at int, isLast bool, asked strictness) strictness {
	switch function {
	case "default", "required":
		if at == 1 && !isLast {
			return strict // the text of the error, or the value instead
		}
		return max(asked, lenient)
	case "not":
		return max(asked, lenient)
	case "and", "or":
		if isLast {
			return asked // the last one is the result
		}
		return max(asked, lenient)
	case "index":
		if at == 1 {
			return asked
		}
	}
	if isSubject(function, at, isLast) {
		return asked
	}
	return strict
}

// isSubject tells whether the argument at a place is what the function is about: where that
// may be absent and is, so is the result.
func isSubject(function string, at int, isLast bool) bool {
	switch function {
	case "fromJson", "toJson", "toYaml", "b64enc", "b64dec", "indent", "nindent", "quote", "trim", "upper", "lower",
		"replace", "split", "splitList", "join", "first", "last", "len":
		return isLast
	case "slice":
		return at == 1
	case "printf":
		return at > 1
	case "print", "println", "lt", "le", "gt", "ge":
		return true
	}
	return isEquality(function)
}

func hasSubject(function string) bool {
	return isSubject(function, 1, true) || isSubject(function, 2, true)
}

// isEquality tells the comparisons that have an answer for null: it equals nothing else.
func isEquality(function string) bool { return function == "eq" || function == "ne" }

// argument makes a value tolerant where it may be absent. Its text is noted before anything
// below it changes.
func (g *guarding) argument(arg *parse.Node, asked strictness) int {
	written := (*arg).String()
	var work int
	switch n := (*arg).(type) {
	case *parse.PipeNode:
		return g.pipe(n, asked)
	case *parse.ChainNode:
		work = 1 + g.argument(&n.Node, asked)
	default:
		work = g.node(n)
	}
	if asked != strict {
		*arg = g.tolerant(*arg, written)
	}
	return work
}

// tolerant turns .a.b into (keymount_lookup . "a" "b"): everywhere else a missing
// key ends the execution, while here it has an answer.
func (g *guarding) tolerant(n parse.Node, written string) parse.Node {
	var root parse.Node
	var keys []string
	switch n := n.(type) {
	case *parse.FieldNode:
		root, keys = &parse.DotNode{NodeType: parse.NodeDot, Pos: n.Pos}, n.Ident
	case *parse.VariableNode:
		root = &parse.VariableNode{NodeType: parse.NodeVariable, Pos: n.Pos, Ident: n.Ident[:1]}
		keys = n.Ident[1:]
	case *parse.ChainNode:
		root, keys = n.Node, n.Field
	}
	if len(keys) == 0 {
		return n
	}
	lookup := command(n.Position(), lookupName)
	lookup.Args = append(lookup.Args, root)
	for _, key := range keys {
		lookup.Args = append(lookup.Args, &parse.StringNode{NodeType: parse.NodeString, Pos: n.Position(), Quoted: strconv.Quote(key), Text: key})
	}
	g.changed = append(g.changed, "("+lookup.String()+")", written, lookup.String(), written)
	return pipeline(n.Position(), lookup)
}

// step is the node {{keymount_step work}}.
func step(pos parse.Pos, work int) parse.Node {
	count := command(pos, stepName)
	count.Args = append(count.Args, &parse.NumberNode{NodeType: parse.NodeNumber, Pos: pos, IsInt: true, Int64: int64(work), Text: strconv.Itoa(work)})
	return &parse.ActionNode{NodeType: parse.NodeAction, Pos: pos, Pipe: pipeline(pos, count)}
}

func command(pos parse.Pos, function string) *parse.CommandNode {
	name := parse.NewIdentifier(function).SetPos(pos)
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: pos, Args: []parse.Node{name}}
}

func pipeline(pos parse.Pos, cmd *parse.CommandNode) *parse.PipeNode {
	return &parse.PipeNode{NodeType: parse.NodePipe, Pos: pos, Cmds: []*parse.CommandNode{cmd}}
}
