package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/secret"
)

const canary = "canary-91c7"

func tree(t *testing.T, v any) secret.Tree {
	t.Helper()
	made, err := secret.NewTree(v)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// holder is somebody else's struct: fmt cannot call the methods of what is
// unexported in it.
type holder struct {
	Exported secret.Bytes
	Tree     secret.Tree
	hidden   secret.Bytes
	tree     secret.Tree
	pointer  *secret.Bytes
	list     []secret.Tree
	byName   map[string]secret.Bytes
	inner    struct{ value any }
}

func holders(t *testing.T) map[string]any {
	t.Helper()
	value := secret.New([]byte(canary))
	deep := tree(t, map[string]any{canary: []any{canary, json.Number("1")}})
	h := holder{
		Exported: value, Tree: deep, hidden: value, tree: deep, pointer: &value,
		list: []secret.Tree{deep}, byName: map[string]secret.Bytes{"password": value},
	}
	h.inner.value = value
	return map[string]any{
		"bytes": value, "bytes pointer": &value, "tree": deep, "tree pointer": &deep, "text tree": tree(t, canary),
		"made tree": secret.NewMadeTree(len(canary), func() any { return canary }),
		"list":      []secret.Bytes{value}, "map": map[string]secret.Tree{"a": deep}, "struct": h, "struct pointer": &h,
		"anonymous": struct{ secret.Bytes }{value}, "error": fmt.Errorf("failed with %v and %q", value, deep),
	}
}

func TestNothingPrints(t *testing.T) {
	printers := map[string]func(any) string{
		"slog text":       func(v any) string { return logged(v, newText) },
		"slog json":       func(v any) string { return logged(v, newJSON) },
		"encoding/json":   func(v any) string { b, err := json.Marshal(v); return fmt.Sprint(string(b), err) },
		"yaml.v3":         func(v any) string { b, err := yaml.Marshal(v); return fmt.Sprint(string(b), err) },
		"print":           func(v any) string { return fmt.Sprint(v) },
		"println in list": func(v any) string { return fmt.Sprintln([]any{v}) },
	}
	for _, verb := range "vTtbcdoOqxXUeEfFgGsp!z" {
		for _, flag := range []string{"", "+", "#", "-", " ", "0", "9.3"} {
			format := "%" + flag + string(verb)
			printers[format] = func(v any) string { return fmt.Sprintf(format, v) }
		}
	}
	for what, v := range holders(t) {
		var shown []string
		for how, printed := range printers {
			if shows(printed(v)) {
				shown = append(shown, how)
			}
		}
		if slices.Sort(shown); len(shown) > 0 {
			t.Errorf("%s shows the secret with %s", what, strings.Join(shown, ", "))
		}
	}
}

// shows tells whether text has the canary in any form that fmt gives to bytes.
func shows(text string) bool {
	for _, form := range []string{
		canary,
		strings.Trim(fmt.Sprintf("%d", []byte(canary)), "[]"),
		fmt.Sprintf("%x", canary),
		fmt.Sprintf("%X", canary),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", []byte(canary)), "[]byte{"), "}"),
		"Y2FuYXJ5LTkxYzc", // base64, as encoding/json writes bytes
	} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

func TestPrintsRedacted(t *testing.T) {
	for what, v := range map[string]any{
		"bytes": secret.New([]byte(canary)), "tree": tree(t, canary), "zero bytes": secret.Bytes{}, "zero tree": secret.Tree{},
	} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(format, v); got != "[redacted]" {
				t.Errorf("%s with %s: %q", what, format, got)
			}
		}
		if got, err := json.Marshal(v); string(got) != `"[redacted]"` || err != nil {
			t.Errorf("%s in JSON: %s, %v", what, got, err)
		}
		if got, err := yaml.Marshal(v); string(got) != "'[redacted]'\n" || err != nil {
			t.Errorf("%s in YAML: %s, %v", what, got, err)
		}
		if got := logged(v, newText); !strings.Contains(got, "value=[redacted]") {
			t.Errorf("%s in a log: %s", what, got)
		}
	}
}

func TestReveal(t *testing.T) {
	value := secret.New([]byte(canary))
	if string(value.Reveal()) != canary || value.Len() != len(canary) {
		t.Errorf("got %q of length %d", value.Reveal(), value.Len())
	}
	var zero secret.Bytes
	if zero.Reveal() != nil || zero.Len() != 0 {
		t.Errorf("the zero Bytes is %q", zero.Reveal())
	}
}

func TestErrorsNameTheKeyAlone(t *testing.T) {
	_, err := tree(t, map[string]any{"password": canary}).Get("pasword")
	if !errors.Is(err, secret.ErrNoKey) || err.Error() != `no such key "pasword"` {
		t.Errorf("error %v", err)
	}
}

func newText(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }

func newJSON(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }

func logged(v any, handler func(*bytes.Buffer) slog.Handler) string {
	var b bytes.Buffer
	slog.New(handler(&b)).Error("message", slog.Any("value", v), slog.Group("group", slog.Any("value", v)))
	return b.String()
}
