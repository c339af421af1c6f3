package login_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// Logins that something lives by are known to their end, and no more than 64 of them.
func TestFormerLoginsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		method := logins{life: 24 * time.Hour}
		s := login.NewSessions(&method, false, time.Now)
		for range 500 {
			given, err := s.OpenLasting(t.Context(), who(), secret.Bytes{}, "shop", 24*time.Hour-time.Second)
			if err != nil {
				t.Fatal(err)
			}
			s.DelayRevocation(who(), "shop", given.Token, given.Expires)
			time.Sleep(2 * time.Second)
		}
		snapshot, err := s.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		var sessions []struct{ Logins []json.RawMessage }
		if err := json.Unmarshal(snapshot.Reveal(), &sessions); err != nil {
			t.Fatal(err)
		}
		if n := len(sessions[0].Logins); method.asked() != 500 || n != 65 {
			t.Errorf("of %d logins %d are known, want 64 and the one in use", method.asked(), n)
		}
	})
}

// A class chooses the role's name, and a session keeps it.
func TestLongRolesAreRefused(t *testing.T) {
	method := logins{life: time.Hour}
	s := login.NewSessions(&method, false, time.Now)
	_, err := s.Open(t.Context(), who(), secret.Bytes{}, strings.Repeat("r", 1025))
	if !errors.Is(err, store.Invalid) || method.asked() != 0 {
		t.Errorf("%d logins: %v", method.asked(), err)
	}
	if _, err := s.Open(t.Context(), who(), secret.Bytes{}, strings.Repeat("r", 1024)); err != nil {
		t.Error(err)
	}
}
