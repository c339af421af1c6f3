package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// verifySeal says why a checkpoint is not what its key has signed. All of the line is signed,
// so that nothing can be added to the last line of a trail, which no other line names.
func verifySeal(r *Record, line []byte, key string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return errors.New("cannot be verified: the record that names its key holds none")
	}
	if err := verifyNote(r.Checkpoint.Note, []note.Verifier{verifier}, noteLines(r)); err != nil {
		return err
	}
	bare := Record{At: r.At, Boot: r.Boot, Checkpoint: r.Checkpoint, Kind: r.Kind, Node: r.Node, Prev: r.Prev, Seq: r.Seq, V: Version}
	if again, err := bare.line(); err != nil || !bytes.Equal(again, line) {
		return errors.New("was changed: it holds more than its key has signed")
	}
	return nil
}

// verifyBegin says why a begin is not signed by one of the keys; without keys it need not be.
func verifyBegin(r *Record, keys []note.Verifier) error {
	switch {
	case len(keys) == 0:
		return nil
	case r.Begin.Note == "":
		return errors.New("the begin is not signed; audit.keyFile names the key for that")
	}
	if err := verifyNote(r.Begin.Note, keys, []string{beginOrigin, r.Node, r.Boot, r.Begin.Key}); err != nil {
		return fmt.Errorf("the begin %w", err)
	}
	return nil
}

// verifyNote holds a note against its keys and the lines that it has to be about, and takes
// one spelling of a signature alone.
func verifyNote(text string, keys []note.Verifier, lines []string) error {
	n, err := note.Open([]byte(text), note.VerifierList(keys...))
	var wrong *note.InvalidSignatureError
	var unknown *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unknown):
		return errors.New("was signed with another key")
	case errors.As(err, &wrong):
		return errors.New("was changed: its signature is about something else")
	case err != nil:
		return errors.New("was changed: it has no signature")
	case n.Text != strings.Join(lines, "\n")+"\n":
		return errors.New("was changed: its signature is about something else")
	}
	var spelled strings.Builder
	spelled.WriteString(n.Text + "\n")
	for _, signature := range n.Sigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(signature.Base64); err != nil {
			return errors.New("was changed: its signature is spelled in another way")
		}
		spelled.WriteString("— " + signature.Name + " " + signature.Base64 + "\n")
	}
	if spelled.String() != text {
		return errors.New("was changed: its signature is spelled in another way")
	}
	return nil
}

// ParseKeys reads verifier keys, as golang.org/x/mod/sumdb/note has them.
func ParseKeys(texts []string) ([]note.Verifier, error) {
	keys := make([]note.Verifier, 0, len(texts))
	for _, text := range texts {
		key, err := note.NewVerifier(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%.80q is no verifier key, such as keymount-audit+1a2b3c4d+Ab...: %w", text, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
