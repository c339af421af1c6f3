package main_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/types"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/tools/go/packages"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/certificate"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/state"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/bundle"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/storetest"
	"github.com/keymount/keymount/store/vault"
	"github.com/keymount/keymount/trial"
)

// canary must not come out. Its length is a multiple of three, so that base64 of
// it looks the same wherever it stands.
const canary = "canary-7f3a91d2"

// canaries has one value of every exported type that holds a secret.
// TestCanariesAreComplete says which one is missing.
func canaries() []any {
	return []any{
		audit.Options{},
		audit.Trail{},
		secret.Bytes{},
		secret.Tree{},
		auth.Tokens{},
		store.Value{},
		storetest.Memory{},
		storetest.Subject{},
		storetest.ResolverSubject{},
		storetest.LeaserSubject{},
		storetest.LoginSubject{},
		bundle.Bundle{},
		bundle.Document{},
		certificate.Files{},
		certificate.Set{},
		class.Request{},
		provider.File{},
		provider.Options{},
		provider.Provider{},
		provider.Server{},
		vault.Request{},
		store.Caller{},
		store.Lease{},
		keep.Keeper{},
		keep.Answer{},
		login.Sessions{},
		login.Login{},
		login.Request{},
		login.Options{},
		state.Folder{},
		state.File{},
		node.Node{},
		node.InMemoryOptions{},
		trial.Outcome{},
		trial.Secrets{},
		trial.Try{},
	}
}

// TestCanary is promise 8: a secret cannot be printed. It puts the canary into
// every secret of a value, deep inside as well, and writes the value down in every
// way there is.
func TestCanary(t *testing.T) {
	for _, empty := range canaries() {
		t.Run(typeName(reflect.TypeOf(empty)), func(t *testing.T) {
			pointer := reflect.New(reflect.TypeOf(empty))
			if fill(t, pointer.Elem(), 0) == 0 {
				t.Fatal("holds no secret; remove it from canaries() in canary_test.go")
			}
			for how, text := range renderings(pointer.Elem().Interface()) {
				refuseCanary(t, how, text)
			}
			for how, text := range renderings(pointer.Interface()) {
				refuseCanary(t, how+" of a pointer", text)
			}
		})
	}
}

// TestCanarySings makes sure that the search would find something.
func TestCanarySings(t *testing.T) {
	type leak struct {
		Text  string
		bytes []byte
	}
	for how, text := range renderings(leak{canary, []byte(canary)}) {
		if !slices.ContainsFunc(spellings(), func(s string) bool { return strings.Contains(text, s) }) {
			t.Errorf("%s of a struct that leaks shows no canary: %s", how, text)
		}
	}
}

// TestCanariesAreComplete type-checks the module and looks for exported types
// that can reach a secret.
func TestCanariesAreComplete(t *testing.T) {
	var tested []string
	for _, value := range canaries() {
		tested = append(tested, typeName(reflect.TypeOf(value)))
	}
	loaded, err := packages.Load(&packages.Config{
		Context: t.Context(),
		Mode:    packages.NeedName | packages.NeedTypes | packages.NeedImports,
	}, "./...")
	if err != nil || len(loaded) == 0 {
		t.Fatalf("loaded %d packages: %v", len(loaded), err)
	}
	for _, p := range loaded {
		for _, mistake := range p.Errors {
			t.Errorf("%s: %v", p.PkgPath, mistake)
		}
		for _, name := range holders(p.Types) {
			if !slices.Contains(tested, name) {
				t.Errorf("%s holds a secret and nothing tests that it cannot be printed: add %s{} to canaries() in canary_test.go",
					name, strings.TrimPrefix(name[strings.LastIndexByte(name, '/')+1:], "/"))
			}
		}
	}
}

// TestRecordsHoldNoSecret looks through every type of package record, since records leave
// the process: no field of one reaches a secret.
func TestRecordsHoldNoSecret(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{
		Context: t.Context(),
		Mode:    packages.NeedName | packages.NeedTypes | packages.NeedImports,
	}, "./record")
	if err != nil || len(loaded) != 1 || len(loaded[0].Errors) > 0 {
		t.Fatalf("loaded %v: %v", loaded, err)
	}
	if got := holders(loaded[0].Types); len(got) > 0 {
		t.Errorf("%q hold a secret", got)
	}
}

// holders are the full names of the exported types of a package that can reach a
// secret. Interfaces and functions are no values to be filled.
func holders(p *types.Package) []string {
	if p == nil {
		return nil
	}
	var names []string
	for _, name := range p.Scope().Names() {
		object, ok := p.Scope().Lookup(name).(*types.TypeName)
		if !ok || !object.Exported() || object.IsAlias() {
			continue
		}
		if reaches(object.Type(), map[types.Type]bool{}) {
			names = append(names, p.Path()+"."+name)
		}
	}
	return names
}

func reaches(t types.Type, seen map[types.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t := types.Unalias(t).(type) {
	case *types.Named:
		object := t.Obj()
		if object.Pkg() != nil && object.Pkg().Path() == module+"/internal/secret" && object.Exported() {
			return true
		}
		return reaches(t.Underlying(), seen)
	case *types.Struct:
		for field := range t.Fields() {
			if reaches(field.Type(), seen) {
				return true
			}
		}
		return false
	case *types.Map:
		return reaches(t.Key(), seen) || reaches(t.Elem(), seen)
	case interface{ Elem() types.Type }: // pointer, slice, array, channel
		return reaches(t.Elem(), seen)
	default:
		return false
	}
}

// typeName is the full name of a type, as holders spells it.
func typeName(t reflect.Type) string { return t.PkgPath() + "." + t.Name() }

// fill puts the canary into every secret that v reaches and returns how many
// there are. It follows pointers a few steps only, since a type may hold itself.
func fill(t *testing.T, v reflect.Value, depth int) int {
	t.Helper()
	if depth > 10 {
		return 0
	}
	switch v.Interface().(type) {
	case secret.Bytes:
		v.Set(reflect.ValueOf(secret.New([]byte(canary))))
		return 1
	case secret.Tree:
		tree, err := secret.NewTree(map[string]any{canary: []any{canary, json.Number("1")}})
		if err != nil {
			t.Fatal(err)
		}
		v.Set(reflect.ValueOf(tree))
		return 1
	}
	switch v.Kind() { //nolint:exhaustive // the other kinds hold nothing
	case reflect.Struct:
		return fillStruct(t, v, depth)
	case reflect.Pointer:
		return fillNew(t, v.Type().Elem(), depth, func(element reflect.Value) { v.Set(element.Addr()) })
	case reflect.Slice:
		return fillNew(t, v.Type().Elem(), depth, func(element reflect.Value) { v.Set(reflect.Append(v, element)) })
	case reflect.Map:
		return fillNew(t, v.Type().Elem(), depth, func(element reflect.Value) {
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.Zero(v.Type().Key()), element)
		})
	case reflect.Array:
		filled := 0
		for i := range v.Len() {
			filled += fill(t, v.Index(i), depth+1)
		}
		return filled
	default:
		return 0
	}
}

func fillStruct(t *testing.T, v reflect.Value, depth int) int {
	t.Helper()
	if store := v.Addr().MethodByName("Store"); v.Type().PkgPath() == "sync/atomic" && store.IsValid() && store.Type().In(0).Kind() == reflect.Pointer {
		// An atomic.Pointer: what it points to is not among its fields.
		return fillNew(t, store.Type().In(0).Elem(), depth, func(element reflect.Value) {
			store.Call([]reflect.Value{element.Addr()})
		})
	}
	filled := 0
	for _, field := range v.Fields() {
		// Unexported fields are read-only to reflection.
		field = reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem() //nolint:gosec // the address is the field's own
		filled += fill(t, field, depth+1)
	}
	return filled
}

// fillNew fills a new value of a type and keeps it when a secret is in it.
func fillNew(t *testing.T, of reflect.Type, depth int, keep func(reflect.Value)) int {
	t.Helper()
	element := reflect.New(of).Elem()
	filled := fill(t, element, depth+1)
	if filled > 0 {
		keep(element)
	}
	return filled
}

// renderings are the ways in which a value ends up in a text.
func renderings(v any) map[string]string {
	texts := map[string]string{
		"fmt.Sprint":           fmt.Sprint(v),
		"fmt.Sprintln":         fmt.Sprintln("value", v),
		"fmt.Sprint of a list": fmt.Sprint([]any{v}),
		"fmt.Sprint of a map":  fmt.Sprint(map[string]any{"value": v}),
		"fmt.Errorf":           fmt.Errorf("read the secret: %v", v).Error(),
		"errors.Join":          errors.Join(fmt.Errorf("%+v", v), fmt.Errorf("%#v", v)).Error(),
		"encoding/json":        jsonText(v),
		"yaml.v3":              yamlText(v),
		"log/slog as text":     slogText(v, func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }),
		"log/slog as JSON":     slogText(v, func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }),
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%c", "%U", "%t"} {
		texts[verb] = fmt.Sprintf(verb, v)
	}
	return texts
}

// jsonText counts an error's text as well: it may quote the value.
func jsonText(v any) string {
	text, err := json.Marshal(v)
	return fmt.Sprintf("%s %v", text, err)
}

// yamlText takes the panic by which yaml.v3 refuses functions and channels.
func yamlText(v any) (text string) {
	defer func() {
		if reason := recover(); reason != nil {
			text = fmt.Sprint(reason)
		}
	}()
	data, err := yaml.Marshal(v)
	return fmt.Sprintf("%s %v", data, err)
}

func slogText(v any, handler func(*bytes.Buffer) slog.Handler) string {
	var text bytes.Buffer
	slog.New(handler(&text)).Info("message", slog.Any("value", v), slog.Group("group", slog.Any("value", v)))
	return text.String()
}

func refuseCanary(t *testing.T, how, text string) {
	t.Helper()
	for _, spelling := range spellings() {
		if strings.Contains(text, spelling) {
			t.Errorf("%s prints the secret: %s", how, text)
			return
		}
	}
}

// spellings are how the canary looks in hex, base64 and lists of bytes.
func spellings() []string {
	b := []byte(canary)
	list := func(format string) string { return strings.Trim(fmt.Sprintf(format, b), "[]") }
	return []string{
		canary,
		hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), fmt.Sprintf("% x", b),
		base64.StdEncoding.EncodeToString(b), base64.URLEncoding.EncodeToString(b),
		list("%d"), list("%o"), list("%c"), list("%U"),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", b), "[]byte{"), "}"),
	}
}
