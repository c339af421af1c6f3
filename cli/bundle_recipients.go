package cli

import (
	"fmt"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/keymount/keymount/store/bundle"
)

// recipientFlags are the flags with the recipients to encrypt for.
type recipientFlags struct {
	recipients     []string
	recipientsFile string
}

func (a *recipientFlags) addFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringArrayVarP(&a.recipients, "recipient", "r", nil, "encrypt for this recipient, age1...; may be repeated")
	flags.StringVarP(&a.recipientsFile, "recipients-file", "R", "", "encrypt for the recipients in this file, one on each line")
	completeFile(command, "recipients-file")
}

// parse never quotes a flag's text: it may be an identity by mistake.
func (a *recipientFlags) parse() ([]age.Recipient, error) {
	var all []age.Recipient
	for i, text := range a.recipients {
		if strings.HasPrefix(text, "AGE-SECRET-KEY-") {
			return nil, usagef("--recipient number %d is an identity, which is secret and now in your shell's history; give its recipient, the age1... in the identity file's comment", i+1)
		}
		recipients, err := bundle.ParseRecipients([]byte(text))
		if err != nil {
			return nil, usagef("--recipient number %d is no age recipient; it starts with age1, 'keymount bundle keygen' prints one", i+1)
		}
		all = append(all, recipients...)
	}
	if a.recipientsFile != "" {
		data, err := readFile(a.recipientsFile, bundle.MaxCiphertext)
		if err != nil {
			return nil, fmt.Errorf("read the recipients: %w", err)
		}
		recipients, err := bundle.ParseRecipients(data)
		if err != nil {
			return nil, fmt.Errorf("recipients file %s: %w", a.recipientsFile, err)
		}
		all = append(all, recipients...)
	}
	if len(all) == 0 {
		return nil, usagef("nobody to encrypt for; add --recipient or --recipients-file")
	}
	return all, nil
}
