package class_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// loud is a store that spells all paths in capital letters.
type loud struct{}

func (loud) Audience() string { return "loud" }

func (loud) Fits(kind.Place) bool { return false }

func (loud) Path(text string) (store.Path, error) {
	if strings.HasPrefix(text, "quiet/") {
		return store.Path{}, errors.New("is too quiet")
	}
	return store.ParsePath(strings.ToUpper(text))
}

// IsText implements [kind.Spelling].
func (loud) IsText(store.Path) bool { return false }

// parseIn reads a native class of the given stores.
func parseIn(t *testing.T, stores map[string]class.Store, parameters map[string]string) (class.Request, error) {
	t.Helper()
	attributes, err := providertest.Volume{Pod: pod(), Class: "app", Parameters: parameters}.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	return class.Parse(class.Call{Attributes: attributes, Dialect: class.DialectKeymount}, stores)
}

// A role is the object's own, or else the class's where the store has roles.
func TestRolesOfStores(t *testing.T) {
	stores := map[string]class.Store{
		"none": {}, "other": {}, "optional": {Traits: kind.Traits{Roles: access.Optional}}, "required": {Traits: kind.Traits{Roles: access.Required}},
	}
	for _, test := range []struct {
		store, ofClass, ofObject string
		classStore               string // "" is the object's
		want                     string // the role, or the mistake after "!"
	}{
		{store: "none", want: ""},
		{store: "none", ofObject: "a", want: `!objects[0]: store "none" has no roles; remove role "a"`},
		{store: "none", ofClass: "a", want: `!objects[0]: store "none" has no roles; remove role "a"`},
		{store: "none", ofClass: "a", classStore: "required", want: ""},
		{store: "none", ofClass: "a", ofObject: "b", classStore: "required", want: `!objects[0]: store "none" has no roles; remove role "b"`},
		{store: "optional", want: ""},
		{store: "optional", ofObject: "a", want: "a"},
		{store: "optional", ofClass: "a", want: "a"},
		{store: "optional", ofClass: "a", classStore: "none", want: "a"},
		{store: "optional", ofClass: "a", ofObject: "b", want: "b"},
		{store: "required", want: `!objects[0]: store "required" needs a role to log in with; add role`},
		{store: "required", ofObject: "a", want: "a"},
		{store: "required", ofClass: "a", want: "a"},
		{store: "required", ofClass: "a", classStore: "other", want: "a"},
		{store: "required", ofClass: "a", ofObject: "b", want: "b"},
	} {
		parameters := map[string]string{"objects": "[{path: shop/db, key: a, file: a, store: " + test.store + "}]", "store": test.classStore}
		if test.classStore == "" {
			parameters["store"] = test.store
		}
		if test.ofObject != "" {
			parameters["objects"] = strings.Replace(parameters["objects"], "}]", ", role: "+test.ofObject+"}]", 1)
		}
		if test.ofClass != "" {
			parameters["role"] = test.ofClass
		}
		r, err := parseIn(t, stores, parameters)
		if want, mistake := strings.CutPrefix(test.want, "!"); mistake {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: got %v", test, err)
			}
		} else if err != nil || r.Objects[0].Secret.Role != want {
			t.Errorf("%+v: got %v, %v", test, r.Objects, err)
		}
	}
}

// A field that the kind of store has no use for is a mistake, and no other kind's.
func TestFieldsOfTraits(t *testing.T) {
	const object, write = "path: shop/db, key: a, file: a", ", args: {}"
	for _, test := range []struct {
		traits kind.Traits
		fields string
		want   string // the mistake; empty is none
	}{
		{kind.Traits{}, "", ""},
		{kind.Traits{Writes: true}, ", version: '2'", `store "default" keeps no versions; remove version "2"`},
		{kind.Traits{Versions: true}, ", version: '2'", ""},
		{kind.Traits{Versions: true}, write, `store "default" answers no writes; remove args`},
		{kind.Traits{Writes: true}, write, ""},
		{kind.Traits{Versions: true, Writes: true}, write + ", version: '2'", "version: args ask for something new; remove one of the two"},
	} {
		r, err := parseIn(t, map[string]class.Store{"default": {Traits: test.traits}}, map[string]string{"objects": "[{" + object + test.fields + "}]"})
		switch {
		case test.want != "":
			if err == nil || !strings.Contains(err.Error(), "objects[0]: "+test.want) {
				t.Errorf("%+v %s: got %v", test.traits, test.fields, err)
			}
		case err != nil:
			t.Errorf("%+v %s: got %v", test.traits, test.fields, err)
		default:
			if s := r.Objects[0].Secret; s.Args != "" != strings.Contains(test.fields, "args") || s.Version != "" != strings.Contains(test.fields, "version") {
				t.Errorf("%+v %s: got %+v", test.traits, test.fields, s)
			}
		}
	}
}

// The store spells each path of a class, in a template as well: access rules see no other.
func TestPathsAreSpelledByTheStore(t *testing.T) {
	stores := map[string]class.Store{"default": {}, "loud": {Settings: loud{}}}
	for _, test := range []struct{ store, own, other string }{{"loud", "SHOP/DB", "SHOP/CACHE"}, {"default", "shop/db", "shop/cache"}} {
		r, err := parseIn(t, stores, map[string]string{"objects": `[{path: shop/db, file: a, store: ` + test.store + `, template: '{{ (secret "shop/cache").a }}'}]`})
		if err != nil {
			t.Fatal(err)
		}
		o := r.Objects[0]
		if o.Secret.Path.String() != test.own || len(o.Template.Paths()) != 1 || o.Template.Paths()[0].String() != test.other {
			t.Errorf("in store %s: %s, and in the template %s", test.store, o.Secret.Path, o.Template.Paths())
		}
	}
	for _, objects := range []string{`[{path: quiet/db, key: a, file: a, store: loud}]`, `[{path: shop/db, file: a, store: loud, template: '{{ (secret "quiet/db").a }}'}]`} {
		if _, err := parseIn(t, stores, map[string]string{"objects": objects}); err == nil || !strings.Contains(err.Error(), "is too quiet") {
			t.Errorf("%s: got %v", objects, err)
		}
	}
}
