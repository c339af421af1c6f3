package store

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
)

// Stateful is what can outlive the process, such as a [Kept].
type Stateful interface {
	// Snapshot is what the next process needs, for Restore. Secrets are in the open in
	// it.
	Snapshot() (secret.Bytes, error)
	// Restore takes over what a Snapshot holds that has not ended, and returns how much
	// it is; with an error it takes nothing. It comes before anything else is done.
	Restore(snapshot secret.Bytes) (int, error)
}

// keeperState is what was made: read again it would be another thing. What can be read
// again is not in it, and neither are denials. The paths are those that make something,
// so that an outage at the start keeps nobody from what is here.
type keeperState struct {
	Values []valueState // the one that was used last comes last
	Paths  []pathState
}

type valueState struct {
	Key        keyState
	At         time.Time
	Data       any
	Envelope   any
	Enveloped  bool // the data is that of the envelope
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
	At            time.Time
	Path, Literal string
}

type keyState struct{ Volume, What sum }

func (k keyState) key() key { return key{k.Volume, k.What} }

// MarshalText writes hexadecimal digits.
func (s sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads what MarshalText writes.
func (s *sum) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(s)) {
		return errors.New("not the digits of a SHA-256")
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// Snapshot implements [Stateful].
func (k *Keeper) Snapshot() (secret.Bytes, error) {
	var state keeperState
	for _, e := range k.values.all(func(v Value) bool { return v.made }) {
		state.Values = append(state.Values, e.value.state(e.key, e.at))
	}
	for _, e := range k.paths.all(func(r Resolved) bool { return r.Makes }) {
		state.Paths = append(state.Paths, pathState{keyState{e.key.volume, e.key.what}, e.at, e.value.Path.String(), e.value.Literal})
	}
	text, err := json.Marshal(state)
	if err != nil { // which may quote what could not be written
		return secret.Bytes{}, errors.New("the values cannot be written as JSON")
	}
	return secret.New(text), nil
}

// state is the value as JSON has it: the texts of all stores are Unicode, and numbers
// stay as they were written.
func (v Value) state(key key, at time.Time) valueState {
	state := valueState{
		Key: keyState{key.volume, key.what}, At: at, Data: v.Data.Reveal(), Envelope: v.Envelope.Reveal(), Version: v.Version, NotAfter: v.NotAfter, Warnings: v.Warnings,
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
		Identity: c.session.Identity, Role: c.session.Role, Class: c.session.Class, Lasting: c.session.Lasting,
		ID: c.lease.ID.Reveal(), Login: c.lease.Login.Reveal(), Duration: c.lease.Duration, Renewable: c.lease.Renewable && !c.renewAt.IsZero(),
		Ends: c.ends,
	}
}

// Restore implements [Stateful]. Nobody gets a value of it but who would have got it
// from the process that made it; the time without a mount begins now.
func (k *Keeper) Restore(snapshot secret.Bytes) (values int, err error) {
	state, err := readState(snapshot)
	if err != nil {
		return 0, err
	}
	restored := make([]Value, len(state.Values))
	for i, v := range state.Values {
		if restored[i], err = k.restored(v); err != nil {
			return 0, fmt.Errorf("value %d: %w", i, err)
		}
	}
	paths := make([]Resolved, len(state.Paths))
	for i, p := range state.Paths {
		path, err := ParsePath(p.Path)
		if err != nil {
			return 0, fmt.Errorf("path %d: %w", i, err)
		}
		paths[i] = Resolved{Path: path, Literal: p.Literal, Makes: true}
	}
	for i, v := range restored {
		if !k.over(v, state.Values[i].At) {
			k.values.put(state.Values[i].Key.key(), v, state.Values[i].At)
			values++
		}
	}
	for i, r := range paths {
		k.paths.put(state.Paths[i].Key.key(), r, state.Paths[i].At)
	}
	return values, nil
}

func readState(snapshot secret.Bytes) (state keeperState, err error) {
	decoder := json.NewDecoder(bytes.NewReader(snapshot.Reveal()))
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(&state); err != nil { // which may quote a secret
		return keeperState{}, errors.New("the values are not of the form that this keymount writes")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return keeperState{}, errors.New("there is more behind the values")
	}
	return state, nil
}

// restored is a value with its life. Renewals are planned anew, so that nodes that start
// together do not march in step.
func (k *Keeper) restored(state valueState) (v Value, err error) {
	v = Value{Version: state.Version, NotAfter: state.NotAfter, Warnings: state.Warnings, made: true, refresh: unknownLife}
	if v.Envelope, err = secret.NewTree(state.Envelope); err != nil {
		return Value{}, err
	}
	if v.Data, err = secret.NewTree(state.Data); err != nil {
		return Value{}, err
	}
	if state.Enveloped { // which holds it once
		v.Data, v.Envelope = apart(v.Envelope)
	}
	if r := state.Reader; r != nil {
		path, err := ParsePath(r.Path)
		if err != nil {
			return Value{}, err
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

// apart takes the data out of an envelope, which is put together when somebody looks.
func apart(whole secret.Tree) (data, envelope secret.Tree) {
	data, _ = whole.Child("data")
	around, _ := whole.Reveal().(map[string]any) // decoded just now, and nobody else's
	delete(around, "data")
	return data, secret.NewMadeTree(whole.Held(), func() any {
		whole := maps.Clone(around)
		whole["data"] = data.Reveal()
		return whole
	})
}

func (s *credentialState) credential(replace time.Duration) *credential {
	lease := Lease{ID: secret.New(s.ID), Login: secret.New(s.Login), Duration: s.Duration, Renewable: s.Renewable}
	c := &credential{session: Session{Identity: s.Identity, Role: s.Role, Class: s.Class, Lasting: s.Lasting}}
	c.renewed(lease, s.Ends.Add(-s.Duration), replace)
	return c
}

// over tells whether something that was made has ended, as far as that can be told: the
// clock may have been set back.
func (k *Keeper) over(v Value, at time.Time) bool {
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

// landed says that an answer has changed what a Snapshot holds.
func (k *Keeper) landed(before, now Value) {
	if before.made || now.made {
		k.changed()
	}
}

func (k *Keeper) changed() {
	if k.o.Changed != nil {
		k.o.Changed()
	}
}

// entry is what is known of one question.
type entry[K comparable, V any] struct {
	key   K
	value V
	at    time.Time
}

// all is what is known and fits, the least recently used first.
func (m *memory[K, V]) all(fits func(V) bool) (entries []entry[K, V]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := m.order.Back(); e != nil; e = e.Prev() {
		if c, _ := e.Value.(*cell[K, V]); c.known && fits(c.value) {
			entries = append(entries, entry[K, V]{c.key, c.value, c.at})
		}
	}
	return entries
}

// put makes something known as it was at some time.
func (m *memory[K, V]) put(key K, value V, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.touchLocked(key)
	c.known, c.value, c.at = true, value, at
	m.weighLocked(c)
}
