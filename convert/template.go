package convert

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"
	"unicode"
)

// translation turns a template of another tool into one of keymount: it walks the parse tree
// and writes it anew. What it cannot say is a failure, and then there is no template.
type translation struct {
	words words
	// lookup is the value of a name in the data of a template of ESO.
	lookup func(name string) (value, error)
	// whole is all of that data; an error where it is of several secrets.
	whole  func() (value, error)
	main   secretCall // the secret of the object: its data is keymount's dot
	origin *origin

	text     string // of the template
	out      strings.Builder
	pending  string // text that is not written yet
	top      bool   // keymount's dot is the main secret
	beside   []string
	failures []failure
	remarks  []failure // of what may become another text
	depth    int
}

// words are the functions of a tool's templates, by ours; an empty one leaves its argument
// as it is.
type words map[string]string

// failure is a piece of a template without a counterpart.
type failure struct {
	line          int
	text, instead string
}

func (f failure) Error() string { return f.text }

// shape is the nature of a value in a tool's template.
type shape int

const (
	plain     shape = iota // the same in keymount
	anAnswer               // of Vault, in the agent's templates
	theData                // the data of an answer, with data and metadata for KV v2
	theNames               // the names of an ExternalSecret
	theInput               // of the operator's templates: .Secrets and more
	noData                 // the agent's dot outside of any secret
	isUnknown              // after a failure
)

// value is what a piece of a template stands for. Its text is keymount's: of an answer and
// of its data that is the map of the secret.
type value struct {
	shape shape
	path  string // of the secret, for answers and their data
	main  bool   // the text continues keymount's dot, or $ where dot is something else
	text  string
	loose bool // needs parentheses
	// typed tells a value that was a text in the old tool, and here may be a number, a bool, a
	// list or a map as well.
	typed bool
}

// scope has the variables.
type scope map[string]value

// translate writes a template for keymount. Its error lists every failure.
func (t *translation) translate(text string, dot value) (string, []failure) {
	tree, err := parsedTemplate(text)
	if err != nil {
		return "", []failure{{text: err.Error(), instead: "correct the template first"}}
	}
	t.text, t.top = text, true
	t.list(tree.Root, dot, scope{"$": dot})
	t.flush(true)
	if len(t.failures) > 0 {
		return "", t.failures
	}
	if t.out.Len() == 0 {
		return `{{ "" }}`, nil // an empty template would be none
	}
	return t.out.String(), nil
}

func parsedTemplate(text string) (tree *parse.Tree, err error) {
	defer func() {
		if recover() != nil { // text/template's parser has had such bugs
			err = errors.New("it cannot be parsed")
		}
	}()
	tree = parse.New("line")
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", trees); err != nil {
		return nil, fmt.Errorf("it cannot be parsed: %w", err)
	}
	if len(trees) != 1 || tree.Root == nil {
		return nil, errors.New("define and block have no counterpart")
	}
	return tree, nil
}

func (t *translation) line(n parse.Node) int {
	return 1 + strings.Count(t.text[:min(int(n.Position()), len(t.text))], "\n")
}

func (t *translation) fail(n parse.Node, instead, format string, args ...any) value {
	if len(t.failures) < 20 {
		t.failures = append(t.failures, failure{t.line(n), fmt.Sprintf(format, args...), instead})
	}
	return value{shape: isUnknown, text: `""`}
}

// flush writes the text so far, so that its braces are no actions. An action follows,
// unless it is the end.
func (t *translation) flush(end bool) {
	text := strings.ReplaceAll(t.pending, "{{", `{{ "{{" }}`)
	if rest, ok := strings.CutSuffix(text, "{"); ok && !end {
		text = rest + `{{ "{" }}`
	}
	t.out.WriteString(text)
	t.pending = ""
}

func (t *translation) action(format string, args ...any) {
	t.flush(false)
	t.out.WriteString("{{ " + fmt.Sprintf(format, args...) + " }}")
}

func (t *translation) list(l *parse.ListNode, dot value, vars scope) {
	if l == nil {
		return
	}
	const deepest = 100 // as in keymount's templates
	if t.depth++; t.depth > deepest {
		t.fail(l, "make two templates of it", "it is nested more than %d deep", deepest)
		return
	}
	defer func() { t.depth-- }()
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			t.pending += string(n.Text)
		case *parse.ActionNode:
			t.print(n, dot, vars)
		case *parse.IfNode:
			t.action("if %s", t.held(n.Pipe, t.asText(n.Pipe, t.declared(n.Pipe, dot, vars))))
			t.branch(&n.BranchNode, dot, dot, vars, vars)
		case *parse.WithNode:
			t.with(n, dot, vars)
		case *parse.RangeNode:
			t.each(n, dot, vars)
		case *parse.BreakNode:
			t.action("break")
		case *parse.ContinueNode:
			t.action("continue")
		case *parse.CommentNode:
		default:
			t.fail(n, "write the text out", "template and block have no counterpart")
		}
	}
}

// print writes an action, or declares its variable.
func (t *translation) print(n *parse.ActionNode, dot value, vars scope) {
	v := t.pipe(n.Pipe, dot, vars)
	if len(n.Pipe.Decl) == 0 {
		t.action("%s", t.expression(n.Pipe, v))
		return
	}
	text := t.held(n.Pipe, v)
	name, sign := n.Pipe.Decl[0].Ident[0], ":="
	if n.Pipe.IsAssign {
		sign = "="
	}
	vars[name] = v.at(name)
	t.action("%s %s %s", name, sign, text)
}

// declared is a condition's value; a variable in it is declared.
func (t *translation) declared(p *parse.PipeNode, dot value, vars scope) value {
	v := t.pipe(p, dot, vars)
	if len(p.Decl) == 0 {
		return v
	}
	v = t.asText(p, v)
	text := t.held(p, v)
	vars[p.Decl[0].Ident[0]] = v.at(p.Decl[0].Ident[0])
	return value{text: p.Decl[0].Ident[0] + " := " + text}
}

func (t *translation) branch(b *parse.BranchNode, dot, otherwise value, inner, outer scope) {
	top := t.top
	t.list(b.List, dot, maps.Clone(inner))
	t.top = top
	if b.ElseList != nil {
		t.action("else")
		t.list(b.ElseList, otherwise, maps.Clone(outer))
	}
	t.action("end")
}

// with leaves out the one around a whole template that is about the object's own secret:
// there keymount's dot is that secret already.
func (t *translation) with(n *parse.WithNode, dot value, vars scope) {
	v := t.asText(n.Pipe, t.pipe(n.Pipe, dot, vars))
	if t.top && v.shape == anAnswer && v.main && n.ElseList == nil && len(n.Pipe.Decl) == 0 {
		t.list(n.List, v, maps.Clone(vars))
		return
	}
	text, inner := t.held(n.Pipe, v), maps.Clone(vars)
	if len(n.Pipe.Decl) > 0 {
		name := n.Pipe.Decl[0].Ident[0]
		inner[name] = v.at(name)
		text = name + " := " + text
	}
	t.action("with %s", text)
	t.inside(&n.BranchNode, v.at("."), dot, inner, vars)
}

func (t *translation) each(n *parse.RangeNode, dot value, vars scope) {
	over := t.pipe(n.Pipe, dot, vars)
	isTyped := over.shape == theNames
	text, inner := t.expression(n.Pipe, over), maps.Clone(vars)
	var names []string
	for i, d := range n.Pipe.Decl {
		names = append(names, d.Ident[0])
		inner[d.Ident[0]] = value{text: d.Ident[0], typed: isTyped && i == len(n.Pipe.Decl)-1}
	}
	if len(names) > 0 {
		text = strings.Join(names, ", ") + " := " + text
	}
	t.action("range %s", text)
	t.inside(&n.BranchNode, value{text: ".", typed: isTyped}, dot, inner, vars)
}

// inside writes a body in which keymount's dot is another one.
func (t *translation) inside(b *parse.BranchNode, dot, otherwise value, inner, outer scope) {
	top := t.top
	t.top = false
	t.list(b.List, dot, inner)
	t.top = top
	if b.ElseList != nil {
		t.action("else")
		t.list(b.ElseList, otherwise, maps.Clone(outer))
	}
	t.action("end")
}

func (t *translation) pipe(p *parse.PipeNode, dot value, vars scope) (v value) {
	for i, cmd := range p.Cmds {
		var piped *value
		if i > 0 {
			before := v
			piped = &before
		}
		v = t.command(cmd, piped, dot, vars)
	}
	return v
}

func (t *translation) command(cmd *parse.CommandNode, piped *value, dot value, vars scope) value {
	name, isCall := cmd.Args[0].(*parse.IdentifierNode)
	switch {
	case isCall:
		return t.call(name, cmd.Args[1:], piped, dot, vars)
	case len(cmd.Args) > 1 || piped != nil:
		return t.fail(cmd, "", "%s is no function", shown(cmd.Args[0]))
	}
	return t.operand(cmd.Args[0], dot, vars)
}

func (t *translation) operand(n parse.Node, dot value, vars scope) value {
	const deepest = 100
	if t.depth++; t.depth > deepest {
		return t.fail(n, "make two templates of it", "it is nested more than %d deep", deepest)
	}
	defer func() { t.depth-- }()
	switch n := n.(type) {
	case *parse.DotNode:
		return dot
	case *parse.FieldNode:
		return t.fields(n, dot, n.Ident)
	case *parse.VariableNode:
		v, ok := vars[n.Ident[0]]
		if !ok {
			return t.fail(n, "", "there is no variable %s", n.Ident[0])
		}
		return t.fields(n, v, n.Ident[1:])
	case *parse.ChainNode:
		return t.fields(n, t.operand(n.Node, dot, vars), n.Field)
	case *parse.PipeNode:
		return t.pipe(n, dot, vars)
	case *parse.IdentifierNode:
		return t.call(n, nil, nil, dot, vars)
	case *parse.StringNode, *parse.NumberNode, *parse.BoolNode:
		return value{text: n.String()}
	case *parse.NilNode:
		return t.fail(n, "leave it out", "nil has no counterpart")
	}
	return t.fail(n, "", "%s has no counterpart", shown(n))
}

func (t *translation) fields(n parse.Node, v value, names []string) value {
	for _, name := range names {
		v = t.field(n, v, name)
	}
	return v
}

// field is a part of a value by its name.
func (t *translation) field(n parse.Node, v value, name string) value {
	switch v.shape {
	case isUnknown:
		return v
	case noData:
		return t.fail(n, `put it into {{ with secret "..." }}`, "%s: there is no data around it", shown(n))
	case anAnswer:
		if name == "Data" {
			v.shape = theData
			return v
		}
		return t.fail(n, "leave it out: it is about the answer and not of the secret", ".%s of an answer has no counterpart", name)
	case theData:
		return t.ofData(n, v, name)
	case theNames:
		found, err := t.lookup(name)
		if err != nil {
			return t.failed(n, err)
		}
		return found
	case theInput:
		if name == "Secrets" {
			return value{main: true}
		}
		return t.fail(n, "write the text out, or keep it in a secret", ".%s has no counterpart; a template has the secret alone", name)
	case plain:
	}
	return v.part(name)
}

func (t *translation) failed(n parse.Node, err error) value {
	known, _ := errors.AsType[failure](err)
	return t.fail(n, known.instead, "%v", err)
}

// ofData is a part of an answer's data: of KV v2 that is the secret itself, below data.
func (t *translation) ofData(n parse.Node, v value, name string) value {
	isKV2 := t.origin.isBelow(v.path, kv2)
	switch {
	case name == "data" && !t.origin.isBelow(v.path, kv1):
		if mount, _, ok := strings.Cut(v.path, "/"); ok && !isKV2 {
			t.origin.learn(mount, kv2) // else there would be no data in it
		}
		v.shape = plain
		return v
	case isKV2:
		return t.fail(n, "read it with another tool", ".%s of a KV v2 answer has no counterpart; a template has its data alone", name)
	}
	v.shape = plain
	return v.part(name)
}

// part is a value of keymount's below v.
func (v value) part(name string) value {
	switch {
	case !isName(name):
		return v.index(strconv.Quote(name))
	case v.main:
		return value{main: true, text: v.text + "." + name}
	case v.text == ".":
		return value{text: "." + name}
	}
	return value{text: v.operand() + "." + name}
}

// index is part for a key that is no name; main values are written with $ then, which is
// right everywhere.
func (v value) index(key string) value {
	return value{text: "index " + v.operand() + " " + key, loose: true}
}

// operand is v's text as an argument.
func (v value) operand() string {
	switch {
	case v.main:
		return "$" + v.text
	case v.loose:
		return "(" + v.text + ")"
	}
	return v.text
}

// at is v under another name: a variable or dot.
func (v value) at(text string) value {
	v.main, v.text, v.loose = false, text, false
	return v
}

func isName(text string) bool {
	for i, r := range text {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
			return false
		}
	}
	return text != ""
}

// held is the text of a value that is kept under another name, or asked whether it is there:
// of an answer and its data that is the secret.
func (t *translation) held(n parse.Node, v value) string {
	if v.shape == anAnswer || v.shape == theData {
		v.shape = plain
	}
	return t.expression(n, v)
}

// expression is the text of a value where it stands alone; argument where it is one of
// several.
func (t *translation) expression(n parse.Node, v value) string {
	v = t.settled(n, v)
	if v.main && t.top {
		return t.argument(n, v)
	}
	if v.main {
		return v.operand()
	}
	return v.text
}

func (t *translation) argument(n parse.Node, v value) string {
	switch v = t.settled(n, v); {
	case v.main && t.top && v.text == "":
		return "."
	case v.main && t.top:
		return v.text
	}
	return v.operand()
}

// settled is a value that keymount has as a whole.
func (t *translation) settled(n parse.Node, v value) value {
	switch v.shape {
	case plain, isUnknown:
		return v
	case theData:
		if t.origin.isBelow(v.path, kv2) {
			return t.fail(n, "use .Data.data", "the whole data of a KV v2 answer has metadata, too, and no counterpart")
		}
		return v
	case theNames:
		whole, err := t.whole()
		if err != nil {
			return t.failed(n, err)
		}
		return whole
	case anAnswer, theInput, noData:
	}
	return t.fail(n, "name the parts that it takes", "%s has no counterpart as a whole", shown(n))
}

// call translates a function.
func (t *translation) call(name *parse.IdentifierNode, args []parse.Node, piped *value, dot value, vars scope) value {
	if v, ok := t.ownCall(name, args, piped, dot, vars); ok {
		return v
	}
	ours, known := t.words[name.Ident]
	if !known {
		return t.fail(name, "write it without the function, or change the value in the store", "the function %s has no counterpart", name.Ident)
	}
	if ours == "" {
		if piped != nil {
			return *piped
		}
		if len(args) != 1 {
			return t.fail(name, "", "%s takes one argument", name.Ident)
		}
		return t.operand(args[0], dot, vars)
	}
	if name.Ident == "indent" && t.words["secret"] != "" {
		t.remarks = append(t.remarks, failure{t.line(name), "indent puts spaces on empty lines, too, also on the one behind a line end", "trim the value where that matters"})
	}
	text, isAsked := ours, asksKind(name.Ident, args)
	for _, arg := range args {
		of := t.operand(arg, dot, vars)
		if isAsked {
			of = t.asText(arg, of)
		}
		text += " " + t.argument(arg, of)
	}
	if piped != nil {
		if isAsked {
			*piped = t.asText(name, *piped)
		}
		text = t.expression(name, *piped) + " | " + text
	}
	return value{text: text, loose: true}
}

// asText is a value as the text that it was in the old tool, whose false is a text, and true.
func (t *translation) asText(n parse.Node, v value) value {
	if v.shape == theNames {
		t.remarks = append(t.remarks, failure{t.line(n), "all values were texts; together they have their own kinds: numbers, bools, lists and maps", "see that the application takes them"})
	}
	if !v.typed || v.shape != plain {
		return v
	}
	return value{text: "print " + t.argument(n, v), loose: true}
}

// asksKind tells the functions to which a number, a bool, a list or a map is something else
// than its text.
func asksKind(name string, args []parse.Node) bool {
	if name == "printf" && len(args) > 0 {
		format, ok := args[0].(*parse.StringNode)
		return !ok || strings.Count(format.Text, "%") != strings.Count(format.Text, "%s")+strings.Count(format.Text, "%v")
	}
	return slices.Contains([]string{
		"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "default", "coalesce", "empty", "required", "slice", "fromJson", "mustFromJson",
		"toJson", "mustToJson", "toRawJson", "mustToRawJson", "toYaml", "first", "last", "join",
	}, name)
}

// ownCall translates a function that is about the tool's data; false for any other.
func (t *translation) ownCall(name *parse.IdentifierNode, args []parse.Node, piped *value, dot value, vars scope) (value, bool) {
	switch name.Ident {
	case "secret":
		if t.words["secret"] == "" {
			return value{}, false
		}
		return t.secret(name, args, piped), true
	case "get", "index":
	default:
		return value{}, false
	}
	if len(args) != 2 || piped != nil {
		return value{}, false
	}
	of := t.operand(args[0], dot, vars)
	literal, isLiteral := args[1].(*parse.StringNode)
	switch {
	case isLiteral && (of.shape != plain || name.Ident == "get" || isName(literal.Text)):
		return t.field(name, of, literal.Text), true
	case name.Ident == "get":
		return value{text: "index " + t.argument(args[0], of) + " " + t.argument(args[1], t.operand(args[1], dot, vars)), loose: true}, true
	}
	return value{}, false
}

// secretCall is a secret that a template of the agent asks for.
type secretCall struct {
	path string // in the spelling of rules
	args string // k=v by line, sorted; of a write
}

func (t *translation) secret(name *parse.IdentifierNode, args []parse.Node, piped *value) value {
	called, ok := secretOf(args, t.canonical)
	switch {
	case !ok || piped != nil:
		return t.fail(name, "write the path out", "secret takes literal texts here")
	case called == t.main:
		return value{shape: anAnswer, path: called.path, main: true}
	case called.args != "":
		return t.fail(name, "make a file for each", "a template can write with the arguments of one secret alone")
	}
	t.beside = append(t.beside, called.path)
	return value{shape: anAnswer, path: called.path, text: "secret " + strconv.Quote(called.path), loose: true}
}

// canonical is a path in the spelling of rules.
func (t *translation) canonical(path string) string {
	return t.origin.canonical(path)
}

// secretOf reads the arguments of a call of secret.
func secretOf(args []parse.Node, canonical func(string) string) (called secretCall, ok bool) {
	var pairs []string
	for i, arg := range args {
		literal, isText := arg.(*parse.StringNode)
		switch {
		case !isText:
			return called, false
		case i == 0:
			called.path = canonical(literal.Text)
		case literal.Text == "":
		default:
			name, text, isPair := strings.Cut(literal.Text, "=")
			if !isPair {
				return called, false
			}
			pairs = append(pairs, strings.TrimSpace(name)+"="+strings.TrimSpace(text))
		}
	}
	slices.Sort(pairs)
	called.args = strings.Join(pairs, "\n")
	return called, called.path != ""
}

// secretCalls are those of a template, in their order.
func secretCalls(n parse.Node, canonical func(string) string) (calls []secretCall) {
	walk(n, 0, func(cmd *parse.CommandNode) {
		if name, ok := cmd.Args[0].(*parse.IdentifierNode); ok && name.Ident == "secret" {
			if called, ok := secretOf(cmd.Args[1:], canonical); ok {
				calls = append(calls, called)
			}
		}
	})
	return calls
}

// namesIn are the names that a template may ask its data for, in their order.
func namesIn(n parse.Node) (names []string) {
	walk(n, 0, func(cmd *parse.CommandNode) {
		for _, arg := range cmd.Args {
			switch arg := arg.(type) {
			case *parse.FieldNode:
				names = append(names, arg.Ident[0])
			case *parse.VariableNode:
				names = append(names, arg.Ident[1:]...)
			case *parse.StringNode:
				names = append(names, arg.Text)
			}
		}
	})
	return names
}

// walk visits the commands of a tree.
func walk(n parse.Node, depth int, visit func(*parse.CommandNode)) {
	const deepest = 300
	if depth > deepest {
		return
	}
	branch := func(b *parse.BranchNode) {
		walk(b.Pipe, depth+1, visit)
		walk(b.List, depth+1, visit)
		if b.ElseList != nil {
			walk(b.ElseList, depth+1, visit)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, below := range n.Nodes {
			walk(below, depth+1, visit)
		}
	case *parse.ActionNode:
		walk(n.Pipe, depth+1, visit)
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.ChainNode:
		walk(n.Node, depth+1, visit)
	case *parse.PipeNode:
		for _, cmd := range n.Cmds {
			visit(cmd)
			for _, arg := range cmd.Args {
				walk(arg, depth+1, visit)
			}
		}
	}
}

// shown is a node for messages.
func shown(n parse.Node) string {
	const longest = 60
	text := []rune(n.String())
	if len(text) > longest {
		text = append(text[:longest], '…')
	}
	return string(text)
}

// goWords are the functions of text/template that keymount has as well.
func goWords() words {
	all := words{}
	for _, name := range []string{"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print", "printf", "println"} {
		all[name] = name
	}
	return all
}

// sprigWords are the functions of Sprig.
func sprigWords() words {
	all := goWords()
	for _, name := range []string{
		"b64enc", "b64dec", "default", "first", "last", "fromJson", "toJson", "indent", "nindent", "quote",
		"trim", "upper", "lower", "replace", "join", "splitList", "required", "toYaml",
	} {
		all[name] = name
	}
	maps.Copy(all, words{
		"toRawJson": "toJson", "mustToJson": "toJson", "mustToRawJson": "toJson", "mustFromJson": "fromJson",
		"coalesce": "or", "empty": "not", "toString": "",
	})
	return all
}

// agentWords are the functions of the agent's templates.
func agentWords() words {
	all := goWords()
	for name, ours := range sprigWords() {
		all["sprig_"+name] = ours
	}
	maps.Copy(all, words{
		"secret": "secret", "base64Decode": "b64dec", "base64URLDecode": "b64dec", "base64Encode": "b64enc", "toJSON": "toJson", "toUnescapedJSON": "toJson",
		"toYAML": "toYaml", "parseJSON": "fromJson", "toLower": "lower", "toUpper": "upper", "trimSpace": "trim", "replaceAll": "replace",
		"split": "splitList", "join": "join", "indent": "indent",
	})
	return all
}
