package bundle_test

import (
	"bytes"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store/bundle"
)

const rekeyCure = "; name them all once, with 'keymount bundle rekey', which notes them in the bundle"

func TestRecipients(t *testing.T) {
	one, two, three := newIdentity(t), newIdentity(t), newIdentity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	noted := func(ids ...*age.X25519Identity) string { // as what keymount encrypts begins
		return "# keymount recipients: " + strings.Join(bundle.Names(recipientsOf(ids...)), " ") + "\na: {b: c}\n"
	}
	tests := map[string]struct {
		sealed []byte
		opener age.Identity
		want   []age.Recipient
		err    string
	}{
		"two":              {encrypt(t, recipientsOf(one, two)...), two, recipientsOf(one, two), ""},
		"post-quantum":     {encrypt(t, hybrid.Recipient()), hybrid, []age.Recipient{hybrid.Recipient()}, ""},
		"one, not noted":   {sealBinary(t, "a: {b: c}\n", one), one, recipientsOf(one), ""},
		"two, not noted":   {ageEncrypt(t, "a: {b: c}\n", one, two), one, nil, "does not say for whom it is encrypted (recipients: 2)" + rekeyCure},
		"one fewer noted":  {ageEncrypt(t, noted(one, two), one, two, three), one, nil, "was encrypted by another program since its recipients were noted in it" + rekeyCure},
		"one more noted":   {ageEncrypt(t, noted(one, two), one), one, nil, "was encrypted by another program since its recipients were noted in it" + rekeyCure},
		"opener not noted": {ageEncrypt(t, noted(one, two), two, three), three, nil, "was encrypted by another program since its recipients were noted in it" + rekeyCure},
		"broken note":      {ageEncrypt(t, "# keymount recipients: age1canary\na: {b: c}\n", one), one, nil, "was encrypted by another program since its recipients were noted in it" + rekeyCure},
		"for others":       {seal(t, "a: {b: c}\n", one), two, nil, "none of the identities opens it; it was encrypted for other recipients, encrypt it for one of these"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := bundle.Recipients(test.sealed, []age.Identity{newIdentity(t), test.opener})
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != test.err {
				t.Errorf("error %q, want %q", text, test.err)
			}
			if diff := cmp.Diff(bundle.Names(test.want), bundle.Names(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The note is for keymount: neither decrypt nor a document shows it, and one that
// a document begins with itself is its own text.
func TestNoteIsNotText(t *testing.T) {
	identity := newIdentity(t)
	for _, text := range []string{"a: {b: c}\n", "# keymount recipients: \na: {b: c}", "", "a: {b: c}"} {
		got, err := bundle.Decrypt(seal(t, text, identity), []age.Identity{identity})
		if string(got) != text || err != nil {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
}

// A recipient without a spelling makes a bundle without a note.
func TestRecipientsWithoutNames(t *testing.T) {
	identity := newIdentity(t)
	sealed := encrypt(t, identity.Recipient(), unnamed{newIdentity(t).Recipient()})
	_, err := bundle.Recipients(sealed, []age.Identity{identity})
	if want := "does not say for whom it is encrypted (recipients: 2)" + rekeyCure; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

type unnamed struct{ age.Recipient }

// Other programs add a dummy recipient.
func TestRecipientsIgnoreGrease(t *testing.T) {
	identity := newIdentity(t)
	sealed := encrypt(t, identity.Recipient(), grease{})
	if got, err := bundle.Recipients(sealed, []age.Identity{identity}); len(got) != 1 || err != nil {
		t.Errorf("%d recipients, %v", len(got), err)
	}
}

type grease struct{}

func (grease) Wrap([]byte) ([]*age.Stanza, error) {
	return []*age.Stanza{{Type: "x-grease", Body: []byte("0123")}}, nil
}

func recipientsOf(identities ...*age.X25519Identity) []age.Recipient {
	recipients := make([]age.Recipient, len(identities))
	for i, identity := range identities {
		recipients[i] = identity.Recipient()
	}
	return recipients
}

func encrypt(tb testing.TB, recipients ...age.Recipient) []byte {
	tb.Helper()
	sealed, err := bundle.Encrypt([]byte("a: {b: c}\n"), recipients)
	if err != nil {
		tb.Fatal(err)
	}
	return sealed
}

// ageEncrypt encrypts as the age program does, which notes nothing.
func ageEncrypt(tb testing.TB, text string, identities ...*age.X25519Identity) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, recipientsOf(identities...)...)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}
