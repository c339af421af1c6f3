package auth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/keymount/keymount/internal/secret"
)

// sessionState is a session as the next process gets it. Refusals and pauses are not
// in it: they are found out again.
type sessionState struct {
	Identity Identity
	Role     string
	Vouched  time.Time
	Left     bool
	Logins   []loginState
}

// loginState is a login with its life, see held. Its instants are those of the clock
// on the wall, the only one that two processes share.
type loginState struct {
	Former      bool // nothing is made with it any more
	Token       []byte
	Expires     time.Time
	Renewable   bool
	Made, Since time.Time
	Life, Full  time.Duration
	Needed      time.Time
}

// Snapshot is all logins, for Restore. They are in the open in it.
func (s *Sessions) Snapshot() (secret.Bytes, error) {
	text, err := json.Marshal(s.states())
	if err != nil { // which may quote what could not be written
		return secret.Bytes{}, errors.New("the logins cannot be written as JSON")
	}
	return secret.New(text), nil
}

// states begins with the session that was asked for longest ago.
func (s *Sessions) states() []sessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]sessionKey, 0, len(s.sessions))
	for key := range s.sessions {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b sessionKey) int { return cmp.Compare(s.sessions[a].turn, s.sessions[b].turn) })
	states := make([]sessionState, 0, len(keys))
	for _, key := range keys {
		if state := s.sessions[key].state(key.Role); len(state.Logins) > 0 {
			states = append(states, state)
		}
	}
	return states
}

func (s *session) state(role string) sessionState {
	state := sessionState{Identity: s.identity, Role: role, Vouched: s.vouched, Left: s.left}
	for _, h := range s.former {
		state.Logins = append(state.Logins, h.state(true))
	}
	if s.held != nil {
		state.Logins = append(state.Logins, s.held.state(false))
	}
	return state
}

func (h *held) state(former bool) loginState {
	return loginState{
		Former: former, Token: h.Token.Reveal(), Expires: h.Expires, Renewable: h.Renewable,
		Made: h.made, Since: h.since, Life: h.life, Full: h.full, Needed: h.needed,
	}
}

// Restore takes over the logins of a Snapshot that have not ended, and returns how many
// there are; with an error it takes none. It comes before anything else is done. Nobody
// gets such a login but with an Identity, as ever; the time without anybody asking for
// it begins now.
func (s *Sessions) Restore(snapshot secret.Bytes) (logins int, err error) {
	states, err := readStates(snapshot)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range states {
		logins += s.restoreLocked(state)
	}
	return logins, nil
}

func readStates(snapshot secret.Bytes) (states []sessionState, err error) {
	decoder := json.NewDecoder(bytes.NewReader(snapshot.Reveal()))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&states); err != nil { // which may quote a secret
		return nil, errors.New("the logins are not of the form that this keymount writes")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the logins")
	}
	return states, nil
}

// restoreLocked makes a session of what is left of one, if anything is.
func (s *Sessions) restoreLocked(state sessionState) (logins int) {
	now := s.now()
	for _, login := range state.Logins {
		h := login.held(s.Spare)
		if h.over(now) || login.Former && !now.Before(h.needed) { // nothing lives by it
			continue
		}
		one := s.touchLocked(s.key(state.Identity, state.Role), state.Identity)
		one.vouched, one.left, one.held = state.Vouched, state.Left, h
		if login.Former {
			one.retire(now)
		}
		logins++
	}
	return logins
}

// held plans the next renewal anew, so that nodes that start together do not march in
// step.
func (l loginState) held(spare time.Duration) *held {
	h := &held{
		Login: Login{Token: secret.New(l.Token), Expires: l.Expires, Renewable: l.Renewable},
		made:  l.Made, since: l.Since, life: l.Life, full: l.Full, needed: l.Needed,
	}
	h.plan(spare)
	return h
}
