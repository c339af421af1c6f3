package form

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// The bounds of a template. text/template cannot be cancelled, keeps whatever a
// function returns, and writes without end; its authors are whoever may create
// a pod.
const (
	maxTemplate  = 64 << 10  // bytes of text
	maxNodes     = 5000      // of the parsed tree
	maxNesting   = 100       // parentheses, and ifs within ifs
	maxVariables = 500       // each use of one looks through all of them
	maxRounds    = 100_000   // of all ranges together
	maxWork      = 5_000_000 // nodes walked by those rounds
	maxResult    = 1 << 20   // bytes that one function makes
	maxResults   = 16 << 20  // bytes that all calls of functions make
	maxOutput    = 1 << 20   // bytes of the file
	maxRead      = 256 << 20 // bytes that functions look through without making as many
)

// templateName is how text/template begins the place of a mistake: "line:3:7".
const templateName = "line"

// Template makes a text out of secrets, in the language of text/template without
// define, template, block and call, and with the functions people know from Helm.
// It is never changed, so it may be executed by several goroutines at once.
type Template struct {
	tree     *parse.Tree
	paths    map[string]store.Path // by the literal that names them
	original *strings.Replacer     // brings what we put into the tree back to the author's text
	nodes    int
}

// Nodes is the size of the template in memory, in nodes of its tree.
func (t *Template) Nodes() int { return t.nodes }

// ParseTemplate reads a template of at most 64 KiB. The error has a line for each
// mistake, as long as the text can be parsed at all.
func ParseTemplate(text string) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("%d bytes are more than a template may have (%d)", len(text), maxTemplate)
	}
	tree, others, err := parseTree(text)
	if err != nil {
		return nil, err
	}
	c := checker{text: text, paths: map[string]store.Path{}, known: functionNames()}
	if others {
		c.mistakes = append(c.mistakes, errors.New("define and block are not available in a template"))
	}
	c.node(tree.Root, 0)
	if len(c.mistakes) > 0 {
		return nil, errors.Join(c.mistakes...)
	}
	g := guarding{}
	g.node(tree.Root)
	return &Template{tree: tree, paths: c.paths, original: g.originals(), nodes: c.nodes}, nil
}

// parseTree also tells whether the text defines templates besides its own. An
// empty definition of its own name goes unnoticed, and has no effect.
func parseTree(text string) (tree *parse.Tree, others bool, err error) {
	defer func() {
		if recover() != nil { // text/template's parser has had such bugs
			err = errors.New("cannot be parsed as a template")
		}
	}()
	tree = parse.New(templateName)
	tree.Mode = parse.SkipFuncCheck // the checker knows names, places and the nearest name
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", trees); err != nil {
		message := strings.TrimPrefix(err.Error(), "template: ")
		return nil, false, errors.New(strings.ReplaceAll(message, templateName+":", "line "))
	}
	return tree, len(trees) != 1 || trees[templateName] != tree, nil
}

// Paths are the secrets that the template asks for, sorted, each once.
func (t *Template) Paths() []store.Path {
	var paths []store.Path
	for _, path := range t.paths {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b store.Path) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(paths)
}

// Execute makes the text, of at most 1 MiB. The template's dot is data; secrets
// answers for the paths of [Template.Paths] and says false for one that is not
// there. ctx ends an execution between the rounds of a range and at each
// function. The error says where in the template and what to do, and never holds
// a value; one that ctx caused wraps its error.
func (t *Template) Execute(ctx context.Context, data secret.Tree, secrets func(store.Path) (secret.Tree, bool)) (made secret.Bytes, err error) {
	defer func() {
		if recover() != nil { // what it says may hold a value
			made, err = secret.Bytes{}, errors.New("the template cannot be executed")
		}
	}()
	e := &execution{ctx: ctx, paths: t.paths, secrets: secrets}
	tmpl, err := template.New(templateName).Option("missingkey=error").Funcs(e.functions()).AddParseTree(templateName, t.tree)
	if err != nil {
		return secret.Bytes{}, errors.New("the template cannot be executed")
	}
	if err := tmpl.Execute(&e.out, data.Reveal()); err != nil {
		return secret.Bytes{}, t.explain(err)
	}
	return secret.New(e.out.text.Bytes()), nil
}

// output is the file as it grows.
type output struct{ text bytes.Buffer }

func (o *output) Write(p []byte) (int, error) {
	if o.text.Len()+len(p) > maxOutput {
		return 0, faultf("the file would have more than %d bytes", maxOutput)
	}
	return o.text.Write(p)
}
