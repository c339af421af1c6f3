package bundle

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// MaxCiphertext is the size in bytes of the largest bundle file: a document of
// [MaxPlaintext], armored, with room for many recipients.
const MaxCiphertext = 8 << 20

// ageIntro is the beginning of an age file without armor.
const ageIntro = "age-encryption.org/v1\n"

// Encrypt encrypts plaintext for every recipient and armors it. It does not look
// into the plaintext; see [Parse]. Before the plaintext it puts a line with the
// recipients, which [Decrypt] takes away and [Recipients] reads.
func Encrypt(plaintext []byte, recipients []age.Recipient) ([]byte, error) {
	if len(recipients) == 0 {
		return nil, errors.New("encrypt: no recipients; nobody could open the bundle")
	}
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	w, err := age.Encrypt(armored, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if _, err := w.Write(append(note(recipients), plaintext...)); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := errors.Join(w.Close(), armored.Close()); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out.Bytes(), nil
}

// Decrypt opens a bundle file, armored or not. Its errors read as the rest of a
// sentence about the file and hold nothing of it: a file in the clear, put in
// place by mistake, is not quoted.
func Decrypt(data []byte, identities []age.Identity) ([]byte, error) {
	_, plaintext, err := open(data, identities)
	return plaintext, err
}

// open decrypts and splits off the noted recipients, nil when there is no note.
func open(data []byte, identities []age.Identity) (noted, plaintext []byte, err error) {
	plaintext, err = decrypt(data, identities)
	if err != nil {
		return nil, nil, err
	}
	noted, plaintext = splitNote(plaintext)
	return noted, plaintext, nil
}

func decrypt(data []byte, identities []age.Identity) ([]byte, error) {
	r, err := unarmored(data)
	if err != nil {
		return nil, err
	}
	opened, err := age.Decrypt(r, identities...)
	if errors.As(err, new(*age.NoIdentityMatchError)) {
		return nil, errors.New("none of the identities opens it; it was encrypted for other recipients, encrypt it for one of these")
	}
	if err != nil {
		return nil, errDamaged
	}
	plaintext, err := io.ReadAll(opened)
	if err != nil {
		return nil, errDamaged
	}
	return plaintext, nil
}

func unarmored(data []byte) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(data, []byte(ageIntro)):
		return bytes.NewReader(data), nil
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte(armor.Header)):
		return armor.NewReader(bytes.NewReader(data)), nil
	default:
		return nil, errors.New("is not an age file; make one with 'keymount bundle encrypt'")
	}
}

var errDamaged = errors.New("is damaged or cut short; copy it again, or encrypt it again")

// ParseIdentities reads an identity file: one AGE-SECRET-KEY-1... a line, empty
// lines and comments aside. The error has the line and nothing of its content.
func ParseIdentities(data []byte) ([]age.Identity, error) {
	identities, err := keys(data, "identity", age.ParseIdentities)
	if err != nil {
		return nil, fmt.Errorf("%w; write one AGE-SECRET-KEY-1... on each line, 'keymount bundle keygen' makes one", err)
	}
	return identities, nil
}

// ParseRecipients reads a recipients file: one age1... a line, empty lines and
// comments aside. The error has the line and nothing of its content, which may
// be an identity by mistake.
func ParseRecipients(data []byte) ([]age.Recipient, error) {
	recipients, err := keys(data, "recipient", age.ParseRecipients)
	if err != nil {
		return nil, fmt.Errorf("%w; write one age1... on each line, 'keymount bundle keygen' prints one", err)
	}
	return recipients, nil
}

// keys has age parse a file line by line, to know the line of a mistake without the words of
// age's error, which may quote a key. A file of anything but short lines of text is none.
func keys[K any](data []byte, name string, parse func(io.Reader) ([]K, error)) ([]K, error) {
	var all []K
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		switch {
		case len(line) == 0 || line[0] == '#':
			continue
		case !utf8.Valid(line):
			return nil, errors.New("holds no " + name)
		}
		parsed, err := parse(bytes.NewReader(line))
		if err != nil {
			return nil, fmt.Errorf("line %d is no age %s", n, name)
		}
		all = append(all, parsed...)
	}
	if lines.Err() != nil || len(all) == 0 {
		return nil, errors.New("holds no " + name)
	}
	return all, nil
}
