package cli

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// The names that kubectl looks for: of its plugin, and of the program that completes the
// plugin's command line.
const (
	pluginName   = "kubectl-keymount"
	completeName = "kubectl_complete-keymount"
	pluginShown  = "kubectl keymount"
)

// asPlugin has a plugin of kubectl speak of itself as it is called, and returns its
// arguments.
func asPlugin(root *cobra.Command, name string, args []string) []string {
	name = strings.TrimSuffix(name[strings.LastIndexAny(name, `/\`)+1:], ".exe")
	if name != pluginName && name != completeName {
		return args
	}
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: pluginShown}
	var names []string
	for _, sub := range root.Commands() {
		names = append(names, regexp.QuoteMeta(sub.Name()))
	}
	called := regexp.MustCompile(`(^|[\s'(])keymount(\s+(?:--version|` + strings.Join(names, "|") + `)\b)`)
	rename(root, func(text string) string { return called.ReplaceAllString(text, "${1}"+pluginShown+"${2}") })
	if name == completeName {
		return slices.Concat([]string{cobra.ShellCompRequestCmd}, args)
	}
	return args
}

// rename changes the texts of a tree of commands.
func rename(command *cobra.Command, change func(string) string) {
	command.Short, command.Long, command.Example = change(command.Short), narrow(change(command.Long)), change(command.Example)
	for _, sub := range command.Commands() {
		rename(sub, change)
	}
}
