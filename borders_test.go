package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// searchers are the files that may search the text of an error, and why: one border for
// each library whose errors are words alone. An error of ours has a type or a value.
func searchers() map[string]string {
	return map[string]string{
		"internal/strict/syntax.go": "yaml.v3's, of a text that is no YAML",
		"form/template.go":          "text/template's, of a template that cannot be parsed",
		"form/template_check.go":    "text/template's, of a template that cannot be executed",
		"store/vault/conn.go":       "net/http's, of an answer that is no HTTP",
		"store/vault/probe.go":      "crypto/tls's, of a certificate that the other side refuses",
		"cli/render_live.go":        "kubectl's, of a right that its user lacks",
		"audit/watch.go":            "a store's, which may echo the id of a lease that it is asked about",
		"class/mistakes.go":         "indents the lines of mistakes of ours",
		"store/storetest/errors.go": "the suite checks how the error of a store reads",
	}
}

// TestErrorsAreNotSearched looks for calls that search or cut the text of an error, in
// every file that is not a test.
func TestErrorsAreNotSearched(t *testing.T) {
	var found []string
	for _, file := range sources(t) {
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, filepath.FromSlash(file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		searches := searchesOf(parsed)
		if len(searches) == 0 {
			continue
		}
		if found = append(found, file); searchers()[file] == "" {
			for _, at := range searches {
				t.Errorf("%s: the text of an error is searched; ask its type or value, or give a reason in searchers of borders_test.go", files.Position(at))
			}
		}
	}
	for file := range searchers() {
		if !slices.Contains(found, file) {
			t.Errorf("%s searches no error; remove it from searchers of borders_test.go", file)
		}
	}
}

// TestSearchesAreFound makes sure that the search would find something.
func TestSearchesAreFound(t *testing.T) {
	for code, want := range map[string]int{
		`strings.Contains(err.Error(), "x")`:                       1,
		`strings.HasPrefix(strings.ToLower(err.Error()), "x")`:     1, // ToLower alone searches nothing
		`text := err.Error(); _ = strings.Index(text, "x")`:        1,
		`var text = err.Error(); _ = strings.Index(text, "x")`:     1,
		`fmt.Sscanf(err.Error(), "%d", &n)`:                        1,
		`strings.Contains(fmt.Sprint(err), "x")`:                   1,
		`regexp.MustCompile("x").FindString(err.Error())`:          1,
		`regexp.MatchString("x", err.Error())`:                     1,
		`pattern.ReplaceAllString(err.Error(), "x")`:               1,
		`bytes.Contains([]byte(err.Error()), nil)`:                 1,
		`text := file.Name(); _ = strings.Index(text, "x")`:        0,
		`slog.String("error", err.Error())`:                        0,
		`strings.Contains(name, "x")`:                              0,
		`fmt.Errorf("x: %s", err.Error())`:                         0,
		`errors.New(strings.Join([]string{"x", "y"}, "")).Error()`: 0,
	} {
		parsed, err := parser.ParseFile(token.NewFileSet(), "p.go", "package p; func f() { "+code+" }", 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, len(searchesOf(parsed))); diff != "" {
			t.Errorf("searches in %s (-want +got):\n%s", code, diff)
		}
	}
}

// searching are the functions and methods that look into a text or cut it.
var searching = regexp.MustCompile(`^(Contains|HasPrefix|HasSuffix|Cut|Index|LastIndex|Trim|Split|Fields|Replace|EqualFold|Count|Match|Find|Sscan)`)

// searchesOf are the places in a file where the text of an error is searched.
func searchesOf(file *ast.File) []token.Pos {
	var places []token.Pos
	for _, decl := range file.Decls {
		texts := map[string]bool{} // variables with the text of an error
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				noteTexts(texts, n.Lhs, n.Rhs)
			case *ast.ValueSpec:
				for i, value := range n.Values {
					noteTexts(texts, []ast.Expr{n.Names[i]}, []ast.Expr{value})
				}
			case *ast.CallExpr:
				callee, ok := n.Fun.(*ast.SelectorExpr)
				if ok && searching.MatchString(callee.Sel.Name) && slices.ContainsFunc(n.Args, func(arg ast.Expr) bool { return isErrorText(texts, arg) }) {
					places = append(places, n.Pos())
				}
			}
			return true
		})
	}
	return places
}

func noteTexts(texts map[string]bool, left, right []ast.Expr) {
	if len(left) == 0 || len(right) != 1 || !isErrorText(texts, right[0]) {
		return
	}
	for _, e := range left {
		if name, ok := e.(*ast.Ident); ok {
			texts[name.Name] = true
		}
	}
}

// isErrorText tells whether an expression is the text of an error or made of it: by a call
// of Error, or by printing something called err.
func isErrorText(texts map[string]bool, e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return texts[e.Name]
	case *ast.BinaryExpr:
		return isErrorText(texts, e.X) || isErrorText(texts, e.Y)
	case *ast.CallExpr:
		callee, ok := e.Fun.(*ast.SelectorExpr)
		if ok && callee.Sel.Name == "Error" && len(e.Args) == 0 {
			return true
		}
		prints := ok && strings.HasPrefix(callee.Sel.Name, "Sprint")
		return slices.ContainsFunc(e.Args, func(arg ast.Expr) bool {
			name, isName := arg.(*ast.Ident)
			return prints && isName && name.Name == "err" || isErrorText(texts, arg)
		})
	}
	return false
}
