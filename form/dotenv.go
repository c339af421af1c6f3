package form

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// dotenvLine is KEY='value', or KEY="value" for a value with a single quote.
//
// A shell, godotenv, Docker Compose and node's dotenv agree about a quoted value only
// as long as it needs no escape: node's dotenv keeps the backslashes of "\$" and "\"",
// Compose that of "\`", and godotenv trims quotes at the end of a value. One backslash
// off is a wrong password, so a value that needs an escape is refused.
func dotenvLine(key, value string) (string, error) {
	const instead = "; take format json, or give the key a file of its own"
	switch {
	case !isVariable(key):
		return "", errors.New("is no name for a variable (letters, digits and _, no digit first)" + instead)
	case !utf8.ValidString(value):
		return "", errors.New("has a value that is not UTF-8, and readers of dotenv disagree about it" + instead)
	case strings.ContainsAny(value, "\r\x00"):
		return "", errors.New("has a value with a carriage return or NUL, and readers of dotenv disagree about it" + instead)
	case strings.HasSuffix(value, `\`):
		return "", errors.New("has a value that ends in a backslash, and readers of dotenv disagree about it" + instead)
	case !strings.Contains(value, "'"):
		return key + "='" + value + "'\n", nil
	case strings.ContainsAny(value, "\"$\\`"):
		return "", errors.New("has a value with ' and one of \" $ \\ `, and readers of dotenv disagree about it" + instead)
	}
	return key + `="` + value + "\"\n", nil
}

// isVariable tells whether name is a variable's in a POSIX shell.
func isVariable(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		digit := '0' <= c && c <= '9'
		if !letter && (!digit || i == 0) {
			return false
		}
	}
	return name != ""
}
