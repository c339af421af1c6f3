package login

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
)

// sessionState is a session for the next process. It leaves out refusals and pauses: the next
// process meets them again.
type sessionState struct {
	Identity auth.Identity
	Role     string
	Vouched  time.Time
	Left     bool
	Logins   []loginState
}

// loginState is a liveLogin for the next process. Its instants are of the wall clock, the
// only clock that two processes share.
type loginState struct {
	Former      bool // kept only for its leases
	Token       []byte
	Expires     time.Time
	Renewable   bool
	Made, Since time.Time
	Life, Full  time.Duration
	Needed      time.Time
}

// Snapshot is the state for Restore in the next process, with tokens in plain text.
func (s *Sessions) Snapshot() (secret.Bytes, error) {
	text, err := json.Marshal(s.states())
	if err != nil { // its text may quote a token
		return secret.Bytes{}, errors.New("the logins cannot be written as JSON")
	}
	return secret.New(text), nil
}

// states lists the sessions, least recently used first.
func (s *Sessions) states() []sessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]sessionKey, 0, len(s.sessions))
	for key := range s.sessions {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b sessionKey) int { return cmp.Compare(s.sessions[a].useNumber, s.sessions[b].useNumber) })
	states := make([]sessionState, 0, len(keys))
	for _, key := range keys {
		if state := s.sessions[key].state(key.Role); len(state.Logins) > 0 {
			states = append(states, state)
		}
	}
	return states
}

func (s *session) state(role string) sessionState {
	state := sessionState{Identity: s.identity, Role: role, Vouched: s.vouchedUntil, Left: s.podGone}
	for _, h := range s.former {
		state.Logins = append(state.Logins, h.state(true))
	}
	if s.current != nil {
		state.Logins = append(state.Logins, s.current.state(false))
	}
	return state
}

func (h *liveLogin) state(former bool) loginState {
	return loginState{
		Former: former, Token: h.Token.Reveal(), Expires: h.Expires, Renewable: h.Renewable,
		Made: h.made, Since: h.since, Life: h.life, Full: h.full, Needed: h.neededUntil,
	}
}

// Restore takes over the logins of a Snapshot that have not ended, and returns their number;
// with an error it takes none. It must come before any other call. As ever, a login is given
// only for a verified Identity; its time without a use starts now.
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
	if err := decoder.Decode(&states); err != nil { // its text may quote a secret
		return nil, errors.New("the logins are not of the form that this keymount writes")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the logins")
	}
	return states, nil
}

// restoreLocked makes a session of the remaining logins, if there are any.
func (s *Sessions) restoreLocked(state sessionState) (logins int) {
	now := s.now()
	for _, login := range state.Logins {
		h := login.restored(s.Spare)
		if h.expired(now) || login.Former && !now.Before(h.neededUntil) { // no lease depends on it
			continue
		}
		one := s.touchLocked(s.key(state.Identity, state.Role), state.Identity)
		one.vouchedUntil, one.podGone, one.current = state.Vouched, state.Left, h
		if login.Former {
			one.retire(now)
		}
		logins++
	}
	return logins
}

// restored is a login with its life. Its next renewal is planned anew, so that nodes started
// together do not march in step.
func (l loginState) restored(spare time.Duration) *liveLogin {
	h := &liveLogin{
		Login: Login{Token: secret.New(l.Token), Expires: l.Expires, Renewable: l.Renewable},
		made:  l.Made, since: l.Since, life: l.Life, full: l.Full, neededUntil: l.Needed,
	}
	h.plan(spare)
	return h
}
