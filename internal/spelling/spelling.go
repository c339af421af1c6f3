// Package spelling suggests the known name closest to a misspelled one, and holds the one
// rule for the characters of names.
package spelling

import (
	"fmt"
	"slices"
	"strings"
)

// longest is the length of the longest word that gets a hint.
const longest = 64

// Nearest is the one of known that is close to word, or empty.
func Nearest(word string, known []string) string {
	if len(word) > longest {
		return "" // no slip of the finger
	}
	best, least := "", max(2, len(word)/3)+1
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	if least >= len(word) {
		return ""
	}
	return best
}

// Clear is Nearest, and empty where another one is as close or word is far from it: a
// program may write it in place of word.
func Clear(word string, known []string) string {
	best := Nearest(word, known)
	if best == "" {
		return ""
	}
	least := distance(strings.ToLower(word), strings.ToLower(best))
	for _, k := range known {
		if k != best && distance(strings.ToLower(word), strings.ToLower(k)) <= least {
			return ""
		}
	}
	if least > max(1, len(word)/3) && !sameLetters(word, best) {
		return ""
	}
	return best
}

func sameLetters(a, b string) bool {
	sorted := func(text string) string {
		letters := []byte(strings.ToLower(text))
		slices.Sort(letters)
		return string(letters)
	}
	return sorted(a) == sorted(b)
}

// Hint is `; did you mean "file"?` when one of known is close to word, and empty otherwise,
// ready to end any message.
func Hint(word string, known []string) string {
	best := Nearest(word, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is Levenshtein's, over bytes: close enough for names of fields.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
