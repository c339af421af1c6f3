package lint

// Rule is a sort of finding.
type Rule struct {
	ID      string
	Meaning string
	Cure    string
}

// Bug is the rule that finds no mistake of the files.
const Bug = "bug"

// Rules are all of them, as docs/lint.md has them.
func Rules() []Rule {
	return []Rule{
		{"yaml", "The file is no YAML from this line on", "Mind the indentation, and quote texts with a colon"},
		{"template", "The file is a template, such as a chart's", "Check what `helm template` makes of it"},
		{"kind", "What looks like a SecretProviderClass has another kind or none", "Write apiVersion and kind as the driver has them"},
		{"api-version", "The driver's group has no such version", "Write `secrets-store.csi.x-k8s.io/v1`"},
		{"provider", "The provider's name has a slip", "Write the name that is meant"},
		{"name", "What stands for a name or a namespace can be none", "Use lower-case letters, digits and dashes"},
		{"class-twice", "Two different classes in one file have one name", "Rename one of them, or remove it"},
		{"missing", "A field or parameter is not there, and has to be", "Add it"},
		{"unknown-field", "The API server drops the field, or keymount refuses the class for it", "Correct its name, or remove it"},
		{"unknown-parameter", "The dialect of the class has no such parameter", "Correct its name, or remove it"},
		{"not-a-text", "A parameter, name or label is no text, and the API server refuses the object", "Write it in quotes, or the list of objects behind `objects: |`"},
		{"key-twice", "A map has one key twice, of which kubectl takes the last", "Remove one of them"},
		{"form", "The objects are no list of maps, or no YAML", "Write a list of maps"},
		{"value", "A field or parameter has a value that it cannot have", "Correct it as the text says"},
		{"mode", "The mode of a file is none, or the decimal number that YAML tools make of it", "Write four octal digits in quotes"},
		{"conflict", "Fields or parameters do not go together", "Remove one of them"},
		{"file-clash", "Two objects write one file", "Give one of them another file"},
		{"store", "keymount.yaml lacks the store, or the store cannot do what is asked", "Correct its name, or have the operator add it"},
		{"no-effect", "A parameter or field changes nothing", "Remove it"},
		{"peer-syntax", "The class is written for another provider than it names", "Set the provider, or convert the class"},
		{"secret-object", "The driver makes no Secret of this entry of secretObjects", "Add what is missing"},
		{"secret-file", "A Secret is to be made of a file that the class does not write", "Name a file of an object"},
		{"secret-key", "The type of the Secret asks for another key, or the key can be none", "Correct the key, or add the one that is asked for"},
		{"secret-twice", "One Secret is made twice", "Make it in one place"},
		{"denied", "No rule of keymount.yaml allows the read", "Correct the class, or have the operator add the rule that is shown"},
		{"config", "keymount.yaml, or the chart's values, are not as serve takes them", "Correct them as the text says"},
		{"driver", "The name of the volume's driver has a slip", "Write `secrets-store.csi.k8s.io`"},
		{"read-only", "The driver mounts read-only volumes alone", "Write `readOnly: true`"},
		{"other-namespace", "The class is in another namespace than the pod", "Put the class into the namespace of the pod"},
		{"no-class", "The class is not among the files", "Correct its name, or check its file, too"},
		{"unreadable", "A container that is not root mounts a file that only root can read", "Give the file mode 0444"},
		{"sub-path", "A part of a volume is mounted, and never changes", "Mount the whole volume"},
		{"unmounted", "No container mounts the volume", "Mount it, or remove it"},
		{"env-secret", "A variable comes from a Secret that is there only while some other pod runs", "Mount the class in this pod, too"},
		{"env-optional", "The container may start before the Secret is there", "Remove `optional`"},
		{"env-key", "The class gives the Secret no such key", "Correct the key"},
		{Bug, "keymount itself failed and did not check this to its end", "Report it with the file"},
	}
}
