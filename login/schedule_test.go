package login_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// With any events in any order, no identity gets the login of another, and no login is used
// after its end.
func TestNobodyGetsAnothersLogin(t *testing.T) {
	for seed := range uint64(4) {
		for _, perPod := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d, per pod %t", seed, perPod), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testRandomSchedule(t, seed, perPod) })
			})
		}
	}
}

// wild is a store that is slow, refuses and fails at random. A token names its owner.
type wild struct {
	*tokens
	perPod bool
	random func(n int) int
}

func (w wild) owner(i auth.Identity, role string) string {
	if !w.perPod {
		i.PodName, i.PodUID = "", ""
	}
	i.PodName, i.Expires = "", time.Time{}
	return fmt.Sprintf("%q %q", role, i)
}

func (w wild) Login(_ context.Context, i auth.Identity, _ secret.Bytes, role string) (login.Login, error) {
	time.Sleep(time.Duration(w.random(30)) * time.Second)
	switch w.random(6) {
	case 0:
		return login.Login{}, store.Denied.Errorf("refused: %s", w.owner(i, role))
	case 1:
		return login.Login{}, errors.New("no answer: " + w.owner(i, role))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logins++
	token := fmt.Sprintf("%s, %d", w.owner(i, role), w.logins)
	w.issued[token] = lifetime{born: time.Now()}
	given := w.prolong(token)
	given.Renewable = w.random(3) > 0
	return given, nil
}

func (w wild) Renew(ctx context.Context, i auth.Identity, given login.Login) (login.Login, error) {
	time.Sleep(time.Duration(w.random(20)) * time.Second)
	switch w.random(8) {
	case 0:
		return login.Login{}, store.Ended.Errorf("refused")
	case 1:
		return login.Login{}, errors.New("no answer")
	}
	return w.tokens.Renew(ctx, i, given)
}

func testRandomSchedule(t *testing.T, seed uint64, perPod bool) {
	t.Helper()
	var mu sync.Mutex
	source := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it is repeatable
	random := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return source.IntN(n)
	}
	v := newTokens(4*time.Minute, 15*time.Minute)
	w := wild{v, perPod, random}
	s := login.NewSessions(w, perPod, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var tending, pods sync.WaitGroup
	tending.Go(func() { _ = s.Run(ctx) })
	pick := func() (auth.Identity, string) {
		i := until(time.Now().Add(time.Duration(random(30)) * time.Minute))
		for _, part := range []*string{&i.Issuer, &i.Audience, &i.Namespace, &i.ServiceAccount, &i.ServiceAccountUID, &i.PodUID} {
			*part = []string{"a", "b"}[random(8)/7]
		}
		return i, []string{"a", "b"}[random(2)]
	}
	for range 10 {
		pods.Go(func() {
			for range 100 {
				time.Sleep(time.Duration(random(90)) * time.Second)
				i, role := pick()
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random(60))*time.Second)
				given, err := s.Open(ctx, i, secret.Bytes{}, role)
				cancel()
				if err != nil {
					if ctx.Err() == nil && !strings.HasSuffix(err.Error(), w.owner(i, role)) {
						t.Errorf("%s was told %v", w.owner(i, role), err)
					}
					continue
				}
				if token := string(given.Token.Reveal()); !strings.HasPrefix(token, w.owner(i, role)+",") {
					t.Errorf("%s got %s", w.owner(i, role), token)
				}
				v.use(t, given)
				other, otherRole := pick()
				if _, known := s.Find(other, otherRole, given.Token); known && w.owner(other, otherRole) != w.owner(i, role) {
					t.Errorf("%s knows the login of %s", w.owner(other, otherRole), w.owner(i, role))
				}
				switch random(6) {
				case 0:
					s.Forget(i, role, given, random(2) == 0)
				case 1:
					s.Forget(other, otherRole, given, true)
				case 2:
					s.Vouch(other, otherRole)
				case 3:
					s.DelayRevocation(i, role, given.Token, time.Now().Add(time.Hour))
				}
			}
		})
	}
	pods.Wait()
	cancel()
	tending.Wait()
	time.Sleep(time.Minute) // logins that nobody waits for any more
}
