package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/age"
)

// notePrefix starts the line with the recipients. The line stands first, where it cannot
// become part of a value, and is a comment to other readers of YAML.
const notePrefix = "# keymount recipients: "

// note is the line for these recipients, or nothing when [ParseRecipients] could not
// read one of them: half a list would lock people out.
func note(recipients []age.Recipient) []byte {
	var names []string
	for _, r := range recipients {
		name := recipientName(r)
		if name == "" {
			return nil
		}
		names = append(names, name)
	}
	return []byte(notePrefix + strings.Join(names, " ") + "\n")
}

func splitNote(plaintext []byte) (noted, rest []byte) {
	after, ok := bytes.CutPrefix(plaintext, []byte(notePrefix))
	if !ok {
		return nil, plaintext
	}
	noted, rest, ok = bytes.Cut(after, []byte("\n"))
	if !ok {
		return nil, plaintext
	}
	return noted, rest
}

// Recipients returns all recipients of a bundle file, so that it can be encrypted for
// them again. It fails rather than leave one out: when the file has no note of them, or
// another program encrypted it since. The error reads as the rest of a sentence about
// the file.
func Recipients(data []byte, identities []age.Identity) ([]age.Recipient, error) {
	noted, _, err := open(data, identities)
	if err != nil {
		return nil, err
	}
	count, err := countRecipients(data)
	if err != nil {
		return nil, err
	}
	own := ownRecipient(data, identities)
	if noted == nil {
		if count == 1 && own != nil {
			return []age.Recipient{own}, nil
		}
		return nil, fmt.Errorf("does not say for whom it is encrypted (recipients: %d); %s", count, noteCure)
	}
	recipients, err := ParseRecipients(bytes.ReplaceAll(noted, []byte(" "), []byte("\n")))
	if err != nil || len(recipients) != count || own != nil && !slices.Contains(Names(recipients), recipientName(own)) {
		return nil, fmt.Errorf("was encrypted by another program since its recipients were noted in it; %s", noteCure)
	}
	return recipients, nil
}

const noteCure = "name them all once, with 'keymount bundle rekey', which notes them in the bundle"

// Names spells recipients as [ParseRecipients] reads them. A recipient without such a
// spelling gets an empty name.
func Names(recipients []age.Recipient) []string {
	names := make([]string, len(recipients))
	for i, r := range recipients {
		names[i] = recipientName(r)
	}
	return names
}

func recipientName(r age.Recipient) string {
	switch r := r.(type) {
	case *age.X25519Recipient:
		return r.String()
	case *age.HybridRecipient:
		return r.String()
	default:
		return ""
	}
}

// RecipientOf returns identity's own recipient; nil for an identity that does not tell.
func RecipientOf(identity age.Identity) age.Recipient {
	switch i := identity.(type) {
	case *age.X25519Identity:
		return i.Recipient()
	case *age.HybridIdentity:
		return i.Recipient()
	default:
		return nil
	}
}

// ownRecipient is the recipient of the identity that opens the file.
func ownRecipient(data []byte, identities []age.Identity) age.Recipient {
	for _, identity := range identities {
		if _, err := decrypt(data, []age.Identity{identity}); err == nil {
			return RecipientOf(identity)
		}
	}
	return nil
}

// countRecipients counts the recipients in the header of an age file. Some programs add
// a dummy of a type that ends in -grease, so that readers stay used to unknown types.
func countRecipients(data []byte) (int, error) {
	r, err := unarmored(data)
	if err != nil {
		return 0, err
	}
	_, err = age.Decrypt(r, noIdentity{})
	var header *age.NoIdentityMatchError
	if !errors.As(err, &header) {
		return 0, errDamaged
	}
	types := slices.DeleteFunc(header.StanzaTypes, func(t string) bool { return strings.HasSuffix(t, "-grease") })
	return len(types), nil
}

// noIdentity opens no file.
type noIdentity struct{}

// Unwrap implements [age.Identity].
func (noIdentity) Unwrap([]*age.Stanza) ([]byte, error) { return nil, age.ErrIncorrectIdentity }
