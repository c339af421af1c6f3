// Package audit keeps the trail: which pod read which secret, when, by which rule, and what
// was refused, one JSON line for each event. docs/audit.md is its manual, and says what it
// proves and what not.
//
// Writing: a [Trail] is a Recorder of package provider and watches the logins and leases of
// stores (mount.go, sum.go, watch.go). What it makes of them is a [Record], in a spelling
// that survives collectors (record.go, split.go, canonical.go). A [Chain] puts the hash of
// each line into the next and signs them, every second or every 256 lines, with a key that is
// then replaced and overwritten: afterwards nobody can rewrite a line that has left the node, root
// of the node included (chain.go, signer.go). A [Sink] takes the lines, and a mount waits for
// it (feed.go, file.go, pipe.go).
//
// Reading: a [Check] verifies files of a trail (verify*.go), from whatever a collector made
// of its lines (source.go, envelope.go, walk.go). Filters, readers of a secret, proposed rules
// and replayed accesses are made of the records alone.
package audit
