package class

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/keymount/keymount/store/kind"
)

// defaultMount is the auth method's mount for a class that names none.
const defaultMount = "kubernetes"

// wanted describes the store that a class means, in the class's own words; a part
// that it leaves out is empty.
type wanted struct {
	address, namespace, mount, audience string
	usualAudience                       string // without an audience
	pod                                 string // the pod's namespace
}

func (w wanted) nowhere() bool { return w.address == "" && w.namespace == "" && w.mount == "" }

// place is w in the words of the kind of store called vault.
func (w wanted) place() kind.Place {
	place := kind.Place{"kind": "vault", "pod": w.pod}
	for part, text := range map[string]string{"address": w.address, "namespace": w.namespace, "mount": w.mount} {
		if text != "" {
			place[part] = text
		}
	}
	return place
}

// best narrows the stores that fit by the audience of a class, then by the defaults for
// the parts that it leaves out: the root namespace, the mount called kubernetes, the
// audience of its provider, and the store called default.
func (w wanted) best(fits []string, stores map[string]Store) []string {
	place := w.place()
	for _, usual := range []struct {
		part, text string
		applies    bool
	}{
		{"audience", w.audience, w.audience != ""},
		{"namespace", "", w.namespace == ""},
		{"mount", defaultMount, w.mount == ""},
		{"audience", w.usualAudience, w.audience == ""},
	} {
		if !usual.applies {
			continue
		}
		narrower := maps.Clone(place)
		narrower[usual.part] = usual.text
		if preferred := fitting(narrower, fits, stores); len(preferred) > 0 {
			fits = preferred
		}
	}
	if slices.Contains(fits, defaultStore) {
		return []string{defaultStore}
	}
	return fits
}

// fitting are the names of stores at a place.
func fitting(place kind.Place, names []string, stores map[string]Store) (fits []string) {
	for _, name := range names {
		if stores[name].fits(place) {
			fits = append(fits, name)
		}
	}
	return fits
}

// rootNamespace is a name of the root namespace of a Vault.
const rootNamespace = "root"

// namespaceOf is empty for a class that names none, which may mean any; the root is one that
// is named.
func namespaceOf(text string) string {
	if text == "" {
		return ""
	}
	return cmp.Or(kind.Rootless(text), rootNamespace)
}

// store finds the store of keymount.yaml that the class means. Unless there is exactly
// one, it notes a mistake.
func (p *vaultParser) store(podNamespace string, stores map[string]Store) string {
	w := wanted{
		namespace: namespaceOf(p.parameter(suffixNamespace).text), mount: p.mount(),
		audience: p.parameter(nameAudience).text, usualAudience: string(p.dialect), pod: podNamespace,
	}
	if said := p.parameter(suffixAddress); said.text != "" {
		address, err := kind.Address(said.text)
		if err != nil {
			p.m.add(ofParameter(said.name), BadValue, "%s: %w", said.name, err)
			return ""
		}
		w.address = address
	}
	if _, unknown := stores[AnyStore]; unknown {
		return AnyStore
	}
	fits := w.search(stores)
	switch {
	case len(fits) == 0:
		text, stanza := p.noStore(w, stores)
		p.m.add(p.whereStore(), WrongStore, "%s%s", text, stanza).split(text, stanza)
		return ""
	case len(fits) > 1:
		p.m.add(p.whereStore(), WrongStore, "%s fit %s; add what tells them apart: %s, %s, %s or audience", strings.Join(quoted(fits), " and "),
			w, p.name(suffixAddress), p.name(suffixNamespace), p.name(suffixAuthMount))
		return ""
	}
	if audience := stores[fits[0]].Settings.Audience(); w.audience != "" && w.audience != audience {
		p.m.add(ofParameter(nameAudience), WrongStore, "audience: %q is not that of store %q, which is %q and which keymount.yaml alone decides; remove the parameter, "+
			"or have the operator set vault.auth.audience of the store and tokenRequests of the CSIDriver object", Shorten(w.audience), fits[0], audience)
	}
	return fits[0]
}

// whereStore is the parameter that says which store is meant, or the class.
func (p *vaultParser) whereStore() Place {
	for _, suffix := range []string{suffixAddress, suffixNamespace, suffixAuthMount, nameAudience} {
		if name := p.name(suffix); p.texts[name] != "" {
			return ofParameter(name)
		}
	}
	return ofClass()
}

// search is the one store that is meant, or all that fit equally.
func (w wanted) search(stores map[string]Store) []string {
	names := slices.Sorted(maps.Keys(stores))
	if !w.nowhere() {
		return w.best(fitting(w.place(), names, stores), stores)
	}
	place := w.place()
	usual := fitting(place, []string{defaultStore}, stores)
	if w.audience == "" {
		return usual
	}
	// An audience alone is that of the default, or else chooses another store.
	place["audience"] = w.audience
	if fits := fitting(place, names, stores); len(fits) > 0 && !slices.Contains(fits, defaultStore) {
		return w.best(fits, stores)
	}
	return usual
}

// String is w for messages.
func (w wanted) String() string {
	var parts []string
	for _, part := range []struct{ name, value string }{{"address", w.address}, {"namespace", w.namespace}, {"auth mount", w.mount}} {
		if part.value != "" {
			parts = append(parts, fmt.Sprintf("%s %q", part.name, Shorten(part.value)))
		}
	}
	if len(parts) == 0 {
		return fmt.Sprintf("audience %q", Shorten(w.audience))
	}
	return strings.Join(parts, ", ")
}

// noStore is a mistake, and the stanza to add to keymount.yaml, which the text ends in.
func (p *vaultParser) noStore(w wanted, stores map[string]Store) (text, stanza string) {
	_, taken := stores[defaultStore]
	switch {
	case w.nowhere() && taken:
		return fmt.Sprintf("the class names no %s, and store %q of keymount.yaml is no Vault; add the parameter", p.name(suffixAddress), defaultStore), ""
	case w.nowhere():
		return fmt.Sprintf("the class names no %s, and keymount.yaml has no store %q; add the parameter, or the operator this:",
			p.name(suffixAddress), defaultStore), "\n" + p.stanza(w, defaultStore)
	}
	return fmt.Sprintf("no store of keymount.yaml has %s; if pods may log in there, the operator adds this:", w), "\n" + p.stanza(w, freeName(w.address, stores))
}

// stanza is quoted by the rules of YAML, so that a class smuggles nothing into
// keymount.yaml.
func (p *vaultParser) stanza(w wanted, name string) string {
	address, mount, audience := w.address, w.mount, w.audience
	if address == "" {
		address = "https://vault.example:8200"
	}
	if mount == "" {
		mount = defaultMount
	}
	if audience == "" {
		audience = string(p.dialect)
	}
	lines := []string{
		"stores:",
		"  - name: " + name,
		"    vault:",
		fmt.Sprintf("      addresses: [%q]", Shorten(address)),
	}
	if w.namespace != "" && w.namespace != rootNamespace {
		lines = append(lines, fmt.Sprintf("      namespace: %q", Shorten(w.namespace)))
	}
	return strings.Join(append(lines,
		fmt.Sprintf("      auth: {method: kubernetes, mount: %q, audience: %q}", Shorten(mount), Shorten(audience)),
		"    access: store # the policies of that Vault decide",
	), "\n")
}

// freeName makes an unused name of a store out of an address.
func freeName(address string, stores map[string]Store) string {
	u, err := url.Parse(address)
	host := "vault"
	if err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	const longest = 60
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, host[:min(len(host), longest)]), "-")
	if name == "" {
		name = "vault"
	}
	free := name
	for n := 2; ; n++ {
		if _, taken := stores[free]; !taken {
			return free
		}
		free = fmt.Sprintf("%s-%d", name, n)
	}
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = fmt.Sprintf("store %q", name)
	}
	return out
}
