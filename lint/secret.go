package lint

import (
	"cmp"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/manifest"
)

// synced is a Secret that the driver makes of a class's files.
type synced struct {
	of   *checkedClass
	node *yaml.Node // of its name
	name string
	typ  string
	keys []string
}

// checkSecrets checks the secretObjects of all classes.
func (c *checker) checkSecrets() {
	c.secrets = map[string][]synced{}
	for i := range c.classes {
		of := &c.classes[i]
		c.contained(of.File, of.Node, func() {
			for _, s := range c.secretObjects(of) {
				c.checkMaker(s)
				c.secrets[s.name] = append(c.secrets[s.name], s)
			}
		})
	}
}

// checkMaker finds a Secret that another class makes, too.
func (c *checker) checkMaker(s synced) {
	for _, before := range c.secrets[s.name] {
		isTogether := filepath.Dir(s.of.File.Name) == filepath.Dir(before.of.File.Name) // else it may be of another cluster
		if s.of.Name != before.of.Name && s.of.namespace == before.of.namespace && isTogether {
			c.node(s.of.Object, s.node, "secret-twice", Warning, "Secret %q is made of class %q, too (%s:%d); the driver writes one over the other",
				s.name, before.of.Name, before.of.File.Name, before.node.Line)
			return
		}
	}
}

func (c *checker) secretObjects(of *checkedClass) (all []synced) {
	list := manifest.Field(of.Node, "spec", "secretObjects")
	if list == nil || isNull(list) {
		return nil
	}
	if list.Kind != yaml.SequenceNode {
		c.node(of.Object, list, "secret-object", Error, "spec.secretObjects: not a list; write each as {secretName: ..., type: Opaque, data: [{objectName: ..., key: ...}]}")
		return nil
	}
	for _, node := range list.Content {
		if node = manifest.Resolved(node); node.Kind != yaml.MappingNode {
			c.node(of.Object, node, "secret-object", Error, "not a map; write {secretName: ..., type: Opaque, data: [{objectName: ..., key: ...}]}")
			continue
		}
		s := c.secretObject(of, node)
		c.checkBefore(all, s)
		all = append(all, s)
	}
	return all
}

// checkBefore finds a Secret that the class makes already.
func (c *checker) checkBefore(all []synced, s synced) {
	i := slices.IndexFunc(all, func(before synced) bool { return before.name == s.name })
	switch {
	case i < 0 || s.name == "":
	case all[i].typ == s.typ:
		c.node(s.of.Object, s.node, "secret-twice", Error, "Secret %q of type %s is there twice; put the data of both into one", s.name, s.typ)
	case all[i].typ != "" && s.typ != "":
		c.node(s.of.Object, s.node, "secret-twice", Error, "Secret %q is there twice, with type %s and with type %s; give one of them another name", s.name, all[i].typ, s.typ)
	}
}

func (c *checker) secretObject(of *checkedClass, node *yaml.Node) synced {
	c.checkFields(of.Object, node, "secretObjects", "secretName", "type", "labels", "annotations", "data")
	c.checkTexts(of.Object, node, "secretObjects", "secretName", "type")
	for _, field := range []string{"labels", "annotations"} {
		c.checkMapOfTexts(of.Object, manifest.Field(node, field), "secretObjects."+field)
	}
	s := synced{of: of, node: cmp.Or(manifest.Field(node, "secretName"), node), name: manifest.Text(manifest.Field(node, "secretName")), typ: manifest.Text(manifest.Field(node, "type"))}
	if s.name == "" && !misspelled(node, "secretName") {
		c.node(of.Object, node, "secret-object", Error, "secretObjects: secretName missing; the driver makes no Secret without it")
	}
	if s.typ == "" && !misspelled(node, "type") {
		c.node(of.Object, node, "secret-object", Error, "secretObjects: type missing; the driver makes no Secret without it, write type: Opaque")
	}
	if s.name != "" && !isName(s.name) {
		c.node(of.Object, s.node, "name", Error, "secretName: %q is no name; it has lower-case letters, digits, dashes and dots, 253 at most", spelling.Visible(spelling.CutName(s.name)))
	}
	data := manifest.Field(node, "data")
	if data == nil || data.Kind != yaml.SequenceNode || len(data.Content) == 0 {
		c.node(of.Object, cmp.Or(data, node), "secret-object", Error, "secretObjects: data missing; list the files of the Secret, each as {objectName: ..., key: ...}")
		return s
	}
	for _, entry := range data.Content {
		entry = manifest.Resolved(entry)
		name := c.secretData(of, entry)
		c.checkKey(s, manifest.Field(entry, "key"), name)
		s.keys = append(s.keys, name)
	}
	c.checkKeys(s)
	return s
}

// secretData checks one key of a Secret, and returns it.
func (c *checker) secretData(of *checkedClass, node *yaml.Node) string {
	if node.Kind != yaml.MappingNode {
		c.node(of.Object, node, "secret-object", Error, "not a map; write {objectName: ..., key: ...}")
		return ""
	}
	c.checkFields(of.Object, node, "secretObjects.data", "objectName", "key")
	c.checkTexts(of.Object, node, "secretObjects.data", "objectName", "key")
	file, name := manifest.Field(node, "objectName"), strings.TrimSpace(manifest.Text(manifest.Field(node, "key")))
	if name == "" {
		c.node(of.Object, node, "secret-object", Error, "secretObjects.data: key missing; name the key of the Secret")
	}
	switch text := strings.TrimSpace(manifest.Text(file)); {
	case text == "":
		c.node(of.Object, node, "secret-object", Error, "secretObjects.data: objectName missing; name the file that it is made of")
	case len(of.checked.Mistakes) == 0 && !hasFile(of.checked, text):
		c.node(of.Object, file, "secret-file", Error, "objectName: no object of the class writes a file %q%s", spelling.Visible(text), spelling.Hint(text, fileNames(of.checked)))
	}
	return name
}

// hasFile tells whether an object writes a file, or may: one file for each key of a secret.
func hasFile(checked class.Checked, file string) bool {
	return slices.ContainsFunc(checked.Objects, func(o class.Object) bool {
		if !o.Folder || o.Certificate == class.PEM {
			return slices.Contains(filesOf(o), file)
		}
		return o.File == path.Dir(file)
	})
}

func fileNames(checked class.Checked) (names []string) {
	for _, o := range checked.Objects {
		names = append(names, filesOf(o)...)
	}
	return names
}

// filesOf are the files that an object may write, or the folder where the store knows them
// alone.
func filesOf(o class.Object) []string {
	if !o.Folder || o.Certificate != class.PEM {
		return []string{o.File}
	}
	files := class.CertificateFiles()
	for i, name := range files {
		files[i] = path.Join(o.File, name)
	}
	return files[:]
}

// checkKeys finds keys that a type of Secret has to have: the API server refuses it
// otherwise.
func (c *checker) checkKeys(s synced) {
	wanted := map[string][]string{
		"kubernetes.io/tls":              {"tls.crt", "tls.key"},
		"kubernetes.io/dockerconfigjson": {".dockerconfigjson"},
		"kubernetes.io/dockercfg":        {".dockercfg"},
		"kubernetes.io/ssh-auth":         {"ssh-privatekey"},
	}
	for _, name := range wanted[s.typ] {
		if !slices.Contains(s.keys, name) {
			c.node(s.of.Object, s.node, "secret-key", Error, "Secret %q of type %s needs the key %s", s.name, s.typ, name)
		}
	}
	if s.typ == "kubernetes.io/basic-auth" && !slices.Contains(s.keys, "username") && !slices.Contains(s.keys, "password") {
		c.node(s.of.Object, s.node, "secret-key", Error, "Secret %q of type %s needs the key username or password", s.name, s.typ)
	}
}

// checkKey finds a key that the driver or the API server refuse, or that is there before.
func (c *checker) checkKey(s synced, node *yaml.Node, key string) {
	switch {
	case key == "": // told
	case s.typ == "kubernetes.io/tls" && key != "tls.crt" && key != "tls.key":
		c.node(s.of.Object, node, "secret-key", Error, "the driver makes no Secret of type %s with the key %q; it takes tls.crt and tls.key alone", s.typ, key)
	case len(key) > 253 || !regexp.MustCompile(`^[-._a-zA-Z0-9]+$`).MatchString(key):
		c.node(s.of.Object, node, "secret-key", Error, "key %q can be none of a Secret; it has letters, digits, dashes, dots and underscores, 253 at most", spelling.CutName(key))
	case slices.Contains(s.keys, key):
		c.node(s.of.Object, node, "secret-twice", Warning, "key %q of Secret %q is there twice; the driver takes the last one", key, s.name)
	}
}
