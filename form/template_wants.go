package form

import (
	"strings"
	"text/template/parse"
)

// Want is what a class asks of a value, as far as its text shows. The zero Want is a text of
// any kind.
type Want struct {
	Kind  WantKind
	Keys  map[string]*Want // of a map
	Each  *Want            // of the elements of a list, and of the values of a map; nil for any
	Least int              // the elements of a list, or the bytes of a text, that are needed

	Inside    *Want  // what is written in a text of the kinds Base64, Hex, JSON and Parts
	Separator string // of Parts
}

// WantKind is the kind of a value that is asked for.
type WantKind int

// The kinds.
const (
	WantText WantKind = iota
	WantNumber
	WantBool
	WantList
	WantMap
	WantBase64
	WantHex
	WantJSON
	WantParts // a text that is split at a separator
)

// Become gives the want a kind, unless it has one. A map goes before all others, because it
// can be printed, too.
func (w *Want) Become(kind WantKind) *Want {
	if w.Kind == WantText || kind == WantMap {
		w.Kind = kind
	}
	return w
}

// Key is the want of the value under a key.
func (w *Want) Key(name string) *Want {
	w.Become(WantMap)
	if w.Keys == nil {
		w.Keys = map[string]*Want{}
	}
	if w.Keys[name] == nil {
		w.Keys[name] = &Want{}
	}
	return w.Keys[name]
}

// Within is the want of what is written in a text, of the kinds Base64, Hex and JSON.
func (w *Want) Within(kind WantKind) *Want {
	w.Become(kind)
	if w.Inside == nil {
		w.Inside = &Want{}
	}
	return w.Inside
}

// element is the want of each element of a list with that many, or of each value of a map.
func (w *Want) element(least int) *Want {
	w.Become(WantList)
	w.Least = max(w.Least, least)
	if w.Each == nil {
		w.Each = &Want{}
	}
	return w.Each
}

// AskOf adds what a template asks of the object's own secret, and of those that secret
// returns for paths as written. A text that is no template asks nothing.
func AskOf(own *Want, template string, secret func(path string) *Want) {
	tree, _, err := parseTree(template)
	if err != nil {
		return
	}
	a := asking{own: own, secret: secret, variables: map[string]*Want{}}
	a.node(tree.Root, own)
}

// asking goes through a template. What is not known is a Want that nothing else knows.
type asking struct {
	own       *Want
	secret    func(path string) *Want
	variables map[string]*Want
}

func (a *asking) node(n parse.Node, dot *Want) {
	switch n := n.(type) {
	case *parse.ListNode:
		for _, e := range n.Nodes {
			a.node(e, dot)
		}
	case *parse.ActionNode:
		a.pipe(n.Pipe, dot)
	case *parse.IfNode:
		a.pipe(n.Pipe, dot)
		a.branch(&n.BranchNode, dot, dot)
	case *parse.WithNode:
		a.branch(&n.BranchNode, dot, a.pipe(n.Pipe, dot))
	case *parse.RangeNode:
		element := a.result(n.Pipe, dot).element(1)
		for i, variable := range n.Pipe.Decl {
			a.variables[variable.Ident[0]] = &Want{}
			if i == len(n.Pipe.Decl)-1 {
				a.variables[variable.Ident[0]] = element
			}
		}
		a.branch(&n.BranchNode, dot, element)
	}
}

func (a *asking) branch(b *parse.BranchNode, dot, inner *Want) {
	a.node(b.List, inner)
	if b.ElseList != nil {
		a.node(b.ElseList, dot)
	}
}

// pipe is the want of a pipeline, which its variables stand for.
func (a *asking) pipe(p *parse.PipeNode, dot *Want) *Want {
	result := a.result(p, dot)
	for _, variable := range p.Decl {
		a.variables[variable.Ident[0]] = result
	}
	return result
}

func (a *asking) result(p *parse.PipeNode, dot *Want) *Want {
	var result *Want
	for _, cmd := range p.Cmds {
		name, isCall := cmd.Args[0].(*parse.IdentifierNode)
		if !isCall {
			result = a.operand(cmd.Args[0], dot)
			continue
		}
		args := make([]argument, 0, len(cmd.Args))
		for _, arg := range cmd.Args[1:] {
			args = append(args, argument{arg, a.operand(arg, dot)})
		}
		if result != nil { // the last argument
			args = append(args, argument{nil, result})
		}
		result = a.call(name.Ident, args)
	}
	return result
}

// operand is the want of a value.
func (a *asking) operand(n parse.Node, dot *Want) *Want {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot
	case *parse.FieldNode:
		return below(dot, n.Ident)
	case *parse.VariableNode:
		of := a.variables[n.Ident[0]]
		if n.Ident[0] == "$" {
			of = a.own
		}
		if of == nil {
			of = &Want{}
		}
		return below(of, n.Ident[1:])
	case *parse.ChainNode:
		return below(a.operand(n.Node, dot), n.Field)
	case *parse.PipeNode:
		return a.pipe(n, dot)
	}
	return &Want{}
}

func below(w *Want, keys []string) *Want {
	for _, key := range keys {
		w = w.Key(key)
	}
	return w
}

// argument is one of a function, with its node where it is not piped.
type argument struct {
	node parse.Node
	want *Want
}

// text is a literal's.
func (a argument) text() (string, bool) {
	literal, is := a.node.(*parse.StringNode)
	if !is {
		return "", false
	}
	return literal.Text, true
}

// number is a literal's.
func (a argument) number() (int, bool) {
	literal, is := a.node.(*parse.NumberNode)
	if !is || !literal.IsInt || literal.Int64 < 0 || literal.Int64 > maxAsked {
		return 0, false
	}
	return int(literal.Int64), true
}

// maxAsked bounds what a number in a template can ask for.
const maxAsked = 1000

// call is the want of what a function returns. It tells the arguments what they have to be.
func (a *asking) call(name string, args []argument) *Want {
	if len(args) == 0 {
		return &Want{}
	}
	begin, end := args[0], args[len(args)-1]
	switch name {
	case "secret":
		if path, is := begin.text(); is {
			return a.secret(path)
		}
	case "default", "required", "trim", "replace", "and": // the last argument, or nearly
		return end.want
	case "or":
		return begin.want
	case "index":
		return indexed(begin.want, args[1:])
	case "slice":
		for _, bound := range args[1:] {
			n, _ := bound.number()
			begin.want.Least = max(begin.want.Least, n)
		}
		return begin.want
	case "first", "last":
		return begin.want.element(1)
	case "join":
		end.want.element(1)
	case "fromJson":
		return begin.want.Within(WantJSON)
	case "b64dec":
		return begin.want.Within(WantBase64)
	case "split", "splitList":
		end.want.Separator, _ = begin.text()
		return end.want.Within(WantParts).Become(WantList)
	case "eq", "ne":
		compared(args)
	case "printf":
		printed(args)
	}
	return &Want{}
}

// indexed is what index returns, as far as its keys are literals.
func indexed(w *Want, keys []argument) *Want {
	for _, key := range keys {
		if name, is := key.text(); is {
			w = w.Key(name)
		} else if n, is := key.number(); is {
			w = w.element(n + 1)
		} else {
			return &Want{}
		}
	}
	return w
}

// compared are texts, unless one of them is true or false.
func compared(args []argument) {
	for _, arg := range args {
		if _, isBool := arg.node.(*parse.BoolNode); isBool {
			for _, other := range args {
				other.want.Become(WantBool)
			}
		}
	}
}

// printed are as the verbs of a literal format take them.
func printed(args []argument) {
	format, is := args[0].text()
	if !is {
		return
	}
	for next := 1; ; next++ {
		_, rest, found := strings.Cut(format, "%")
		if !found {
			return
		}
		d, after, err := parseDirective(rest)
		if err != nil {
			return
		}
		format = after
		if d.verb == '%' {
			next--
			continue
		}
		if d.argument > 0 {
			next = d.argument
		}
		if next >= len(args) {
			return
		}
		switch {
		case strings.IndexByte("dbocfeEgG", d.verb) >= 0:
			args[next].want.Become(WantNumber)
		case d.verb == 't':
			args[next].want.Become(WantBool)
		}
	}
}
