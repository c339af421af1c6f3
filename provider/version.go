package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/regular"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/record"
)

// minVersionKey is the length of SHA-256's output: a shorter key is the weakest part.
const minVersionKey = sha256.Size

// maxVersionKey is more than any key has.
const maxVersionKey = 64 << 10

// versioner derives the versions of files from their content: a version changes exactly
// with the bytes, agrees across nodes and restarts, and does not betray that two
// identities hold the same secret.
type versioner struct{ key secret.Bytes }

// of gives each file its version, base64url(HMAC-SHA256(key, namespace, service account, store, file,
// bytes)), each part behind its length: no two lists of parts look alike.
func (v versioner) of(pod auth.Pod, files []File) []record.File {
	mac := hmac.New(sha256.New, v.key.Reveal())
	each := base64.RawURLEncoding.EncodedLen(sha256.Size)
	head, sum, text := make([]byte, 0, 256), make([]byte, 0, sha256.Size), make([]byte, each)
	var all strings.Builder // one text for all: a large class has a thousand
	all.Grow(each * len(files))
	for _, f := range files {
		head = appendParts(head[:0], pod.Namespace, pod.ServiceAccount, f.Store, f.Path)
		contents := f.Contents.Reveal()
		mac.Reset()
		mac.Write(binary.BigEndian.AppendUint64(head, uint64(len(contents))))
		mac.Write(contents)
		sum = mac.Sum(sum[:0])
		base64.RawURLEncoding.Encode(text, sum)
		all.Write(text)
	}
	versioned := make([]record.File, len(files))
	for i := range versioned {
		versioned[i] = record.File{Path: files[i].Path, Version: all.String()[i*each : (i+1)*each]}
	}
	return versioned
}

// appendParts puts each part behind its length: two different lists of parts make two
// texts.
func appendParts(text []byte, parts ...string) []byte {
	for _, part := range parts {
		text = append(binary.BigEndian.AppendUint64(text, uint64(len(part))), part...)
	}
	return text
}

// ReadVersionKey reads a versionKeyFile of keymount.yaml.
func ReadVersionKey(file string) (secret.Bytes, error) {
	key, err := regular.Read(file, maxVersionKey)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("versionKeyFile: %w", err)
	}
	if err := checkVersionKey(key); err != nil {
		return secret.Bytes{}, fmt.Errorf("versionKeyFile: %s: %w", file, err)
	}
	return secret.New(key), nil
}

func checkVersionKey(key []byte) error {
	if len(key) >= minVersionKey {
		return nil
	}
	if len(key) == 0 {
		return errors.New("is empty; fill it with 32 random bytes: head -c 32 /dev/urandom")
	}
	return fmt.Errorf("%d bytes are too few; it needs at least %d random ones: head -c 32 /dev/urandom", len(key), minVersionKey)
}
