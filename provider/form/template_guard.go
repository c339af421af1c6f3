package form

import (
	"strconv"
	"strings"
	"text/template/parse"
)

// The functions that we put into a template's tree. The checker refuses their
// names in the author's text like those of any other unknown function.
const (
	hiddenPrefix = "keymount_"
	stepName     = hiddenPrefix + "step"   // in front of each range body: counts
	textName     = hiddenPrefix + "text"   // at the end of what is printed: null is empty
	lookupName   = hiddenPrefix + "lookup" // below default and required: a key may be absent
	walkName     = hiddenPrefix + "walk"   // at the end of what is ranged over: pays for the order of a map
)

// guarding changes a checked tree so that its execution ends. It remembers how
// what it changed was written, for messages.
type guarding struct{ changed []string }

// originals brings a node's text back to what the author wrote.
func (g *guarding) originals() *strings.Replacer {
	return strings.NewReplacer(append(g.changed, " | "+textName, "", " | "+walkName, "")...)
}

// node returns the number of nodes below n, which is what a round of it costs.
func (g *guarding) node(n parse.Node) int {
	switch n := n.(type) {
	case *parse.ListNode:
		return g.list(n)
	case *parse.ActionNode:
		work := g.node(n.Pipe)
		if len(n.Pipe.Decl) == 0 {
			n.Pipe.Cmds = append(n.Pipe.Cmds, command(n.Pos, textName))
		}
		return work
	case *parse.IfNode:
		return g.branch(&n.BranchNode)
	case *parse.WithNode:
		return g.branch(&n.BranchNode)
	case *parse.RangeNode:
		work := g.branch(&n.BranchNode)
		n.Pipe.Cmds = append(n.Pipe.Cmds, command(n.Pos, walkName))
		n.List.Nodes = append([]parse.Node{step(n.Pos, work)}, n.List.Nodes...)
		return work
	case *parse.PipeNode:
		return g.pipe(n)
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

func (g *guarding) branch(b *parse.BranchNode) int {
	work := g.node(b.Pipe) + g.node(b.List)
	if b.ElseList != nil {
		work += g.node(b.ElseList)
	}
	return work
}

func (g *guarding) pipe(p *parse.PipeNode) int {
	work := 1
	for i, cmd := range p.Cmds {
		if mayBeAbsent(cmd) {
			for j := 2; j < len(cmd.Args); j++ {
				work += g.absent(&cmd.Args[j])
			}
		} else if i+1 < len(p.Cmds) && len(cmd.Args) == 1 && mayBeAbsent(p.Cmds[i+1]) { // .key | default "x"
			work += g.absent(&cmd.Args[0])
			continue
		}
		for _, arg := range cmd.Args {
			work += g.node(arg)
		}
	}
	return work
}

// absent makes an argument tolerant. How it is written is noted before anything
// below it changes.
func (g *guarding) absent(arg *parse.Node) int {
	written := (*arg).String()
	work := g.node(*arg)
	*arg = g.tolerant(*arg, written)
	return work
}

// mayBeAbsent tells whether a command is one that answers for missing values.
func mayBeAbsent(cmd *parse.CommandNode) bool {
	name, ok := cmd.Args[0].(*parse.IdentifierNode)
	return ok && (name.Ident == "default" || name.Ident == "required")
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
