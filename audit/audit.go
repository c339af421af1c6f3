// Package audit keeps the trail: which pod read which secret, when, by which rule, and what
// was refused, one JSON line for each event.
//
// A [Record] is one line, in a spelling that survives collectors ([Canonical]). A [Chain]
// puts the hash of each line into the next and signs them, every second or every 256 lines,
// with a key that is then replaced and erased: later nobody can rewrite a line that has left
// the node, root of the node included. docs/audit.md says what that proves and what not.
package audit
