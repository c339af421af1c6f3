package bundle_test

import (
	"bytes"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/keymount/keymount/store/bundle"
)

func TestCryptRoundTrip(t *testing.T) {
	one, two, stranger := newIdentity(t), newIdentity(t), newIdentity(t)
	sealed, err := bundle.Encrypt([]byte("canary"), []age.Recipient{one.Recipient(), two.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(sealed, []byte("-----BEGIN AGE ENCRYPTED FILE-----\n")) {
		t.Error("not armored")
	}
	for name, identities := range map[string][]age.Identity{"first": {one}, "second": {two}, "one of several": {stranger, two}} {
		if got, err := bundle.Decrypt(sealed, identities); string(got) != "canary" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	padded := append([]byte("\n  \n"), append(sealed, "\n\n"...)...)
	if got, err := bundle.Decrypt(padded, []age.Identity{one}); string(got) != "canary" || err != nil {
		t.Errorf("with empty lines around: %q, %v", got, err)
	}
}

func TestDecryptBinary(t *testing.T) {
	identity := newIdentity(t)
	if got, err := bundle.Decrypt(sealBinary(t, "canary", identity), []age.Identity{identity}); string(got) != "canary" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDecryptMistakes(t *testing.T) {
	const notAge = "is not an age file; make one with 'keymount bundle encrypt'"
	const damaged = "is damaged or cut short; copy it again, or encrypt it again"
	identity, stranger := newIdentity(t), newIdentity(t)
	armored, binary := seal(t, "canary", identity), sealBinary(t, "canary", identity)
	tests := map[string]struct {
		data     []byte
		identity age.Identity
		want     string
	}{
		"empty":             {nil, identity, notAge},
		"in the clear":      {[]byte("shop/db:\n  password: canary\n"), identity, notAge},
		"other recipients":  {armored, stranger, "none of the identities opens it; it was encrypted for other recipients, encrypt it for one of these"},
		"armor cut short":   {armored[:len(armored)-40], identity, damaged},
		"armored clear":     {[]byte("-----BEGIN AGE ENCRYPTED FILE-----\ncanary\n"), identity, damaged},
		"header cut short":  {binary[:60], identity, damaged},
		"payload cut short": {binary[:len(binary)-1], identity, damaged},
		"payload changed":   {append(bytes.Clone(binary[:len(binary)-1]), binary[len(binary)-1]^1), identity, damaged},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := bundle.Decrypt(test.data, []age.Identity{test.identity})
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if got != nil {
				t.Error("a plaintext came with the error")
			}
		})
	}
}

func TestEncryptWithoutRecipients(t *testing.T) {
	_, err := bundle.Encrypt([]byte("canary"), nil)
	if want := "encrypt: no recipients; nobody could open the bundle"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestParseKeys(t *testing.T) {
	identity := newIdentity(t)
	text := "# a comment\r\n\r\n" + identity.String() + "\r\n"
	if identities, err := bundle.ParseIdentities([]byte(text)); len(identities) != 1 || err != nil {
		t.Errorf("%d identities, %v", len(identities), err)
	}
	recipients, err := bundle.ParseRecipients([]byte("# a comment\n" + identity.Recipient().String() + "\n"))
	if len(recipients) != 1 || err != nil {
		t.Errorf("%d recipients, %v", len(recipients), err)
	}
}

func TestParseKeysMistakes(t *testing.T) {
	const identityCure = "; write one AGE-SECRET-KEY-1... on each line, 'keymount bundle keygen' makes one"
	const recipientCure = "; write one age1... on each line, 'keymount bundle keygen' prints one"
	identity := newIdentity(t)
	tests := map[string]struct{ text, wantIdentity, wantRecipient string }{
		"empty":           {"", "holds no identity", "holds no recipient"},
		"comments":        {"# nothing\n", "holds no identity", "holds no recipient"},
		"something else":  {"\ncanary\n", "line 2 is no age identity", "line 2 is no age recipient"},
		"broken identity": {identity.String()[:40] + "\n", "line 1 is no age identity", "line 1 is no age recipient"},
		"bytes":           {"\xff\n", "holds no identity", "holds no recipient"},
		"spaces":          {" " + identity.String() + "\n", "line 1 is no age identity", "line 1 is no age recipient"},
		"very long line":  {strings.Repeat("A", 1<<17), "holds no identity", "holds no recipient"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := bundle.ParseIdentities([]byte(test.text)); err == nil || err.Error() != test.wantIdentity+identityCure {
				t.Errorf("error %v, want %s", err, test.wantIdentity+identityCure)
			}
			if _, err := bundle.ParseRecipients([]byte(test.text)); err == nil || err.Error() != test.wantRecipient+recipientCure {
				t.Errorf("error %v, want %s", err, test.wantRecipient+recipientCure)
			}
		})
	}
}

func newIdentity(tb testing.TB) *age.X25519Identity {
	tb.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		tb.Fatal(err)
	}
	return identity
}

// seal encrypts as 'keymount bundle encrypt' does.
func seal(tb testing.TB, plaintext string, identity *age.X25519Identity) []byte {
	tb.Helper()
	sealed, err := bundle.Encrypt([]byte(plaintext), []age.Recipient{identity.Recipient()})
	if err != nil {
		tb.Fatal(err)
	}
	return sealed
}

// sealBinary encrypts as age does without --armor.
func sealBinary(tb testing.TB, plaintext string, identity *age.X25519Identity) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, identity.Recipient())
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write([]byte(plaintext)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}
