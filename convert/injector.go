package convert

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// Templates of the injector for a secret without one.
const (
	usualTemplate     = `{{ with secret %q }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}` + "\n" + `{{ end }}{{ end }}`
	usualJSONTemplate = `{{ with secret %q }}{{ .Data | toJSON }}` + "\n" + `{{ end }}`
)

// injection is a pod, or a template of pods, into which the injector puts an agent.
type injection struct {
	source

	pod manifest.Pod
	injector
}

// injector is a tool that puts agents into pods.
type injector struct {
	prefix string // of its annotations
	volume string // where it mounts its files
}

// injected is a secret of an injected pod.
type injected struct {
	at, template                     *yaml.Node // template is nil for the usual one
	raw, name, path, file, mode, dir string
}

func injectors() []injector {
	return []injector{{"vault.hashicorp.com/", "/vault/secrets"}, {"openbao.openbao.org/", "/openbao/secrets"}}
}

// injectedPod converts a pod with an agent; false for any other object.
func (c *conversion) injectedPod(o manifest.Object) bool {
	pod, ok := o.Pod()
	if !ok {
		return false
	}
	for _, tool := range injectors() {
		i := injection{source{c, o}, pod, tool}
		if on, err := strconv.ParseBool(i.value("agent-inject")); err == nil && on {
			i.convert()
			return true
		}
	}
	return false
}

// annotation is the value of an annotation; nil without it.
func (i injection) annotation(name string) *yaml.Node {
	return manifest.Field(i.pod.Metadata, "annotations", i.prefix+name)
}

func (i injection) value(name string) string { return manifest.Text(i.annotation(name)) }

// of is an annotation of one secret, or of all.
func (i injection) of(name, raw string) string {
	return cmp.Or(i.value(name+"-"+raw), i.value(name))
}

func (i injection) convert() {
	if i.value("agent-inject-status") == "injected" {
		i.lost(i.annotation("agent-inject-status"), i.prefix+"agent-inject-status", "the pod has its agent already", "convert the workload, or the manifest of the pod")
		return
	}
	i.noteAnnotations()
	p, role := i.login()
	var classes []*draft
	for _, secret := range outermost(i.secrets()) {
		cl := i.classFor(&classes, secret.dir)
		cl.origin, cl.role = p, role
		if e, ok := i.entry(secret, p); ok {
			cl.entries = append(cl.entries, e)
		}
	}
	classes = slices.DeleteFunc(classes, func(cl *draft) bool { return len(cl.entries) == 0 })
	if len(classes) == 0 {
		i.lost(nil, "", "there is no secret to convert", "")
		return
	}
	i.c.classes = append(i.c.classes, classes...)
	i.c.patches = append(i.c.patches, func() { i.patch(classes) })
}

// outermost puts the files of a folder within another one's into that one: nothing can be
// mounted into a volume that is read-only.
func outermost(all []injected) []injected {
	for n := range all {
		s := &all[n]
		for _, other := range all {
			if below, ok := strings.CutPrefix(s.dir, strings.TrimSuffix(other.dir, "/")+"/"); ok && below != "" {
				s.dir, s.file = other.dir, path.Join(below, s.file)
			}
		}
	}
	return all
}

// classFor is the class of the files of a folder.
func (i injection) classFor(classes *[]*draft, dir string) *draft {
	for _, cl := range *classes {
		if cl.dir == dir {
			return cl
		}
	}
	cl := &draft{source: i.source, namespace: i.c.namespace(i.object), name: i.c.freeName(i.object), dir: dir, accounts: []string{i.pod.ServiceAccount}}
	*classes = append(*classes, cl)
	return cl
}

// login reads where and as which role the agent logs in.
func (i injection) login() (*origin, string) {
	k := originKey{
		address: i.value("service"), namespace: i.value("namespace"), mount: i.value("auth-path"), method: cmp.Or(i.value("auth-type"), "kubernetes"),
		serverName: i.value("tls-server-name"), hasCA: i.value("ca-cert") != "", hasClientCert: i.value("client-cert") != "", isUnverified: i.value("tls-skip-verify") == "true",
	}
	if k.method != "kubernetes" && k.method != "jwt" {
		i.lost(i.annotation("auth-type"), i.prefix+"auth-type", fmt.Sprintf("keymount logs in as each pod with the pod's own token, and not with %s", k.method),
			"enable Vault's kubernetes auth method, with a role for the service account of the pod")
		k.method, k.mount = "kubernetes", ""
	}
	role := cmp.Or(i.value("role"), i.value("auth-config-role"))
	if role == "" {
		role = i.pod.ServiceAccount
		i.look(nil, i.prefix+"role", "there is no role to log in with; "+role+" stands in its place", "make such a role in Vault for the service account of the pod")
	}
	return i.c.origin(i.source, i.annotation("service"), k), role
}

// secrets are those of the annotations, as the injector reads them.
func (i injection) secrets() (all []injected) {
	for _, m := range members(i.pod.Metadata, "annotations") {
		name, ok := strings.CutPrefix(m.name.Value, i.prefix)
		if !ok || strings.TrimSpace(manifest.Text(m.value)) == "" {
			continue
		}
		for _, kind := range []string{"agent-inject-secret-", "agent-inject-template-file-", "agent-inject-template-"} {
			raw, ok := strings.CutPrefix(name, kind)
			if !ok {
				continue
			}
			if raw != "" && !slices.ContainsFunc(all, func(s injected) bool { return s.raw == raw }) {
				all = append(all, i.secret(raw, m.name))
			}
			break
		}
	}
	return all
}

func (i injection) secret(raw string, at *yaml.Node) injected {
	s := injected{at: at, raw: raw, name: strings.ToLower(raw), path: strings.TrimSpace(i.value("agent-inject-secret-" + raw)), mode: i.value("agent-inject-perms-" + raw)}
	if keep, err := strconv.ParseBool(i.of("preserve-secret-case", raw)); err == nil && keep {
		s.name = raw
	}
	s.file = path.Clean(strings.TrimLeft(cmp.Or(i.value("agent-inject-file-"+raw), s.name), "/"))
	s.dir = path.Clean(cmp.Or(i.of("secret-volume-path", raw), i.volume))
	if text := i.annotation("agent-inject-template-" + raw); manifest.Text(text) != "" {
		s.template = text
	}
	return s
}

// entry converts one secret; false where it has no counterpart.
func (i injection) entry(s injected, p *origin) (e entry, ok bool) {
	e = entry{at: s.at, field: s.at.Value, file: s.file, mode: s.mode}
	switch {
	case s.template == nil && i.value("agent-inject-template-file-"+s.raw) != "":
		i.lost(s.at, s.at.Value, "a template in a file has no counterpart", "write it into the annotation agent-inject-template-"+s.raw+" before converting")
		return e, false
	case s.template == nil:
		return i.usualEntry(e, s, p), true
	}
	e.field = i.prefix + "agent-inject-template-" + s.raw
	return i.templated(e, s.template, s.path, p)
}

// templated translates a template of the agent.
func (i injection) templated(e entry, text *yaml.Node, path string, p *origin) (entry, bool) {
	tree, err := parsedTemplate(text.Value)
	if err != nil {
		i.lost(text, e.field, "template: "+err.Error(), "correct the template first")
		return e, false
	}
	main, ok := mainCall(secretCalls(tree.Root, p.canonical), p.canonical(path))
	if !ok {
		i.lost(text, e.field, "the template reads no secret", "keep such a text in a ConfigMap")
		return e, false
	}
	t := translation{words: agentWords(), main: main, origin: p}
	written, failures := t.translate(text.Value, value{shape: noData})
	i.report(text, e.field, failures, t.remarks)
	if len(failures) > 0 {
		return e, false
	}
	e.path, e.template, e.beside = main.path, written, t.beside
	if main.args != "" {
		e.args = mapping()
		e.args.Style = yaml.FlowStyle
		for pair := range strings.SplitSeq(main.args, "\n") {
			name, value, _ := strings.Cut(pair, "=")
			put(e.args, name, value)
		}
	}
	return e, true
}

// mainCall is the secret that an object is about: the one with arguments, since a template
// can write with no other's; else that of the annotation, or the first.
func mainCall(calls []secretCall, path string) (main secretCall, ok bool) {
	for _, called := range calls {
		if called.args != "" {
			return called, true
		}
	}
	switch {
	case path != "" && (len(calls) == 0 || slices.Contains(calls, secretCall{path: path})):
		return secretCall{path: path}, true
	case len(calls) > 0:
		return calls[0], true
	}
	return main, false
}

// usualEntry is a secret without a template.
func (i injection) usualEntry(e entry, s injected, p *origin) entry {
	usual, isJSON := usualTemplate, i.value("agent-inject-default-template") == "json"
	if isJSON {
		usual = usualJSONTemplate
	}
	e.path = p.canonical(s.path)
	if !p.isBelow(e.path, kv2) {
		text := &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprintf(usual, s.path), Line: s.at.Line, Column: s.at.Column}
		if made, ok := i.templated(e, text, s.path, p); ok {
			if !p.isBelow(e.path, kv1) {
				i.look(s.at, s.at.Value, fmt.Sprintf("the input does not tell the engine of %q, which is taken for none with versions", e.path),
					"of a KV v2 secret the old file had data and metadata, as Go prints maps: add a template, or name a key")
			}
			return made
		}
	}
	e.template = "{{ range $k, $v := . }}{{ $k }}: {{ $v }}\n{{ end }}"
	old, instead := "data and metadata as Go prints maps", "the file has a line KEY: VALUE for each key; better add a template, or name a key"
	if isJSON {
		e.template = "{\"data\":{{ toJson . }}}\n"
		old, instead = "the JSON of data and metadata", "the file has the data alone, in the same place"
	}
	e.comments = append(e.comments, "Without a template the old file had "+old+".")
	i.lost(s.at, s.at.Value, "without a template the file of a KV v2 secret is "+old, instead)
	return e
}

// noteAnnotations notes the annotations that have no counterpart, and those that are unknown.
func (i injection) noteAnnotations() {
	for _, m := range members(i.pod.Metadata, "annotations") {
		name, ok := strings.CutPrefix(m.name.Value, i.prefix)
		if !ok || manifest.Text(m.value) == "" {
			continue
		}
		switch {
		case strings.HasPrefix(name, "agent-inject-command-"):
			i.lost(m.name, m.name.Value, "keymount runs nothing in a pod: the file changes under the application", "have the application read its files again")
		case name == "agent-inject-token" && m.value.Value == "true":
			i.lost(m.name, m.name.Value, "keymount gives no login away, and there is no file token", "have the application log in with a projected token of its own")
		case name == "agent-configmap":
			i.lost(m.name, m.name.Value, "a configuration of the agent in a ConfigMap has no counterpart", "write its templates into annotations before converting")
		case name == "agent-cache-enable" && m.value.Value == "true", strings.HasPrefix(name, "agent-cache-listener"):
			i.lost(m.name, m.name.Value, "there is no agent in the pod to ask Vault through", "have the application ask Vault itself, or read files")
		case name == "agent-json-patch", name == "agent-init-json-patch":
			i.lost(m.name, m.name.Value, "there is no container of an agent to patch", "see what it was for: an environment variable of a template has no counterpart")
		case name == "agent-extra-secret":
			i.lost(m.name, m.name.Value, "a Secret that the agent alone had has no counterpart", "keep what templates read from it in the store")
		case name == "agent-service-account-token-volume-name":
			i.lost(m.name, m.name.Value, "keymount logs in with a token that the driver passes, for the audience of the store", "see that the role in Vault accepts that audience")
		case name == "proxy-address":
			i.lost(m.name, m.name.Value, "the proxy of one pod has no counterpart", "give keymount's container HTTPS_PROXY")
		case strings.HasPrefix(name, "auth-config-") && name != "auth-config-role":
			i.lost(m.name, m.name.Value, "a parameter of the agent's login has no counterpart", "see auth of the store in keymount.yaml")
		case strings.HasPrefix(name, "agent-inject-perms-") && !strings.HasSuffix(m.value.Value, "4"):
			i.look(m.name, m.name.Value, "files belong to root, whatever user the agent ran as, and fsGroup does not reach them", "write 0444 where the container is not root")
		case !isAgents(name):
			i.look(m.name, m.name.Value, "the annotation is not known, and was left out", "")
		}
	}
}

// isAgents tells the annotations that are read here, or are about the agent alone.
func isAgents(name string) bool {
	for _, one := range []string{
		"agent-inject-secret-*", "agent-inject-template-*", "agent-inject-file-*", "agent-inject-perms-*", "agent-inject-command-*",
		"secret-volume-path-*", "preserve-secret-case-*", "error-on-missing-key-*", "auth-config-*",
		"agent-limits-*", "agent-requests-*", "agent-cache-*", "agent-telemetry-*",
	} {
		if prefix := strings.TrimSuffix(one, "*"); strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{
		"agent-inject", "agent-inject-status", "agent-inject-default-template", "agent-inject-containers", "agent-inject-token", "agent-configmap", "agent-pre-populate",
		"secret-volume-path", "preserve-secret-case", "role", "service", "namespace", "auth-path", "auth-type",
		"tls-skip-verify", "tls-server-name", "ca-cert", "client-cert", "proxy-address",
		// About the agent's containers, its retries and its own TLS.
		"agent-image", "agent-init-first", "agent-pre-populate-only", "agent-run-as-user", "agent-run-as-group", "agent-run-as-same-user",
		"agent-set-security-context", "agent-share-process-namespace", "agent-revoke-on-shutdown", "agent-revoke-grace", "agent-copy-volume-mounts",
		"agent-enable-quit", "agent-disable-idle-connections", "agent-disable-keep-alives", "agent-auto-auth-exit-on-err",
		"auth-min-backoff", "auth-max-backoff", "template-config-exit-on-retry-failure", "template-static-secret-render-interval",
		"template-max-connections-per-host", "error-on-missing-key", "log-level", "log-format", "client-max-retries", "client-timeout", "client-key",
		"ca-key", "tls-secret", "go-max-procs",
	}, name)
}
