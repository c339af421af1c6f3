package provider

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// VaultLocation is where a Vault is and how pods log in there. A class of another
// provider says so itself; here that chooses a store and decides nothing.
type VaultLocation struct {
	Addresses []string // https://host:port each
	Namespace string   // may hold {namespace}, which stands for the pod's
	AuthMount string
	Audience  string
}

// rootMount is the mount that a class means when it names none.
const rootMount = "kubernetes"

// wanted is what a class says of the store that it means; empty where it says
// nothing.
type wanted struct {
	address, namespace, mount, audience string
	pod                                 string // the pod's namespace
}

func (w wanted) nowhere() bool { return w.address == "" && w.namespace == "" && w.mount == "" }

// fits tells whether the location is what the class says, as far as it says.
func (w wanted) fits(l VaultLocation) bool {
	return (w.address == "" || slices.ContainsFunc(l.Addresses, w.isAddress)) &&
		(w.namespace == "" || w.namespace == w.namespaceOf(l)) &&
		(w.mount == "" || w.mount == strings.Trim(l.AuthMount, "/"))
}

func (w wanted) isAddress(text string) bool {
	address, err := normalAddress(text)
	return err == nil && address == w.address
}

func (w wanted) namespaceOf(l VaultLocation) string {
	return normalNamespace(strings.ReplaceAll(l.Namespace, "{namespace}", w.pod))
}

// best narrows the stores that fit by what the class leaves out: it means the root
// namespace, the mount called kubernetes, and the store called default.
func (w wanted) best(fits []string, stores map[string]Features) []string {
	for _, prefers := range []func(VaultLocation) bool{
		func(l VaultLocation) bool { return w.namespace != "" || w.namespaceOf(l) == "" },
		func(l VaultLocation) bool { return w.mount != "" || strings.Trim(l.AuthMount, "/") == rootMount },
		func(l VaultLocation) bool { return w.audience == "" || l.Audience == w.audience },
	} {
		var preferred []string
		for _, name := range fits {
			if prefers(*stores[name].Vault) {
				preferred = append(preferred, name)
			}
		}
		if len(preferred) > 0 {
			fits = preferred
		}
	}
	if slices.Contains(fits, defaultStore) {
		return []string{defaultStore}
	}
	return fits
}

// normalAddress is scheme, host and port: what two addresses of one server share.
// Its error does not quote the text, which may hold a password.
func normalAddress(text string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("is not of the form https://host:port")
	}
	scheme := strings.ToLower(u.Scheme)
	port := map[string]string{"https": "443", "http": "80"}[scheme]
	if port == "" {
		return "", fmt.Errorf("is not of the form https://host:port")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	return scheme + "://" + net.JoinHostPort(strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), port), nil
}

// normalNamespace knows that Vault calls its root namespace "root", too.
func normalNamespace(text string) string {
	if text = strings.Trim(text, "/"); text == "root" {
		return ""
	}
	return text
}

// store finds the store of keymount.yaml that the class means. Without one it
// notes a mistake.
func (p *vaultParser) store(podNamespace string, stores map[string]Features) string {
	w := wanted{
		namespace: normalNamespace(p.parameter(suffixNamespace)), mount: p.mount(),
		audience: p.texts[nameAudience], pod: podNamespace,
	}
	if text := p.parameter(suffixAddress); text != "" {
		address, err := normalAddress(text)
		if err != nil {
			p.m.add("%s: %w", p.name(suffixAddress), err)
			return ""
		}
		w.address = address
	}
	fits := w.search(stores)
	switch {
	case len(fits) == 0:
		p.m.add("%s", p.noStore(w, stores))
		return ""
	case len(fits) > 1:
		p.m.add("%s fit %s; add what tells them apart: %s, %s, %s or audience", strings.Join(quoted(fits), " and "),
			w, p.name(suffixAddress), p.name(suffixNamespace), p.name(suffixAuthMount))
		return ""
	}
	if location := stores[fits[0]].Vault; w.audience != "" && w.audience != location.Audience {
		p.m.add("audience: %q is not that of store %q, which is %q and which keymount.yaml alone decides; remove the parameter, "+
			"or have the operator set vault.auth.audience of the store and tokenRequests of the CSIDriver object", short(w.audience), fits[0], location.Audience)
	}
	return fits[0]
}

// search is the one store that is meant, or those between which nothing decides.
func (w wanted) search(stores map[string]Features) []string {
	if w.nowhere() {
		if stores[defaultStore].Vault == nil {
			return nil
		}
		return []string{defaultStore}
	}
	var fits []string
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		if l := stores[name].Vault; l != nil && w.fits(*l) {
			fits = append(fits, name)
		}
	}
	return w.best(fits, stores)
}

// String is what the class says, for messages.
func (w wanted) String() string {
	var parts []string
	for _, part := range []struct{ name, value string }{{"address", w.address}, {"namespace", w.namespace}, {"auth mount", w.mount}} {
		if part.value != "" {
			parts = append(parts, fmt.Sprintf("%s %q", part.name, short(part.value)))
		}
	}
	return strings.Join(parts, ", ")
}

// noStore says what to add to keymount.yaml.
func (p *vaultParser) noStore(w wanted, stores map[string]Features) string {
	_, taken := stores[defaultStore]
	switch {
	case w.nowhere() && taken:
		return fmt.Sprintf("the class names no %s, and store %q of keymount.yaml is no Vault; add the parameter", p.name(suffixAddress), defaultStore)
	case w.nowhere():
		return fmt.Sprintf("the class names no %s, and keymount.yaml has no store %q; add the parameter, or the operator this:\n%s",
			p.name(suffixAddress), defaultStore, p.stanza(w, defaultStore))
	}
	return fmt.Sprintf("no store of keymount.yaml has %s; if pods may log in there, the operator adds this:\n%s", w, p.stanza(w, freeName(w.address, stores)))
}

// stanza is quoted by the rules of YAML: whoever adds it shall add nothing that a
// class has smuggled in.
func (p *vaultParser) stanza(w wanted, name string) string {
	address, mount, audience := w.address, w.mount, w.audience
	if address == "" {
		address = "https://vault.example:8200"
	}
	if mount == "" {
		mount = rootMount
	}
	if audience == "" {
		audience = string(p.dialect)
	}
	lines := []string{
		"stores:",
		"  - name: " + name,
		"    vault:",
		fmt.Sprintf("      addresses: [%q]", short(address)),
	}
	if w.namespace != "" {
		lines = append(lines, fmt.Sprintf("      namespace: %q", short(w.namespace)))
	}
	return strings.Join(append(lines,
		fmt.Sprintf("      auth: {method: kubernetes, mount: %q, audience: %q}", short(mount), short(audience)),
		"    access: store # the policies of that Vault decide",
	), "\n")
}

// freeName makes the name of a store out of an address.
func freeName(address string, stores map[string]Features) string {
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
