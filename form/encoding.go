package form

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/keymount/keymount/internal/secret"
)

// Encoding is a value's encoding in the store, undone for the file.
type Encoding string

// The encodings. White space in the value is ignored.
const (
	// Base64 takes the standard and the URL alphabet, but not both in one value,
	// with padding or without.
	Base64 Encoding = "base64"
	// Hex takes digits in upper or lower case.
	Hex Encoding = "hex"
)

// Encodings are the names of all encodings.
func Encodings() []string { return []string{string(Base64), string(Hex)} }

// ParseEncoding reads the name of an encoding.
func ParseEncoding(text string) (Encoding, error) {
	if err := oneOf(text, "encoding", Encodings()); err != nil {
		return "", err
	}
	return Encoding(text), nil
}

// Decode undoes the encoding of b. The error has the place of the wrong byte, counted
// from 0, and not the byte.
func Decode(e Encoding, b secret.Bytes) (secret.Bytes, error) {
	var decoded []byte
	var err error
	switch e {
	case Base64:
		decoded, err = decodeBase64(b.Reveal())
	case Hex:
		decoded, err = decodeHex(b.Reveal())
	default:
		_, err = ParseEncoding(string(e))
	}
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(decoded), nil
}

// decodeBase64 brings the text into the standard alphabet without padding.
func decodeBase64(text []byte) ([]byte, error) {
	digits := make([]byte, 0, len(text))
	padding, standard, url := 0, false, false
	for i, c := range text {
		switch {
		case isSpace(c):
			continue
		case c == '=':
			padding++
			continue
		case padding > 0:
			return nil, fmt.Errorf("not base64: there is more after the padding, at byte %d", i)
		case c == '-':
			url, c = true, '+'
		case c == '_':
			url, c = true, '/'
		case c == '+' || c == '/':
			standard = true
		case !isAlphanumeric(c):
			return nil, fmt.Errorf("not base64: byte %d is not of its alphabet", i)
		}
		if standard && url {
			return nil, fmt.Errorf("not base64: the standard alphabet (+ and /) and that of URLs (- and _) are mixed, at byte %d", i)
		}
		digits = append(digits, c)
	}
	if err := checkEnd(digits, padding, len(text)); err != nil {
		return nil, err
	}
	n, err := base64.RawStdEncoding.Decode(digits, digits)
	if err != nil {
		return nil, errors.New("not base64") // cannot be: every digit was looked at
	}
	return digits[:n], nil
}

// checkEnd finds a text cut short.
func checkEnd(digits []byte, padding, end int) error {
	wanted := (4 - len(digits)%4) % 4
	switch {
	case wanted == 3:
		return fmt.Errorf("not base64: it ends at byte %d in the middle of a group of four", end)
	case padding != 0 && padding != wanted:
		return fmt.Errorf("not base64: %d padding characters where %d belong, at byte %d", padding, wanted, end)
	}
	return nil
}

func decodeHex(text []byte) ([]byte, error) {
	digits := make([]byte, 0, len(text))
	for i, c := range text {
		switch {
		case isSpace(c):
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
			digits = append(digits, c)
		default:
			return nil, fmt.Errorf("not hex: byte %d is no hexadecimal digit", i)
		}
	}
	if len(digits)%2 != 0 {
		return nil, fmt.Errorf("not hex: it ends at byte %d in the middle of a pair of digits", len(text))
	}
	n, err := hex.Decode(digits, digits)
	if err != nil {
		return nil, errors.New("not hex") // cannot be: every digit was looked at
	}
	return digits[:n], nil
}

func isSpace(c byte) bool {
	return c == ' ' || '\t' <= c && c <= '\r'
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
