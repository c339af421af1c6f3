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

// Choice says which class of the files is meant, and which pod.
type Choice struct {
	Class string  // its name; empty for the only one
	As    Account // the pod's service account; zero for that of the files
	Pod   string  // its name; empty for any of the account
	// Anyone takes a made-up account where no pod of the files mounts the class.
	Anyone bool
}

// Picked is a class with the pod that mounts it.
type Picked struct {
	Class Class
	Pod   auth.Pod
	// Unlike are two pods of that account, of which the first is the one, where the other
	// would get different volumeAttributes; empty without such.
	Unlike []string
}

// Pick finds the class, and the pod that mounts it: one of the files, or one that only As
// names. The pod's volumeAttributes overwrite the parameters, as they do in the driver.
// Errors about a line are each a [config.Mistake].
func Pick(files []*manifest.File, choice Choice) (Picked, error) {
	var objects []manifest.Object
	for _, f := range files {
		if len(f.Mistakes) > 0 {
			return Picked{}, config.Mistake{File: f.Name, Line: f.Mistakes[0].Line, Text: f.Mistakes[0].Text}
		}
		objects = append(objects, f.Objects...)
	}
	found, err := pickClass(objects, choice.Class)
	if err != nil {
		return Picked{}, err
	}
	c := Class{found.Namespace, found.Name, found.Provider, class.DialectOf(found.Provider + ".sock"), maps.Clone(found.Parameters)}
	if err := checkForm(found); err != nil {
		return Picked{}, err
	}
	users := usersOf(objects, c)
	pod, users, err := pickPod(c, users, choice)
	if err != nil {
		return Picked{}, err
	}
	picked := Picked{Class: c, Pod: pod}
	for _, u := range users {
		if !maps.Equal(u.attributes, users[0].attributes) {
			picked.Unlike = []string{users[0].name, u.name}
			break
		}
	}
	if len(users) > 0 {
		maps.Copy(c.Parameters, users[0].attributes)
	}
	return picked, nil
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

// Pods are the names of the pods in files that mount a class of them.
func Pods(files []*manifest.File) (names []string) {
	var objects []manifest.Object
	for _, f := range files {
		objects = append(objects, f.Objects...)
	}
	for _, o := range objects {
		if c, is := o.Class(); is {
			for _, u := range usersOf(objects, Class{Namespace: c.Namespace, Name: c.Name}) {
				names = append(names, u.pod)
			}
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
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
	name       string // of its object, with the kind
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
			u := user{account: Account{cmp.Or(o.Namespace, c.Namespace, "default"), pod.ServiceAccount}, name: o.Kind + " " + o.Name, attributes: attributes}
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

// pickPod is the pod that mounts the class, and the pods of the files that it may be: those
// of its account.
func pickPod(c Class, users []user, choice Choice) (auth.Pod, []user, error) {
	if choice.Pod != "" {
		users = slices.DeleteFunc(users, func(u user) bool { return u.pod != choice.Pod })
	}
	as, err := pickAccount(c, users, choice)
	if err != nil {
		return auth.Pod{}, nil, err
	}
	if c.Namespace != "" && as.Namespace != c.Namespace {
		return auth.Pod{}, nil, fmt.Errorf("--as is a service account of namespace %q, and the class is in %q: a pod mounts classes of its own namespace alone",
			as.Namespace, c.Namespace)
	}
	users = slices.DeleteFunc(users, func(u user) bool { return u.account != as })
	name := choice.Pod
	for _, u := range users {
		name = cmp.Or(name, u.pod)
	}
	return auth.Pod{
		Namespace: as.Namespace, Name: cmp.Or(name, as.Name), UID: "00000000-0000-4000-8000-000000000000", ServiceAccount: as.Name,
	}, users, nil
}

// pickAccount is the service account of the pod.
func pickAccount(c Class, users []user, choice Choice) (Account, error) {
	switch accounts := accountsOf(users); {
	case choice.As != (Account{}):
		return choice.As, nil
	case len(accounts) == 0 && choice.Anyone:
		return Account{cmp.Or(c.Namespace, "default"), "made-up"}, nil
	case len(accounts) == 0 && choice.Pod != "":
		return Account{}, fmt.Errorf("no pod %q in it mounts the class; name its service account with --as NAMESPACE/SERVICEACCOUNT", choice.Pod)
	case len(accounts) == 0:
		return Account{}, errors.New("no pod in it mounts the class; name its service account with --as NAMESPACE/SERVICEACCOUNT")
	case len(accounts) > 1:
		return Account{}, fmt.Errorf("pods of %d service accounts mount the class: %s; choose one with --as", len(accounts), strings.Join(accounts, ", "))
	}
	return users[0].account, nil
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
