package storetest

import (
	"encoding/json"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/internal/strict"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// KindSubject is a [kind.Kind] under test.
type KindSubject struct {
	Kind kind.Kind
	// Settings are good ones in YAML: the part below the kind's name.
	Settings string
	// Elsewhere are settings of another store, or of another way to log in to it.
	Elsewhere string
	// Paths are texts taken for paths by the kind.
	Paths []string
}

// Kind checks the contract of [kind.Kind]:
//
//   - settings are a new struct each time, and take the values of keymount.yaml;
//   - good settings have no mistakes, also when checked again, and an audience;
//   - files are those of the settings, and can be changed there;
//   - a fingerprint is equal for equal settings, can be written as JSON, and differs
//     for another store;
//   - a path has one spelling, and no text gets past the rules;
//   - an opened store has the abilities of its traits;
//   - a stand-in of made-up secrets has these and no other, if the settings are [kind.MadeUp].
func Kind(t *testing.T, s KindSubject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T){
		"names":        s.testNames,
		"fields":       s.testFields,
		"checks":       s.testChecks,
		"files":        s.testFiles,
		"fingerprints": s.testFingerprints,
		"paths":        s.testPaths,
		"hostile":      s.testHostilePaths,
		"places":       s.testPlaces,
		"layers":       s.testLayers,
		"traits":       s.testTraits,
		"made up":      s.testMadeUp,
	} {
		t.Run(name, test)
	}
}

// nameOfField is how keymount.yaml names its fields.
var nameOfField = regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`)

func (s KindSubject) testNames(t *testing.T) {
	t.Helper()
	if name := s.Kind.Name(); !nameOfField.MatchString(name) {
		t.Errorf("the name %q is no field of keymount.yaml", name)
	}
	if example := s.Kind.Example(); !strings.HasPrefix(example, s.Kind.Name()+": ") {
		t.Errorf("the example %q is not of the form %q", example, s.Kind.Name()+": {...}")
	}
}

func (s KindSubject) testFields(t *testing.T) {
	t.Helper()
	one, other := reflect.ValueOf(s.Kind.New()), reflect.ValueOf(s.Kind.New())
	if one.Kind() != reflect.Pointer || one.Elem().Kind() != reflect.Struct {
		t.Fatalf("New returns a %s; want a pointer to a struct", one.Type())
	}
	if one.Pointer() == other.Pointer() {
		t.Error("New returns the same settings twice")
	}
	checkTags(t, one.Type().Elem())
}

// checkTags finds exported fields without a name in keymount.yaml.
func checkTags(t *testing.T, of reflect.Type) {
	t.Helper()
	for field := range of.Fields() {
		if !field.IsExported() {
			continue
		}
		if name, _, _ := strings.Cut(field.Tag.Get("yaml"), ","); !nameOfField.MatchString(name) {
			t.Errorf("field %s of %s has the yaml tag %q; want a name", field.Name, of, name)
		}
		inner := field.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && inner.PkgPath() == of.PkgPath() {
			checkTags(t, inner)
		}
	}
}

// entry is a store of keymount.yaml, as far as its kind goes.
type entry struct {
	kind     kind.Kind
	settings kind.Settings
}

// MoreFields implements [strict.More].
func (e *entry) MoreFields() []string { return []string{e.kind.Name()} }

// MoreField implements [strict.More].
func (e *entry) MoreField(string) any {
	e.settings = e.kind.New()
	return e.settings
}

// read reads settings as keymount.yaml is read.
func (s KindSubject) read(t *testing.T, text string) kind.Settings {
	t.Helper()
	text = s.Kind.Name() + ":\n  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	e := entry{kind: s.Kind}
	if mistakes := strict.Decode(&document, &e, nil); len(mistakes) > 0 || e.settings == nil {
		t.Fatalf("%v in\n%s", mistakes, text)
	}
	return e.settings
}

// checked are settings without mistakes.
func (s KindSubject) checked(t *testing.T, text string) kind.Settings {
	t.Helper()
	settings, m := s.read(t, text), kind.NewMistakes()
	settings.Check(m.At("stores[0]"))
	if len(m.All()) > 0 {
		t.Fatalf("mistakes in good settings: %v", m.All())
	}
	return settings
}

func (s KindSubject) testChecks(t *testing.T) {
	t.Helper()
	once, twice := s.checked(t, s.Settings), s.checked(t, s.Settings)
	m := kind.NewMistakes()
	twice.Check(m)
	if len(m.All()) > 0 || !reflect.DeepEqual(once, twice) {
		t.Errorf("a second check: %v\nonce  %+v\ntwice %+v", m.All(), once, twice)
	}
	if once.Audience() == "" {
		t.Error("the audience is empty")
	}
	empty := s.Kind.New()
	empty.Check(kind.NewMistakes().At("stores[0]"))
	if empty.Audience() == "" {
		t.Error("the audience of empty settings is empty")
	}
}

func (s KindSubject) testFiles(t *testing.T) {
	t.Helper()
	for i := range s.read(t, s.Settings).Files() {
		settings := s.read(t, s.Settings)
		*settings.Files()[i] = "/changed/by/the/suite"
		if *settings.Files()[i] != "/changed/by/the/suite" || reflect.DeepEqual(settings, s.read(t, s.Settings)) {
			t.Errorf("file %d is not one of the settings", i)
		}
	}
}

func (s KindSubject) testFingerprints(t *testing.T) {
	t.Helper()
	printed := func(text string) string {
		data, err := json.Marshal(s.checked(t, text).Fingerprint())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first := printed(s.Settings)
	if again := printed(s.Settings); again != first {
		t.Errorf("the fingerprint of the same settings was %s and is %s", first, again)
	}
	if other := printed(s.Elsewhere); other == first {
		t.Errorf("another store has the same fingerprint, %s", first)
	}
}

func (s KindSubject) testPaths(t *testing.T) {
	t.Helper()
	one, other := s.checked(t, s.Settings), s.checked(t, s.Settings)
	if len(s.Paths) == 0 {
		t.Error("the subject names no paths")
	}
	for _, text := range s.Paths {
		path, err := one.Path(text)
		if err != nil {
			t.Errorf("path %v", err)
			continue
		}
		if again, err := other.Path(text); err != nil || again != path {
			t.Errorf("%q is %q and then %q, %v", text, path, again, err)
		}
		checkSpelled(t, one, path)
	}
}

// checkSpelled checks that a path is its own spelling, and one for [store.ParsePath].
func checkSpelled(t *testing.T, settings kind.Settings, path store.Path) {
	t.Helper()
	if again, err := settings.Path(path.String()); err != nil || again != path {
		t.Errorf("the path %q is spelled again as %q, %v", path, again, err)
	}
	if parsed, err := store.ParsePath(path.String()); err != nil || parsed != path {
		t.Errorf("the path %q is none: %v", path, err)
	}
}

// hostilePaths could slip past a rule if they were cleaned up behind it.
func hostilePaths() []string {
	texts := []string{
		"", " ", "/", "//", "///", ".", "..", "\x00", "\n", "\u202e", "\u200b", "\xff", "%", "%2e%2e", "%2f", "?", "#", `\`, "*", "~",
		"{namespace}", "arn:", "arn:aws:s3:::..", "https://store.invalid/x", strings.Repeat("x", 1<<16), strings.Repeat("x/", 1<<10),
	}
	for _, odd := range texts[:20] {
		texts = append(texts, "prod/"+odd, odd+"/db", "prod/"+odd+"/db", "prod"+odd+"db", "/prod/"+odd, "//prod/"+odd+"/db", "prod/db"+odd)
	}
	return texts
}

func (s KindSubject) testHostilePaths(t *testing.T) {
	t.Helper()
	settings := s.checked(t, s.Settings)
	for _, text := range hostilePaths() {
		path, err := settings.Path(text)
		if err == nil {
			checkSpelled(t, settings, path)
		} else if path != (store.Path{}) {
			t.Errorf("%q is no path, and comes with %q", text, path)
		}
	}
}

func (s KindSubject) testPlaces(t *testing.T) {
	t.Helper()
	settings := s.checked(t, s.Settings)
	for _, place := range []kind.Place{nil, {}, {"pod": "shop"}, {"kind": "no kind of store"}} {
		if settings.Fits(place) {
			t.Errorf("the store is at %v, which is no place", place)
		}
	}
}

func (s KindSubject) testLayers(t *testing.T) {
	t.Helper()
	layers, err := s.checked(t, s.Settings).Open(kind.Env{Log: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	traits := s.Kind.Traits()
	if layers.Store == nil {
		t.Error("there is no store")
	}
	if (layers.Login != nil) != traits.Logins {
		t.Errorf("the traits say logins: %t, and the way to log in is %T", traits.Logins, layers.Login)
	}
	if layers.Leaser != nil && !traits.Memory {
		t.Error("leases are kept in memory alone, and the traits say that there is none")
	}
	if why := traits.NoMemory; !traits.Memory && layers.Recaller == nil && (why.Refresh == "" || why.Stale == "" || why.MemoryMiB == "") {
		t.Error("a store without memory recalls its secrets, or says in NoMemory why it needs none")
	}
	for field, value := range reflect.ValueOf(layers).Fields() {
		if value.Kind() == reflect.Interface && value.Elem().Kind() == reflect.Pointer && value.Elem().IsNil() {
			t.Errorf("%s is a nil pointer; leave it out", field.Name)
		}
	}
}

func (s KindSubject) testTraits(t *testing.T) {
	t.Helper()
	traits := s.Kind.Traits()
	if traits.Roles != access.None && !traits.Logins {
		t.Error("a role is that of a login, and the traits say that there are none")
	}
	if traits.Policies && !traits.Logins {
		t.Error("policies are those of a login, and the traits say that there are none")
	}
	if s.Kind.Traits() != traits {
		t.Error("the traits change")
	}
}
