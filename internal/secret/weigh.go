package secret

import (
	"bytes"
	"runtime"
	"unicode/utf8"
)

// yieldEvery is how many bytes are weighed before all other goroutines have their turn.
const yieldEvery = 32 << 10

// Weigh is about how much memory a JSON text takes once it is decoded into maps, lists and
// texts, in bytes, and how deep it is nested: without decoding it, so that room can be made
// first or the text be refused. It takes time in proportion to the text, and allocates
// nothing. A text that is no JSON has a weight, too, and the decoder says what is wrong with
// it.
func Weigh(text []byte) (bytes, depth int) {
	var w weighing
	for i, rest := 0, yieldEvery; i < len(text); {
		if i = w.step(text, i); i > rest {
			runtime.Gosched()
			rest = i + yieldEvery
		}
	}
	for w.depth > 0 { // not closed
		w.close()
	}
	return w.bytes, w.deepest
}

// weighed is as deep as is counted exactly; what is deeper is refused anyway.
const weighed = MaxDepth + 28

type weighing struct {
	bytes, depth, deepest int
	// values are those of each list and map that is open. A map has two, name and value, for
	// each of its entries.
	values [weighed]int32
	maps   [weighed]bool
}

// step weighs what begins at i, and returns where the next thing does.
func (w *weighing) step(text []byte, i int) int {
	switch c := text[i]; c {
	case '{', '[':
		w.count()
		w.open(c == '{')
	case '}', ']':
		w.close()
	case '"':
		end := endOfText(text, i+1)
		w.count()
		w.bytes += boxSize + allocated(decoded(text[i:end]))
		return end + 1
	case ' ', '\t', '\r', '\n', ',', ':':
	default: // a number or a word
		end := i + 1
		for end < len(text) && !isBoundary(text[end]) {
			end++
		}
		w.count()
		if c != 't' && c != 'f' && c != 'n' { // which have no memory of their own
			w.bytes += boxSize + allocated(end-i)
		}
		return end
	}
	return i + 1
}

// endOfText is where the quote that ends a text is; the end of all without one.
func endOfText(text []byte, i int) int {
	for quote := -1; ; {
		if quote < i { // the last one was escaped
			next := bytes.IndexByte(text[i:], '"')
			if next < 0 {
				return len(text)
			}
			quote = i + next
		}
		escape := bytes.IndexByte(text[i:quote], '\\')
		if escape < 0 {
			return quote
		}
		i += escape + len(`\"`)
	}
}

// decoded is at most how long a text is once it is decoded. Escapes only get shorter, but
// each byte that is no UTF-8 becomes the three of U+FFFD.
func decoded(text []byte) int {
	length := len(text)
	if utf8.Valid(text) {
		return length
	}
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			length += utf8.RuneLen(r) - 1
		}
		text = text[size:]
	}
	return length
}

func isBoundary(c byte) bool {
	switch c {
	case ' ', '\t', '\r', '\n', ',', ':', '{', '}', '[', ']', '"':
		return true
	}
	return false
}

// count notes a value in the list or map that is open.
func (w *weighing) count() { w.values[min(w.depth, weighed-1)]++ }

func (w *weighing) open(isMap bool) {
	w.depth++
	w.deepest = max(w.deepest, w.depth)
	at := min(w.depth, weighed-1)
	w.values[at], w.maps[at] = 0, isMap
}

func (w *weighing) close() {
	if w.depth == 0 {
		return
	}
	at := min(w.depth, weighed-1)
	if n := int(w.values[at]); w.maps[at] {
		w.bytes += mapSize + heldByGroups(n/2)
	} else {
		w.bytes += listSize + allocated(elementSize*2*n) // a list grows by doubling
	}
	w.depth--
}
