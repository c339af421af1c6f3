package audit

import "encoding/json"

// split makes several records of one whose line would be longer than limit. Each has all
// but the lists, of which it has a part, so that it can be read alone.
func split(r Record, limit int) []Record {
	if sizeOf(&r) <= limit {
		return []Record{r}
	}
	bare := r
	bare.Secrets, bare.Counts = nil, nil
	room := limit - sizeOf(&bare)
	var secrets []Secret
	for _, s := range r.Secrets {
		secrets = append(secrets, splitFiles(s, room)...)
	}
	var parts []Record
	for _, some := range pack(secrets, room) {
		part := bare
		part.Secrets = some
		parts = append(parts, part)
	}
	for _, some := range pack(r.Counts, room) {
		part := bare
		part.Counts = some
		parts = append(parts, part)
	}
	if parts == nil { // nothing can be parted
		return []Record{r}
	}
	return parts
}

// splitFiles makes several entries of a secret with many files.
func splitFiles(s Secret, room int) []Secret {
	if sizeOf(s) <= room {
		return []Secret{s}
	}
	rest := Secret{Store: s.Store, Role: s.Role, Path: s.Path, More: true}
	all := s.Files
	s.Files = nil
	entries := []Secret{s}
	for _, files := range pack(all, room-sizeOf(rest)) {
		more := rest
		more.Files = files
		entries = append(entries, more)
	}
	return entries
}

// pack puts items into as few lists as their order allows, each of at most room bytes as
// JSON; an item that is larger has a list of its own.
func pack[T any](items []T, room int) [][]T {
	var lists [][]T
	left := 0
	for _, item := range items {
		size := sizeOf(item) + len(",")
		if len(lists) == 0 || size > left {
			lists, left = append(lists, nil), room-len(`"secrets":[]`)
		}
		lists[len(lists)-1] = append(lists[len(lists)-1], item)
		left -= size
	}
	return lists
}

// sizeOf is the length of v as JSON; it may be longer than the canonical one, which has
// fewer escapes.
func sizeOf(v any) int {
	text, err := json.Marshal(v)
	if err != nil {
		return maxLine // a struct of texts and numbers can always be written
	}
	return len(text)
}
