package keep

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// keeperState holds the credentials and certificates, which a new read would make anew. It
// holds neither denials nor values that can be read again. Its paths are those of such
// credentials, so that an outage at the start does not hide them from their pods.
type keeperState struct {
	Values []valueState // least recently used first
	Paths  []pathState
}

type valueState struct {
	Key        keyState
	Namespace  string
	At         time.Time
	Data       any
	Envelope   any
	Enveloped  bool     // Data is the data inside Envelope
	About      []string `json:",omitempty"` // absent without any, as in older snapshots
	Version    string
	NotAfter   time.Time
	Warnings   []string
	Reader     *readerState
	Credential *credentialState
}

type readerState struct {
	Pod         auth.Pod
	Class, Path string
}

type credentialState struct {
	Identity    auth.Identity
	Role, Class string
	Lasting     time.Duration
	ID, Login   []byte
	Duration    time.Duration
	Renewable   bool // and still renewed
	Ends        time.Time
}

type pathState struct {
	Key           keyState
	Namespace     string
	At            time.Time
	Path, Literal string
}

type keyState struct{ Volume, What sum }

func (k keyState) key() key { return key{k.Volume, k.What} }

// MarshalText writes hexadecimal digits.
func (s sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads the digits of MarshalText.
func (s *sum) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(s)) {
		return errors.New("not the digits of a SHA-256")
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// maxSnapshot bounds the values of a Snapshot in bytes of JSON: several times what the
// credentials of a node take. While it is written it is in memory a few times.
const maxSnapshot = 8 << 20

// Snapshot is the state for Restore in the next process, with secrets in plain text. It has
// room for maxSnapshot; what is left out is in the log, and is made anew after a restart.
func (k *Keeper) Snapshot() (secret.Bytes, error) {
	var state struct { // as keeperState
		Values []json.RawMessage
		Paths  []pathState
	}
	var left map[string]int
	state.Values, left = statesOf(k.values.all(func(v value) bool { return v.made }), maxSnapshot)
	k.tellLeft(left)
	for _, e := range k.paths.all(func(r store.Resolved) bool { return r.Makes }) {
		state.Paths = append(state.Paths, pathState{keyState{e.key.volume, e.key.ref}, e.namespace, e.at, e.value.Path.String(), e.value.Literal})
	}
	text, err := marshal(state)
	if err != nil { // its text may quote a secret
		return secret.Bytes{}, errors.New("the values cannot be written as JSON")
	}
	return secret.New(text), nil
}

// marshal writes JSON without the longer spelling of <, > and &.
func marshal(v any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return text.Bytes(), err
}

// statesOf writes the entries that have room in so many bytes, in their order, and counts
// those left out by namespace. The namespace with fewest bytes is next, with its entry that
// was used last: so none takes the room of another.
func statesOf(entries []entry[key, value], most int) (texts []json.RawMessage, left map[string]int) {
	rest, taken, all := map[string][]int{}, map[string]int{}, 0 // indices of entries; bytes
	for i, e := range entries {
		rest[e.namespace] = append(rest[e.namespace], i)
	}
	texts = make([]json.RawMessage, len(entries))
	left = map[string]int{}
	for len(rest) > 0 {
		namespace := fewest(rest, taken)
		of := rest[namespace]
		last := of[len(of)-1]
		text, err := marshal(entries[last].value.state(entries[last]))
		done := 1
		switch {
		case err != nil: // such as a year that JSON has no words for
			left[namespace]++
		case all+len(text) > most:
			done = len(of)
			left[namespace] += done
		default:
			texts[last] = text
			taken[namespace] += len(text)
			all += len(text)
		}
		if rest[namespace] = of[:len(of)-done]; len(rest[namespace]) == 0 {
			delete(rest, namespace)
		}
	}
	return slices.DeleteFunc(texts, func(text json.RawMessage) bool { return text == nil }), left
}

// fewest is the namespace of rest that has taken fewest bytes.
func fewest(rest map[string][]int, taken map[string]int) (least string) {
	first := true
	for namespace := range rest {
		if first || taken[namespace] < taken[least] || taken[namespace] == taken[least] && namespace < least {
			least, first = namespace, false
		}
	}
	return least
}

// tellLeft writes to the log that a snapshot begins to leave entries out.
func (k *Keeper) tellLeft(left map[string]int) {
	if before := k.leftOut.Swap(len(left) > 0); before || len(left) == 0 || k.o.Log == nil {
		return
	}
	all, most := sumOfNamespaces(left)
	k.o.Log.LogAttrs(context.Background(), slog.LevelWarn, "the state has no room for all credentials: a restart would make those left out anew",
		slog.Int("left_out", all), slog.String("namespace", most), slog.Int("of_namespace", left[most]))
}

// state is the value as JSON: the texts of all stores are Unicode, and numbers keep their
// spelling.
func (v value) state(e entry[key, value]) valueState {
	state := valueState{
		Key: keyState{e.key.volume, e.key.ref}, Namespace: e.namespace, At: e.at, Data: v.Data.Reveal(), Envelope: v.Envelope.Reveal(), About: v.About, Version: v.Version, NotAfter: v.NotAfter, Warnings: v.Warnings,
	}
	if inner, ok := v.Envelope.Child("data"); ok && reflect.DeepEqual(inner.Reveal(), state.Data) {
		state.Data, state.Enveloped = nil, true
	}
	if v.reader != nil {
		state.Reader = &readerState{v.reader.pod, v.reader.class, v.reader.path.String()}
	}
	if v.credential != nil {
		state.Credential = v.credential.state()
	}
	return state
}

func (c *credential) state() *credentialState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &credentialState{
		Identity: c.request.Identity, Role: c.request.Role, Class: c.request.Volume.Class, Lasting: c.request.Lasting,
		ID: c.lease.ID.Reveal(), Login: c.lease.Login.Reveal(), Duration: c.lease.Duration, Renewable: c.lease.Renewable && !c.renewAt.IsZero(),
		Ends: c.ends,
	}
}

// Restore takes over the part of a Snapshot that has not ended, and returns the number of
// values; with an error it takes nothing. It must come before any other call. A value is
// given only to requests that would have got it from the process before; its time without a
// mount starts now.
func (k *Keeper) Restore(snapshot secret.Bytes) (values int, err error) {
	state, err := readState(snapshot)
	if err != nil {
		return 0, err
	}
	restored := make([]value, len(state.Values))
	for i, v := range state.Values {
		if restored[i], err = k.restored(v); err != nil {
			return 0, fmt.Errorf("value %d: %w", i, err)
		}
	}
	paths := make([]store.Resolved, len(state.Paths))
	for i, p := range state.Paths {
		path, err := store.ParsePath(p.Path)
		if err != nil {
			return 0, fmt.Errorf("path %d: %w", i, err)
		}
		paths[i] = store.Resolved{Path: path, Literal: p.Literal, Makes: true}
	}
	for i, v := range restored {
		if !k.expired(v, state.Values[i].At) {
			k.values.put(state.Values[i].entry(v))
			values++
		}
	}
	for i, r := range paths {
		k.paths.put(entry[key, store.Resolved]{state.Paths[i].Key.key(), state.Paths[i].Namespace, r, state.Paths[i].At})
	}
	return values, nil
}

// entry is the value with its key and namespace. Old snapshots have the namespace only of
// values with an end.
func (s *valueState) entry(v value) entry[key, value] {
	e := entry[key, value]{s.Key.key(), s.Namespace, v, s.At}
	switch {
	case e.namespace != "":
	case v.credential != nil:
		e.namespace = v.credential.request.Identity.Namespace
	case v.reader != nil:
		e.namespace = v.reader.pod.Namespace
	}
	return e
}

func readState(snapshot secret.Bytes) (state keeperState, err error) {
	decoder := json.NewDecoder(bytes.NewReader(snapshot.Reveal()))
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(&state); err != nil { // its text may quote a secret
		return keeperState{}, errors.New("the values are not of the form that this keymount writes")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return keeperState{}, errors.New("there is more behind the values")
	}
	return state, nil
}

// restored is a value with its life. Renewals are planned anew, so that nodes started
// together do not march in step.
func (k *Keeper) restored(state valueState) (v value, err error) {
	v = value{Value: &store.Value{About: state.About, Version: state.Version, NotAfter: state.NotAfter, Warnings: state.Warnings}, made: true, refresh: unknownLife}
	if v.Envelope, err = secret.NewTree(state.Envelope); err != nil {
		return value{}, err
	}
	if v.Data, err = secret.NewTree(state.Data); err != nil {
		return value{}, err
	}
	if state.Enveloped { // share the data with the envelope
		v.Data, v.Envelope = splitEnvelope(v.Envelope)
	}
	if r := state.Reader; r != nil {
		path, err := store.ParsePath(r.Path)
		if err != nil {
			return value{}, err
		}
		v.reader = &reader{r.Pod, r.Class, path}
	}
	switch c := state.Credential; {
	case c != nil:
		v.credential = c.credential(k.o.Replace)
		v.Lease = new(v.credential.current())
	case !v.NotAfter.IsZero():
		v.refresh = k.kept(v.NotAfter.Sub(state.At))
	}
	return v, nil
}

// splitEnvelope separates the data of an envelope from the rest; revealing the envelope joins
// them again.
func splitEnvelope(whole secret.Tree) (data, envelope secret.Tree) {
	data, _ = whole.Child("data")
	around, _ := whole.Reveal().(map[string]any) // decoded just now, so this function owns it
	delete(around, "data")
	return data, secret.NewMadeTree(whole.Held(), func() any {
		whole := maps.Clone(around)
		whole["data"] = data.Reveal()
		return whole
	})
}

func (s *credentialState) credential(replace time.Duration) *credential {
	lease := store.Lease{ID: secret.New(s.ID), Login: secret.New(s.Login), Duration: s.Duration, Renewable: s.Renewable}
	c := &credential{request: login.Request{
		Identity: s.Identity, Role: s.Role, Lasting: s.Lasting,
		Volume: auth.Volume{Namespace: s.Identity.Namespace, PodUID: s.Identity.PodUID, Class: s.Class},
	}}
	c.renewed(lease, s.Ends.Add(-s.Duration), replace)
	return c
}

// expired tells whether a credential or certificate has ended for certain: the clock may have
// been set back.
func (k *Keeper) expired(v value, at time.Time) bool {
	now := k.o.Now()
	switch {
	case v.credential != nil:
		ends, _ := k.ends(v.credential)
		return !now.Before(ends) && !now.Before(v.credential.since)
	case !v.NotAfter.IsZero():
		return !now.Before(v.NotAfter)
	}
	return now.Sub(at) >= v.refresh
}

// onAnswer reports an answer that changes the Snapshot.
func (k *Keeper) onAnswer(before, now value) {
	if before.made || now.made {
		k.changed()
	}
}

func (k *Keeper) changed() {
	if k.o.Changed != nil {
		k.o.Changed()
	}
}

// entry is a key with its value.
type entry[K comparable, V any] struct {
	key       K
	namespace string // empty if unknown until the first use
	value     V
	at        time.Time
}

// all lists the fitting entries, least recently used first.
func (m *memory[K, V]) all(fits func(V) bool) []entry[K, V] {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	var cells []*cell[K, V]
	for _, c := range m.cells {
		if c.known && fits(c.value) {
			cells = append(cells, c)
		}
	}
	slices.SortFunc(cells, func(a, b *cell[K, V]) int { return cmp.Compare(a.use, b.use) })
	entries := make([]entry[K, V], len(cells))
	for i, c := range cells {
		entries[i] = entry[K, V]{c.key, c.namespace, c.value, c.at}
	}
	return entries
}

// put stores a value read at a time.
func (m *memory[K, V]) put(e entry[K, V]) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	c := m.touchLocked(e.namespace, e.key)
	c.known, c.value, c.at, c.denial = true, e.value, e.at, denial{}
	m.cells[c.key] = c
	m.settleLocked(c)
}
