package trial

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/manifest"
)

// driverName is the CSI driver of volumes with classes.
const driverName = "secrets-store.csi.k8s.io"

// Class is a class as a node gets it.
type Class struct {
	Namespace, Name string
	Provider        string
	Dialect         class.Dialect
	Parameters      map[string]string
}

// Account is a service account.
type Account struct{ Namespace, Name string }

func (a Account) String() string { return a.Namespace + "/" + a.Name }

// ParseAccount reads a text of the form namespace/name.
func ParseAccount(text string) (Account, error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") || cmp.Or(spelling.Unspaced(text), spelling.Plain(text)) != nil {
		return Account{}, fmt.Errorf("%q is not of the form NAMESPACE/SERVICEACCOUNT, such as shop/api", text)
	}
	return Account{namespace, name}, nil
}

// Picked is a class with the pod that mounts it.
type Picked struct {
	Class Class
	Pod   auth.Pod
}

// Pick finds the class of that name, or the only one, and the pod that mounts it: one of the
// files, or one of the service account as, which may be zero. The pod's volumeAttributes
// overwrite the parameters, as they do in the driver. Errors about a line are each a
// [config.Mistake].
func Pick(files []*manifest.File, name string, as Account) (Picked, error) {
	var objects []manifest.Object
	for _, f := range files {
		if len(f.Mistakes) > 0 {
			return Picked{}, config.Mistake{File: f.Name, Line: f.Mistakes[0].Line, Text: f.Mistakes[0].Text}
		}
		objects = append(objects, f.Objects...)
	}
	found, err := pickClass(objects, name)
	if err != nil {
		return Picked{}, err
	}
	c := Class{found.Namespace, found.Name, found.Provider, class.DialectOf(found.Provider + ".sock"), maps.Clone(found.Parameters)}
	if err := checkForm(found); err != nil {
		return Picked{}, err
	}
	users := usersOf(objects, c)
	pod, err := pickPod(c, users, as)
	if err != nil {
		return Picked{}, err
	}
	for _, u := range users {
		if u.account == (Account{pod.Namespace, pod.ServiceAccount}) {
			maps.Copy(c.Parameters, u.attributes)
			break
		}
	}
	return Picked{c, pod}, nil
}

// Classes are the names of the classes in files.
func Classes(files []*manifest.File) (names []string) {
	for _, f := range files {
		for _, o := range f.Objects {
			if c, is := o.Class(); is {
				names = append(names, c.Name)
			}
		}
	}
	return names
}

// Accounts are the service accounts of the pods in files that mount a class of them.
func Accounts(files []*manifest.File) (names []string) {
	var objects []manifest.Object
	for _, f := range files {
		objects = append(objects, f.Objects...)
	}
	for _, o := range objects {
		if c, is := o.Class(); is {
			names = append(names, accountsOf(usersOf(objects, Class{Namespace: c.Namespace, Name: c.Name}))...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func pickClass(objects []manifest.Object, name string) (manifest.Class, error) {
	var found []manifest.Class
	var names []string
	for _, o := range objects {
		if c, is := o.Class(); is {
			names = append(names, c.Name)
			if name == "" || c.Name == name {
				found = append(found, c)
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(names) == 0:
		return manifest.Class{}, errors.New("there is no SecretProviderClass in it")
	case len(found) == 0:
		return manifest.Class{}, fmt.Errorf("there is no class %q in it, only %s%s", name, quoted(names), spelling.Hint(name, names))
	case name == "":
		return manifest.Class{}, fmt.Errorf("there are %d classes in it: %s; choose one with --name", len(names), quoted(names))
	}
	return manifest.Class{}, fmt.Errorf("there are %d classes called %q in it; keep one", len(found), name)
}

func quoted(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(all, ", ")
}

// checkForm tells what the API server would refuse.
func checkForm(c manifest.Class) error {
	var mistakes []error
	at := func(node *yaml.Node, text string, args ...any) {
		mistakes = append(mistakes, config.Mistake{File: c.File.Name, Line: manifest.At(node).Line, Text: fmt.Sprintf(text, args...)})
	}
	if c.Name == "" {
		at(c.Node, "metadata.name: missing; give the class a name")
	}
	if c.Provider == "" {
		at(c.Node, "spec.provider: missing; it is keymount, or the provider that the class was written for")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Nodes)) {
		if _, is := c.Parameters[name]; !is {
			at(c.Nodes[name], "spec.parameters.%s: is no text; put | behind its colon, or quotes around it", name)
		}
	}
	return errors.Join(mistakes...)
}

// user is a pod of the files that mounts the class.
type user struct {
	account    Account
	pod        string // empty for a workload's
	attributes map[string]string
}

// usersOf are the pods that mount a class.
func usersOf(objects []manifest.Object, c Class) []user {
	var users []user
	for _, o := range objects {
		pod, is := o.Pod()
		if !is || o.Namespace != "" && c.Namespace != "" && o.Namespace != c.Namespace {
			continue
		}
		for _, volume := range list(manifest.Field(pod.Spec, "volumes")) {
			attributes := texts(manifest.Field(volume, "csi", "volumeAttributes"))
			if manifest.Text(manifest.Field(volume, "csi", "driver")) != driverName || attributes["secretProviderClass"] != c.Name {
				continue
			}
			delete(attributes, "secretProviderClass")
			u := user{account: Account{cmp.Or(o.Namespace, c.Namespace, "default"), pod.ServiceAccount}, attributes: attributes}
			if o.Kind == "Pod" {
				u.pod = o.Name
			}
			users = append(users, u)
		}
	}
	return users
}

func list(node *yaml.Node) []*yaml.Node {
	if node == nil || node.Kind != yaml.SequenceNode {
		return nil
	}
	return node.Content
}

func texts(node *yaml.Node) map[string]string {
	all := map[string]string{}
	if node == nil || node.Kind != yaml.MappingNode {
		return all
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		all[node.Content[i].Value] = manifest.Text(manifest.Resolved(node.Content[i+1]))
	}
	return all
}

// pickPod is the pod that mounts the class.
func pickPod(c Class, users []user, as Account) (auth.Pod, error) {
	var name string
	switch accounts := accountsOf(users); {
	case as != (Account{}):
	case len(accounts) == 0:
		return auth.Pod{}, errors.New("no pod in it mounts the class; name its service account with --as NAMESPACE/SERVICEACCOUNT")
	case len(accounts) > 1:
		return auth.Pod{}, fmt.Errorf("pods of %d service accounts mount the class: %s; choose one with --as", len(accounts), strings.Join(accounts, ", "))
	default:
		as = users[0].account
	}
	if c.Namespace != "" && as.Namespace != c.Namespace {
		return auth.Pod{}, fmt.Errorf("--as is a service account of namespace %q, and the class is in %q: a pod mounts classes of its own namespace alone",
			as.Namespace, c.Namespace)
	}
	for _, u := range users {
		if u.account == as && u.pod != "" {
			name = u.pod
			break
		}
	}
	return auth.Pod{
		Namespace: as.Namespace, Name: cmp.Or(name, as.Name), UID: "00000000-0000-4000-8000-000000000000", ServiceAccount: as.Name,
	}, nil
}

func accountsOf(users []user) []string {
	var names []string
	for _, u := range users {
		if name := u.account.String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// IsOther tells whether the class is for a provider that keymount has no dialect of.
func (c Class) IsOther() bool {
	return c.Dialect == class.DialectKeymount && c.Provider != string(class.DialectKeymount)
}

// Socket is the socket on which a node with that keymount.yaml listens for the class's
// provider; empty where it does not.
func (c Class) Socket(of *config.Config) string {
	i := slices.IndexFunc(of.Sockets, func(socket string) bool { return path.Base(socket) == c.Provider+".sock" })
	if i < 0 {
		return ""
	}
	return of.Sockets[i]
}
