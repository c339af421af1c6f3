package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// head is what the chain needs of a record. Its texts are slices of the line.
type head struct {
	at, boot, node, prev []byte // between the quotes: a name with an escape is another one
	kind                 Kind
	seq, version, part   int64
	is                   known
}

// known are the fields that were there.
type known uint8

const (
	hasAt known = 1 << iota
	hasBoot
	hasKind
	hasNode
	hasPrev
	hasSeq
	hasVersion
	hasCheckpoint

	hasAll = hasAt | hasBoot | hasKind | hasNode | hasPrev | hasSeq | hasVersion
)

// scanHead reads the head of a canonical record, in one look at each byte. False means that
// the text is not canonical, or no object.
func scanHead(text []byte) (h head, ok bool) {
	s := scanner{rest: text}
	ok = s.object(0, h.set) && len(s.rest) == 0 && utf8.Valid(text)
	return h, ok
}

// set takes a field of the head, and passes all others over.
func (h *head) set(name, value []byte) {
	switch string(name) {
	case "at":
		h.text(&h.at, hasAt, value)
	case "boot":
		h.text(&h.boot, hasBoot, value)
	case "kind":
		var kind []byte
		h.text(&kind, hasKind, value)
		h.kind = kindOf(kind)
	case "node":
		h.text(&h.node, hasNode, value)
	case "prev":
		h.text(&h.prev, hasPrev, value)
	case "seq":
		h.number(&h.seq, hasSeq, value)
	case "v":
		h.number(&h.version, hasVersion, value)
	case "checkpoint":
		h.is |= hasCheckpoint
	case "part":
		h.number(&h.part, 0, value)
	}
}

func (h *head) text(to *[]byte, which known, value []byte) {
	if value[0] == '"' {
		*to = value[1 : len(value)-1]
		h.is |= which
	}
}

func (h *head) number(to *int64, which known, value []byte) {
	if n, err := strconv.ParseInt(string(value), 10, 64); err == nil && n >= 0 {
		*to = n
		h.is |= which
	}
}

// kindOf makes no new text of the most common kinds.
func kindOf(text []byte) Kind {
	for _, kind := range []Kind{KindMount, KindCheckpoint, KindCount, KindBegin, KindEnd} {
		if string(text) == string(kind) {
			return kind
		}
	}
	return Kind(text)
}

// lacks says why an object is no record of the trail.
func (h *head) lacks() error {
	switch {
	case h.is&hasAll&^hasVersion != hasAll&^hasVersion:
		return errors.New("is no record: at, boot, kind, node, prev or seq is missing")
	case h.version != Version:
		return errVersion(h.version)
	}
	return nil
}

func errVersion(version int64) error {
	return fmt.Errorf("has schema version %d, and this keymount reads %d; use the keymount that wrote it, or a later one", version, Version)
}

// plain is a text between quotes as it is meant.
func plain(text []byte) string {
	var meant string
	if bytes.IndexByte(text, '\\') < 0 || json.Unmarshal([]byte(`"`+string(text)+`"`), &meant) != nil {
		return string(text)
	}
	return meant
}
