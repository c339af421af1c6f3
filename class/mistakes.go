package class

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
)

// ErrRequest wraps mistakes of a class or of the driver's call.
var ErrRequest = errors.New("bad request")

// maxMistakes bounds the mistakes that one error spells out.
const maxMistakes = 20

// Reason is a sort of mistake.
type Reason string

// The reasons.
const (
	UnknownField     Reason = "unknown-field"     // of an object
	UnknownParameter Reason = "unknown-parameter" // of the class
	Missing          Reason = "missing"           // a field or parameter that has to be there
	BadForm          Reason = "form"              // no list of objects, or no object
	BadValue         Reason = "value"             // of a field or parameter
	BadMode          Reason = "mode"              // of a file
	Conflict         Reason = "conflict"          // fields or parameters that do not go together
	Clash            Reason = "file-clash"        // two objects that write one file
	WrongStore       Reason = "store"             // one that keymount.yaml lacks, or that cannot do what is asked
	NoEffect         Reason = "no-effect"         // a field or parameter that changes nothing
)

// Place is a place in a class.
type Place struct {
	// Parameter is the parameter's name; empty for the class as a whole.
	Parameter string
	// Object is the index in objects; -1 for what is not about one.
	Object int
	// Field is the field of the object; empty for the object as a whole.
	Field string
	// Line and Column are in the parameter's text and count from 1; 0 is unknown.
	Line, Column int
}

// Mistake is one thing to put right in a class, or to think about.
type Mistake struct {
	Place

	Reason Reason
	// Text is the mistake without the object's index.
	Text string
	// Instead is the text to write at the place, where that is clear: a name for an
	// unknown one, or a value. Else it is empty.
	Instead string
	// Add are lines to add to keymount.yaml, which would put it right.
	Add string

	err error // with the object's index, as the error of a mount has it
}

// Whole is the text as the error of a mount has it.
func (m *Mistake) Whole() string { return m.err.Error() }

// split takes the lines to add out of the text.
func (m *Mistake) split(text, add string) { m.Text, m.Add = text, strings.TrimPrefix(add, "\n") }

// ofParameter is the place of a parameter.
func ofParameter(name string) Place { return Place{Parameter: name, Object: -1} }

// ofClass is the class as a whole.
func ofClass() Place { return Place{Object: -1} }

// inText is the place of a node in the text of the objects.
func inText(object int, field string, node *yaml.Node) Place {
	return Place{nameObjects, object, field, node.Line, node.Column}
}

// lined is an error at a line of a parameter's text.
type lined struct {
	line, column int
	said         error // names the line
	err          error // does not
}

func atLine(node *yaml.Node, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return lined{node.Line, node.Column, fmt.Errorf("line %d: %w", node.Line, err), err}
}

func (l lined) Error() string { return l.said.Error() }

func (l lined) Unwrap() error { return l.err }

// mistakes collects the mistakes of a request. It keeps the first most and counts the
// rest: a class of a megabyte can have half a million.
type mistakes struct {
	all  []Mistake
	more int
	// most is maxMistakes for a mount, which wants warnings as texts alone. 0 is a mount's.
	most     int
	texts    []string
	warnings []Mistake
	paths    []Place // of the objects' secrets
	spare    Mistake // stands for one that is not kept
}

// isMount tells whether a mount reads the class: it wants the text of an error, and no work
// for what is not in it.
func (m *mistakes) isMount() bool { return m.most == 0 }

// meant is the known word that stands for another one, where that is clear.
func (m *mistakes) meant(word string, known []string) string {
	if m.isMount() {
		return ""
	}
	return spelling.Clear(word, known)
}

// path notes where an object names its secret.
func (m *mistakes) path(object int, node *yaml.Node, field string) {
	if !m.isMount() {
		m.paths = append(m.paths, inText(object, field, fieldOf(node, field)))
	}
}

// add notes a mistake. Its text begins with the index of the object that it is about.
func (m *mistakes) add(at Place, why Reason, format string, args ...any) *Mistake {
	if len(m.all) == cmp.Or(m.most, maxMistakes) {
		m.more++
		return &m.spare
	}
	m.all = append(m.all, newMistake(at, why, fmt.Errorf(format, args...)))
	return &m.all[len(m.all)-1]
}

// warn notes a warning.
func (m *mistakes) warn(at Place, why Reason, format string, args ...any) *Mistake {
	if m.isMount() {
		text := fmt.Sprintf(format, args...)
		if at.Object >= 0 {
			text = fmt.Sprintf("objects[%d]: %s", at.Object, text)
		}
		m.texts = append(m.texts, text)
		return &m.spare
	}
	m.warnings = append(m.warnings, newMistake(at, why, fmt.Errorf(format, args...)))
	return &m.warnings[len(m.warnings)-1]
}

func newMistake(at Place, why Reason, err error) Mistake {
	m := Mistake{Place: at, Reason: why, Text: err.Error(), err: err}
	if l, ok := errors.AsType[lined](err); ok {
		m.Line, m.Column = l.line, l.column
		m.Text = at.Parameter + ": " + l.err.Error()
	}
	if at.Object >= 0 {
		m.err = fmt.Errorf("objects[%d]: %w", at.Object, err)
	}
	return m
}

func (m *mistakes) count() int { return len(m.all) + m.more }

// err names the class and its mistakes; nil without any.
func (m *mistakes) err(r Request) error {
	if len(m.all) == 0 {
		return nil
	}
	class := fmt.Sprintf("SecretProviderClass %s/%s", Shorten(r.Pod.Namespace), r.Class)
	if len(m.all) == 1 {
		return fmt.Errorf("%w: %s: %w", ErrRequest, class, m.all[0].err)
	}
	errs := make([]error, len(m.all))
	for i, one := range m.all {
		errs[i] = one.err
	}
	text := strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "\n  ")
	if m.more > 0 {
		text += fmt.Sprintf("\n  and %d more", m.more)
	}
	return fmt.Errorf("%w: %s has %d mistakes:\n  %s", ErrRequest, class, m.count(), text)
}

// Checked is a class that was read without a pod.
type Checked struct {
	Objects []Object
	Secrets []Secret
	// Paths are the places where Objects name their secrets.
	Paths []Place
	// Mistakes are all of them, and Warnings what has no effect, or another one than its
	// author may think.
	Mistakes, Warnings []Mistake
}

// AnyStore is the name of a store in place of all that are not among the stores of [Check]:
// no store of keymount.yaml can have it.
const AnyStore = "*"

// Check reads a class as a mount in that namespace would, with the same parser. Where
// keymount.yaml is not known, [AnyStore] among the stores stands for each store that a
// class names or means.
func Check(dialect Dialect, namespace string, parameters map[string]string, stores map[string]Store) Checked {
	own := make(map[string]string, len(parameters))
	for name, text := range parameters {
		if !isAdded(name) {
			own[name] = text
		}
	}
	m := mistakes{most: math.MaxInt}
	if sizeOf(own) > maxAttributes {
		m.add(ofClass(), BadForm, "%s", tooLarge())
		return Checked{Mistakes: m.all}
	}
	parsed := source{dialect: dialect, namespace: namespace, parameters: own}.parse(stores, &m)
	return Checked{parsed.objects, parsed.secrets, m.paths, m.all, m.warnings}
}

// sizeOf is the size of parameters as a mount gets them, or less where that is far below the
// bound. The kubelet and the driver add about 4 KiB.
func sizeOf(parameters map[string]string) (size int) {
	const longest = 6 // bytes that JSON may make of one
	for name, text := range parameters {
		size += len(name) + len(text)
	}
	if size <= maxAttributes/longest {
		return size
	}
	text, err := json.Marshal(parameters)
	if err != nil {
		return size
	}
	return len(text)
}

// Shorten cuts a text too long for the name of a Kubernetes object, and writes out the
// characters that cannot be seen: the pod's author may have written anything as the
// class's name.
func Shorten(name string) string {
	return spelling.Visible(spelling.CutName(name))
}
