package strict_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/strict"
)

// house has every shape that can be read.
type house struct {
	Name    string            `yaml:"name"`
	Open    bool              `yaml:"open"`
	Rooms   int               `yaml:"rooms"`
	Rent    float64           `yaml:"rent"`
	Lease   time.Duration     `yaml:"lease"`
	Notice  *time.Duration    `yaml:"notice"`
	Garden  *garden           `yaml:"garden"`
	Owner   person            `yaml:"owner"`
	Tenants []person          `yaml:"tenants"`
	Colours []string          `yaml:"colours"`
	Keys    map[string]string `yaml:"keys"`
	Raw     yaml.Node         `yaml:"raw"`
	Pets    pets              `yaml:"pets"`
	Hidden  string            `yaml:"-"`
	Plain   string
	private string
}

type garden struct {
	Trees []string `yaml:"trees,omitempty"`
}

type person struct {
	Name string `yaml:"name"`
	Age  *int   `yaml:"age"`
}

// pets are a list, or the word none.
type pets struct {
	none bool
	list []string
}

func (p *pets) DecodeStrict(node *yaml.Node, decode func(node *yaml.Node, into any)) {
	if p.none = node.Kind == yaml.ScalarNode && node.Value == "none"; !p.none {
		decode(node, &p.list)
	}
}

func parse(tb testing.TB, text string) *yaml.Node {
	tb.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		tb.Fatal(err)
	}
	return &node
}

func TestDecode(t *testing.T) {
	unset := house{Name: "as it was", Rooms: 3, private: "too"}
	tests := map[string]struct {
		text string
		want func(*house)
	}{
		"nothing":      {"~", func(*house) {}},
		"an empty map": {"{}", func(*house) {}},
		"scalars": {"{name: 1.10, open: yes, rooms: 0x10, rent: 3, lease: 1m30s, plain: x}", func(h *house) {
			h.Name, h.Open, h.Rooms, h.Rent, h.Lease, h.Plain = "1.10", true, 16, 3, 90*time.Second, "x"
		}},
		"null leaves what it finds": {"{name: ~, rooms: null, lease: , owner: ~, pets: ~}", func(*house) {}},
		"pointers":                  {"{notice: 1s, garden: {}}", func(h *house) { h.Notice, h.Garden = new(time.Second), &garden{} }},
		"null for a pointer":        {"{notice: ~}", func(*house) {}},
		"fields with options":       {"{garden: {trees: [oak]}}", func(h *house) { h.Garden = &garden{Trees: []string{"oak"}} }},
		"lists":                     {"{colours: [red, 3, ~], tenants: [{name: a}, ~, {age: 3}]}", func(h *house) { h.Colours, h.Tenants = []string{"red", "3"}, []person{{Name: "a"}, {Age: new(3)}} }},
		"an empty list":             {"{colours: []}", func(h *house) { h.Colours = []string{} }},
		"maps":                      {"{keys: {1: a, b: ~, 'c': d}}", func(h *house) { h.Keys = map[string]string{"1": "a", "b": "", "c": "d"} }},
		"a node":                    {"{raw: [a]}", func(h *house) { h.Raw.Kind = yaml.SequenceNode }},
		"its own form":              {"{pets: none}", func(h *house) { h.Pets.none = true }},
		"its other form":            {"{pets: [cat]}", func(h *house) { h.Pets.list = []string{"cat"} }},
		"aliases": {"{colours: &c [red], garden: {trees: *c}, tenants: [&a {name: a}, *a]}", func(h *house) {
			h.Colours, h.Garden, h.Tenants = []string{"red"}, &garden{Trees: []string{"red"}}, []person{{Name: "a"}, {Name: "a"}}
		}},
		"an alias of null":            {"{name: &n ~, owner: *n, colours: [*n], keys: {a: *n}}", func(h *house) { h.Colours, h.Keys = []string{}, map[string]string{"a": ""} }},
		"an alias of a field":         {"{name: &n rooms, *n : 4}", func(h *house) { h.Name, h.Rooms = "rooms", 4 }},
		"an alias for its other form": {"{colours: &c [red], pets: *c}", func(h *house) { h.Colours, h.Pets.list = []string{"red"}, []string{"red"} }},
		"merges": {"{owner: &o {name: o, age: 3}, tenants: [{<<: *o}, {<<: *o, name: a}, {name: a, <<: {name: b, age: 4}}]}", func(h *house) {
			h.Owner, h.Tenants = person{"o", new(3)}, []person{{"o", new(3)}, {"a", new(3)}, {"a", new(4)}}
		}},
		"merges of several": {"{tenants: [{<<: [{name: a}, {name: b, age: 4}]}, {<<: {name: c, <<: {name: d, age: 5}}}]}", func(h *house) {
			h.Tenants = []person{{"a", new(4)}, {"c", new(5)}}
		}},
		"what null takes is not merged": {"{tenants: [{<<: {name: a, age: 4}, age: ~}]}", func(h *house) { h.Tenants = []person{{Name: "a"}} }},
		"merges into maps":              {"{keys: {<<: {a: b, c: d}, a: e}}", func(h *house) { h.Keys = map[string]string{"a": "e", "c": "d"} }},
		"a quoted << in a map":          {"{keys: {'<<': a}}", func(h *house) { h.Keys = map[string]string{"<<": "a"} }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want, got := unset, unset
			test.want(&want)
			if mistakes := strict.Decode(parse(t, test.text), &got, nil); len(mistakes) > 0 {
				t.Fatal(mistakes)
			}
			got.Raw = yaml.Node{Kind: got.Raw.Kind}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(house{}, pets{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"unknown field":                    {"nmea: x", `line 1: unknown field "nmea"; did you mean "name"?`},
		"unknown field, unlike any":        {"windows: x", `line 1: unknown field "windows"`},
		"unknown field, empty":             {"'': x", `line 1: unknown field ""`},
		"unknown field, no text":           {"3: x", `line 1: unknown field "3"`},
		"field that is not read":           {"hidden: x\n-: y\nprivate: z", "line 1: unknown field \"hidden\"\nline 2: unknown field \"-\"\nline 3: unknown field \"private\""},
		"unknown field in a list":          {"tenants:\n- {nane: a}\n- {name: a, agee: 3}", "line 2: unknown field \"nane\"; did you mean \"name\"?\nline 3: unknown field \"agee\"; did you mean \"age\"?"},
		"twice":                            {"name: a\nrooms: 2\nname: b", `line 3: "name" is on line 1 already; keep one`},
		"three times":                      {"name: a\nname: b\nname: c", "line 2: \"name\" is on line 1 already; keep one\nline 3: \"name\" is on line 1 already; keep one"},
		"twice, and more in the same map":  {"rooms: x\nname: a\nname: [b]", "line 1: \"x\" is a text where a whole number belongs\nline 3: \"name\" is on line 2 already; keep one"},
		"twice in a map":                   {"keys:\n  a: b\n  'a': c", `line 3: "a" is on line 2 already; keep one`},
		"twice by an alias":                {"? &n name\n: a\n*n : b", `line 3: "name" is on line 1 already; keep one`},
		"merged twice":                     {"owner:\n  <<: {name: a}\n  <<: {name: b}", `line 3: "<<" is on line 2 already; keep one`},
		"a number for a list":              {"tenants: 3", `line 1: "3" is a number where a list belongs`},
		"a text for a list of texts":       {"colours: red", `line 1: "red" is a text where a list of texts belongs`},
		"an empty text for a truth":        {"open: ''", `line 1: a text stands where true or false belongs`},
		"a long text for a truth":          {"open: perhaps tomorrow", `line 1: "perhaps..." is a text where true or false belongs`},
		"a text for a number":              {"rent: high", `line 1: "high" is a text where a number belongs`},
		"too large a number":               {"rooms: 99999999999999999999", `line 1: "9999999..." is a number where a whole number belongs`},
		"a number for a duration":          {"notice: 3", `line 1: "3" is a number where a duration such as 25s or 1m belongs`},
		"a list for a text":                {"name: [a]", `line 1: a list stands where a text belongs`},
		"a map for a text":                 {"colours: [{a: b}]", `line 1: a map stands where a text belongs`},
		"a text for a map":                 {"garden: green", `line 1: "green" is a text where a map belongs`},
		"a date for a map of texts":        {"keys: 2026-01-02", `line 1: "2026-01-02" is a date where a map belongs`},
		"a type of another vocabulary":     {"rooms: !area 3", `line 1: "3" is !area where a whole number belongs`},
		"a list as the name of a field":    {"? [a]\n: b", `line 1: a list stands where a text belongs`},
		"null as the name of a field":      {"~: b", `line 1: "~" is null where a text belongs`},
		"nothing as the name of a field":   {"keys: {? : b}", `line 1: null stands where a text belongs`},
		"null by an alias as such a name":  {"name: &n ~\n*n : b", `line 2: null stands where a text belongs`},
		"neither of its forms":             {"pets: cat", `line 1: "cat" is a text where a list of texts belongs`},
		"a tag against its value":          {"rooms: !!int x\nname: !!binary '*'\nopen: !!null x", "line 1: the tag !!int does not fit its value; remove the tag\nline 2: the tag !!binary does not fit its value; remove the tag\nline 3: the tag !!null does not fit its value; remove the tag"},
		"a merge of no map":                {"owner:\n  <<: 3\n  name: a", `line 2: map merge requires map or sequence of maps as the value`},
		"a merge of lists":                 {"tenants:\n- <<: [[a]]\ncolours: &c [a]\nowner: {<<: *c}", "line 2: map merge requires map or sequence of maps as the value\nline 4: map merge requires map or sequence of maps as the value"},
		"a mistake in a merged map":        {"owner:\n  <<: {nmea: a}\n  name: [b]", "line 2: unknown field \"nmea\"; did you mean \"name\"?\nline 3: a list stands where a text belongs"},
		"a mistake behind several aliases": {"tenants:\n- &a {nmea: a}\n- *a\n- {<<: *a}", `line 2: unknown field "nmea"; did you mean "name"?`},
		"an anchor within itself":          {"owner: &o\n  <<: *o", `line 2: anchor 'o' value contains itself`},
		"a list within itself":             {"colours: &c\n- *c", "line 1: a list stands where a text belongs"},
		"the whole of another type":        {"- a", `line 1: a list stands where a map belongs`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, mistake := range strict.Decode(parse(t, test.text), new(house), nil) {
				lines = append(lines, mistake.Error())
			}
			if diff := cmp.Diff(test.want, strings.Join(lines, "\n")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// A few lines must not stand for millions, nor for a stack that has no end.
func TestBounds(t *testing.T) {
	merges := func(levels, width int, root string) string {
		var text strings.Builder
		fmt.Fprintf(&text, "tenants:\n- &a0 %s\n", root)
		for i := range levels {
			fmt.Fprintf(&text, "- &a%d {<<: [%s]}\n", i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), width), ","))
		}
		return text.String()
	}
	fields := ""
	for i := range 999 {
		fields += fmt.Sprintf("a%d: b, ", i)
	}
	tests := map[string]struct{ text, want string }{
		"merges of merges":            {merges(50, 9, "{name: a}"), "document contains excessive aliasing"},
		"merges of merges of nothing": {merges(20, 500, "{}"), "document contains excessive aliasing"},
		"unknown fields everywhere":   {"tenants:\n- &a {" + fields + "}\n" + strings.Repeat("- {<<: *a}\n", 20000), "document contains excessive aliasing"},
		"a chain of merges":           {merges(5000, 1, "{name: a}"), "maps are merged more than 100 deep"},
		"maps in maps":                {"owner: " + strings.Repeat("{<<: ", 5000) + "{}" + strings.Repeat("}", 5000), "maps are merged more than 100 deep"},
		"lists in lists":              {"name: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "a list stands where a text belongs"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			node := parse(t, test.text)
			began := time.Now()
			var all strings.Builder
			for _, mistake := range strict.Decode(node, new(house), nil) {
				fmt.Fprintln(&all, mistake)
			}
			if took := time.Since(began); !strings.Contains(all.String(), test.want) || took > 30*time.Second {
				t.Errorf("after %s: %.300s", took, all.String())
			}
		})
	}
}

// plain tells whether a text has nothing but maps of texts, lists and scalars: no
// aliases, merges or tags, and no names of fields that are null.
func plain(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		return false
	}
	for i, child := range n.Content {
		if isKey := n.Kind == yaml.MappingNode && i%2 == 0; isKey && (child.ShortTag() == "!!null" || child.ShortTag() == "!!merge") || !plain(child) {
			return false
		}
	}
	return true
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"{name: a, open: on, rooms: 3, rent: .5, lease: 1s, notice: 1h, garden: {trees: [a]}, owner: {name: a, age: 1}, tenants: [{name: b}], colours: [red], keys: {a: b}}",
		"name: |\n  a\n", "name: a\nname: b\n", "? a\n: b\n", "a: *b", "owner: &o {<<: *o}", "tenants: [&a {<<: [*a]}]", "rooms: !!int x", "~: ~", "- - -", "lease: 9223372036854775808ns",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		type cottage struct { // a house without what yaml.v3 reads in another way
			Name    string            `yaml:"name"`
			Open    bool              `yaml:"open"`
			Rooms   int               `yaml:"rooms"`
			Rent    float64           `yaml:"rent"`
			Lease   time.Duration     `yaml:"lease"`
			Notice  *time.Duration    `yaml:"notice"`
			Garden  *garden           `yaml:"garden"`
			Owner   person            `yaml:"owner"`
			Tenants []person          `yaml:"tenants"`
			Colours []string          `yaml:"colours"`
			Keys    map[string]string `yaml:"keys"`
		}
		var node yaml.Node
		if yaml.Unmarshal(text, &node) != nil || node.Kind == 0 {
			return
		}
		strict.Decode(&node, new(house), nil)
		var got, want cottage
		mistakes := strict.Decode(&node, &got, nil)
		for _, mistake := range mistakes {
			if !strings.HasPrefix(mistake.Error(), "line ") {
				t.Errorf("a mistake without a line: %v", mistake)
			}
		}
		if !plain(&node) {
			return
		}
		theirs := yaml.NewDecoder(bytes.NewReader(text))
		theirs.KnownFields(true)
		err := theirs.Decode(&want)
		if (err == nil) != (len(mistakes) == 0) {
			t.Fatalf("%q: mistakes %v, and yaml.v3 says %v", text, mistakes, err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })); err == nil && diff != "" {
			t.Errorf("%q (-yaml.v3 +got)\n%s", text, diff)
		}
	})
}
