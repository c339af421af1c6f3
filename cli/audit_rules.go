package cli

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/kind"
)

// reviewed is the result of audit rules.
type reviewed struct {
	Config string `json:"config"`
	audit.Judged
	Proposals []audit.Proposal `json:"proposals"`
}

func newAuditRules() *cobra.Command {
	var f trailFlags
	var file string
	command := &cobra.Command{
		Use:   "rules FILE...",
		Short: "Tell which rules of keymount.yaml are used, and propose narrower ones",
		Long: `Tell how often each rule of keymount.yaml decided about the accesses of the audit trail, and which
rules no access needs. The rules of --config judge each access anew, whatever keymount.yaml was in
force then: the first rule that allows an access counts it.

Then propose the narrowest rules that allow the accesses that were allowed, and nothing else, to
paste into keymount.yaml. They name each path. An access that was allowed and got no value, since
the secret is absent, the store refused or the mount failed, is among them and listed apart: without
a rule the mount of a class with an optional secret would fail. Accesses of which the login alone
was judged do not count. The files should cover a time in which everything was in use.`,
		Example:           `  keymount audit rules --config keymount.yaml /var/log/keymount/audit*`,
		Args:              fileArgs(),
		ValidArgsFunction: byFiles(),
		RunE: func(cmd *cobra.Command, args []string) error {
			stores, uses, err := usesOf(cmd, f.form, file, args)
			if err != nil {
				return err
			}
			result := reviewed{file, audit.JudgeUses(uses, stores), audit.Propose(uses, stores)}
			return printResult(cmd, result, func(w io.Writer) { result.print(w, styleOf(cmd.OutOrStdout())) })
		},
	}
	f.addFlags(command)
	addRulesConfig(command, &file)
	return command
}

func addRulesConfig(command *cobra.Command, file *string) {
	command.Flags().StringVarP(file, "config", "c", defaultConfigFile, "the keymount.yaml with the rules")
	completeFile(command, "config", yamlFiles()...)
}

// usesOf reads the rules and the accesses that they are held against.
func usesOf(cmd *cobra.Command, form audit.Form, file string, args []string) (map[string]audit.Store, []audit.Use, error) {
	c, err := config.Load(file, all.All())
	if err != nil {
		return nil, nil, err
	}
	uses := audit.NewUses()
	err = walkTrail(cmd, form, args, func(e audit.Entry) error { uses.Add(e); return nil })
	return storesOf(c), uses.All(), err
}

// storesOf are the rules of a keymount.yaml by the names of their stores.
func storesOf(c *config.Config) map[string]audit.Store {
	stores := map[string]audit.Store{}
	for i := range c.Stores {
		s, traits := &c.Stores[i], c.Stores[i].Kind.Traits()
		known := audit.Store{Rules: s.Rules(), Kind: access.Kind{Roles: traits.Roles, Writes: traits.Writes, Never: kind.Never(s.Settings)}}
		place := fmt.Sprintf("stores[%d].access", i)
		if s.Access.Store {
			known.Places = append(known.Places, place+": store")
		}
		for n := range s.Access.Rules {
			known.Places = append(known.Places, fmt.Sprintf("%s[%d]", place, n))
		}
		stores[s.Name] = known
	}
	return stores
}

func (r reviewed) print(w io.Writer, s style) {
	rows := [][]string{{"STORE", "RULE", "ACCESSES", "LAST"}}
	for _, rule := range r.Rules {
		row := []string{rule.Store, rule.Rule, strconv.FormatInt(rule.Times, 10), "not used"}
		if rule.Times > 0 {
			row[3] = shortTime(rule.Last)
		}
		rows = append(rows, row)
	}
	printTable(w, rows)
	_, _ = fmt.Fprintf(w, "\nas the rules of %s judge the accesses of the trail\n", r.Config)
	for _, name := range sortedKeys(r.Refused) {
		_, _ = fmt.Fprintf(w, "store %s: they refuse %d\n", shown(name), r.Refused[name])
	}
	for _, name := range sortedKeys(r.Gone) {
		_, _ = fmt.Fprintf(w, "store %s: is not in that file, and was asked for %d\n", shown(name), r.Gone[name])
	}
	for _, p := range r.Proposals {
		printProposal(w, p, s)
	}
}

func printProposal(w io.Writer, p audit.Proposal, s style) {
	_, _ = fmt.Fprintf(w, "\n%s\n", s.dim(fmt.Sprintf("# store %s: different accesses that were allowed: %d; these rules allow them and no other", p.Store, p.Accesses)))
	for _, a := range p.Undelivered {
		_, _ = fmt.Fprintf(w, "# never got a value: %s\n", accessText(a))
	}
	for _, u := range p.Unsaid {
		_, _ = fmt.Fprintf(w, "# not among them: %s: %s\n", accessText(u.Access), u.Why)
	}
	text, err := rulesYAML(p.Rules)
	if err != nil {
		text = []byte("# " + err.Error() + "\n")
	}
	_, _ = w.Write(text)
}

func rulesYAML(rules []audit.Rule) ([]byte, error) {
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(map[string]any{"access": rules}); err != nil {
		return nil, fmt.Errorf("write the rules: %w", err)
	}
	return out.Bytes(), nil
}

func accessText(a audit.Access) string {
	verb := "reads"
	if a.Write {
		verb = "writes to"
	}
	text := fmt.Sprintf("%s %s %s", shown(a.Namespace+"/"+a.ServiceAccount), verb, shown(a.Store+" "+a.Path))
	if a.Role != "" {
		text += " with role " + shown(a.Role)
	}
	return text
}
