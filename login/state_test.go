package login_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
)

// restarted is the successor of n, which has ended, on the same node.
func (n *node) restarted(t *testing.T, perPod bool, down time.Duration) (next *node, logins int) {
	t.Helper()
	n.stop()
	snapshot := snapshotOf(t, n.Sessions)
	time.Sleep(down)
	next = startNodeOf(t, n.tokens, perPod)
	logins, err := next.Restore(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	return next, logins
}

func snapshotOf(t *testing.T, s *login.Sessions) secret.Bytes {
	t.Helper()
	snapshot, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// A day in which keymount is started anew every half hour has one login, which is
// renewed as in any other day.
func TestRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 24*time.Hour))
		begin := time.Now()
		for time.Since(begin) < 23*time.Hour {
			n.day(t, 30*time.Minute, func(i auth.Identity) { n.open(t, i) })
			n, _ = n.restarted(t, false, 10*time.Second)
		}
		// A restart may cut a renewal short, which is then tried again.
		if got := n.count(); got.logins != 1 || got.renewals < 30 || got.renewals > 42 || got.tries > got.renewals+2 || got.revoked != 0 {
			t.Errorf("in a day %+v", got)
		}
	})
}

// A renewal with a shorter life than before is the last, even if another process had the life
// before.
func TestRestartAndLastRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTokens(time.Hour, 90*time.Minute)
		v.spare = 10 * time.Minute
		n := startNode(t, v)
		n.day(t, 20*time.Minute, func(i auth.Identity) { n.open(t, i) })
		n, _ = n.restarted(t, false, 0)
		n.day(t, 60*time.Minute-time.Second, func(i auth.Identity) { n.open(t, i) })
		n.expect(t, 1, 1, 0)
		n.open(t, until(time.Now().Add(podToken)))
		n.expect(t, 2, 1, 0)
	})
}

// The token that vouched before counts after, until its end.
func TestRestartAndNoFreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for vouched, renewals := range map[time.Duration]int{50 * time.Minute: 1, 20 * time.Minute: 0} {
			n := startNode(t, newTokens(time.Hour, 0))
			n.open(t, until(time.Now().Add(vouched)))
			for minute := range 49 {
				if minute == 9 {
					n, _ = n.restarted(t, false, 0)
				}
				n.Vouch(who(), "shop") // whose own token has ended
				time.Sleep(time.Minute)
			}
			n.expect(t, 1, renewals, 0)
			n.stop()
		}
	})
}

// Ten minutes without a mount begin with the start, because no pod could mount before it. A
// login with a dependent lease is kept as long.
func TestRestartAndNobodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(2*time.Hour, 0))
		idle, held := until(time.Now().Add(24*time.Hour)), until(time.Now().Add(24*time.Hour))
		held.ServiceAccount = "held"
		n.open(t, idle)
		n.DelayRevocation(held, "shop", n.open(t, held).Token, time.Now().Add(time.Hour))
		time.Sleep(9 * time.Minute)
		n, logins := n.restarted(t, false, 5*time.Minute)
		if logins != 2 {
			t.Errorf("%d logins are taken over, want 2", logins)
		}
		time.Sleep(9*time.Minute + 50*time.Second)
		n.expect(t, 2, 0, 0)
		time.Sleep(20 * time.Second)
		n.expect(t, 2, 0, 1)
		time.Sleep(30 * time.Minute)
		n.expect(t, 2, 0, 1)
		time.Sleep(10 * time.Minute)
		n.expect(t, 2, 0, 2)
	})
}

// A login that has ended meanwhile is not taken over.
func TestRestartAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 0))
		n.open(t, who())
		n, logins := n.restarted(t, false, time.Hour)
		if n.open(t, who()); logins != 0 {
			t.Errorf("%d logins are taken over, want none", logins)
		}
		n.expect(t, 2, 0, 0)
	})
}

// A clock that is wrong when the state is written, or set back when it is read, ends
// nothing.
func TestRestartWithAWrongClock(t *testing.T) {
	for name, wrong := range map[string]struct{ writing, reading time.Duration }{
		"at the end": {48 * time.Hour, 0}, "at the start": {0, -time.Hour},
	} {
		now := time.Now()
		node := func() *login.Sessions {
			return login.NewSessions(newTokens(24*time.Hour, 0), false, func() time.Time { return now })
		}
		s := node()
		if _, err := s.Open(t.Context(), who(), secret.Bytes{}, "shop"); err != nil {
			t.Fatal(err)
		}
		right := now
		now = right.Add(wrong.writing)
		snapshot := snapshotOf(t, s)
		now = right.Add(wrong.reading)
		if logins, err := node().Restore(snapshot); logins != 1 || err != nil {
			t.Errorf("%s: %d logins are taken over, %v", name, logins, err)
		}
	}
}

// After a restart a login belongs to the same identity and role, and to no other.
func TestRestartSharesNothing(t *testing.T) {
	for name, change := range map[string]func(*auth.Identity){
		"another service account":     func(i *auth.Identity) { i.ServiceAccount = "web" },
		"a service account made anew": func(i *auth.Identity) { i.ServiceAccountUID = "uid-2" },
		"another namespace":           func(i *auth.Identity) { i.Namespace = "blog" },
		"another issuer":              func(i *auth.Identity) { i.Issuer = "https://other.invalid" },
		"another audience":            func(i *auth.Identity) { i.Audience = "other" },
		"another pod":                 func(i *auth.Identity) { i.PodUID = "pod-2" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := startNodeOf(t, newTokens(time.Hour, 0), true)
				given := n.open(t, who())
				n, _ = n.restarted(t, true, 0)
				other := who()
				change(&other)
				if n.open(t, who()); n.count().logins != 1 {
					t.Error("the same pod has another login")
				}
				for role, i := range map[string]auth.Identity{"shop": other, "admin": who()} {
					got, err := n.Open(t.Context(), i, secret.Bytes{}, role)
					if _, known := n.Find(i, role, given.Token); err != nil || known || string(got.Token.Reveal()) == string(given.Token.Reveal()) {
						t.Errorf("as %s it is the same login, or known (%t): %v", role, known, err)
					}
				}
			})
		})
	}
}

// A pod that was gone before is gone after.
func TestRestartAfterAPodHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNodeOf(t, newTokens(time.Hour, 0), true)
		n.open(t, until(time.Now().Add(time.Hour)))
		n.Left(who().Namespace, who().PodUID)
		n, _ = n.restarted(t, true, 0)
		time.Sleep(10 * time.Second)
		n.expect(t, 1, 0, 1)
	})
}

// A former login is known as long as a lease depends on it, and is never given out.
func TestRestartWithAFormerLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 0))
		former := n.open(t, who())
		n.DelayRevocation(who(), "shop", former.Token, time.Now().Add(30*time.Minute))
		time.Sleep(2 * time.Minute)
		n.Forget(who(), "shop", former, false)
		n.open(t, who())
		n, logins := n.restarted(t, false, 0)
		if found, known := n.Find(who(), "shop", former.Token); logins != 2 || !known || found.Renewable || !found.Expires.Equal(former.Expires) {
			t.Errorf("%d logins; the former one is known (%t), as %+v", logins, known, found)
		}
		if given := n.open(t, who()); string(given.Token.Reveal()) == string(former.Token.Reveal()) {
			t.Error("the former login is given out")
		}
		n.day(t, 29*time.Minute, func(i auth.Identity) { n.Vouch(i, "shop") })
		n, _ = n.restarted(t, false, 0)
		if _, known := n.Find(who(), "shop", former.Token); known {
			t.Error("the former login is kept though nothing lives by it")
		}
	})
}

// Changed is called when a snapshot would differ, and not at every mount.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(t, newTokens(time.Hour, 0))
		told := make(chan struct{}, 100)
		n.Changed = func() { told <- struct{}{} }
		i := until(time.Now().Add(10 * time.Hour))
		expect := func(what string, want int) {
			t.Helper()
			if got := len(told); got != want {
				t.Errorf("%s: told %d times, want %d", what, got, want)
			}
			for range len(told) {
				<-told
			}
		}
		given := n.open(t, i)
		expect("a login", 1)
		n.open(t, i)
		n.Vouch(i, "shop")
		expect("mounts", 0)
		for n.count().renewals == 0 {
			time.Sleep(time.Minute)
			n.Vouch(i, "shop")
		}
		expect("a renewal", 1)
		n.Forget(i, "shop", given, true)
		expect("a login that is dropped", 1)
		n.open(t, i)
		expect("the next one", 1)
		time.Sleep(11 * time.Minute)
		expect("a login that is given back", 1)
	})
}

// Restore refuses other input than a snapshot, without quoting it, and changes nothing.
func TestRestoreOfSomethingElse(t *testing.T) {
	v := newTokens(time.Hour, 0)
	good := login.NewSessions(v, false, time.Now)
	if _, err := good.Open(t.Context(), who(), secret.Bytes{}, "shop"); err != nil {
		t.Fatal(err)
	}
	text := string(snapshotOf(t, good).Reveal())
	for name, bad := range map[string]string{
		"empty": "", "cut off": text[:len(text)-9], "twice": text + text, "another field": strings.Replace(text, `"Token"`, `"Tokens"`, 1),
		"a number": strings.Replace(text, `"Token":"`, `"Token":1,"Token":"`, 1), "an object": `{"shop":"canary"}`, "a time": strings.Replace(text, `"Since":"2`, `"Since":"canary2`, 1),
	} {
		s := login.NewSessions(v, false, time.Now)
		logins, err := s.Restore(secret.New([]byte(bad)))
		if err == nil || logins != 0 || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "shop") {
			t.Errorf("%s: %d logins, %v", name, logins, err)
		}
		if _, known := s.Find(who(), "shop", secret.New([]byte("shop/api uid-1 as shop, 1"))); known {
			t.Errorf("%s: a login is taken over", name)
		}
	}
}

func FuzzRestore(f *testing.F) {
	s := login.NewSessions(newTokens(time.Hour, 0), false, time.Now)
	for n := range 3 {
		i := who()
		i.ServiceAccount = fmt.Sprint(n)
		given, err := s.Open(f.Context(), i, secret.Bytes{}, "shop")
		if err != nil {
			f.Fatal(err)
		}
		s.DelayRevocation(i, "shop", given.Token, time.Now().Add(time.Hour))
		snapshot, err := s.Snapshot()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(snapshot.Reveal())
	}
	f.Add([]byte(`[{"Role":"","Logins":[{"Former":true,"Token":"","Life":-1,"Full":9223372036854775807},{"Life":9223372036854775807}]}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		now := time.Now()
		read := func(text secret.Bytes) (*login.Sessions, int, error) {
			s := login.NewSessions(newTokens(time.Hour, 0), true, func() time.Time { return now })
			s.Spare = time.Minute
			logins, err := s.Restore(text)
			return s, logins, err
		}
		first, logins, err := read(secret.New(bytes.Clone(text)))
		if err != nil {
			if logins != 0 {
				t.Errorf("%d logins and %v", logins, err)
			}
			return
		}
		snapshot, err := first.Snapshot()
		if err != nil {
			return // a year that JSON has no words for
		}
		second, _, err := read(snapshot)
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, snapshot.Reveal())
		}
		again, err := second.Snapshot()
		if diff := cmp.Diff(string(snapshot.Reveal()), string(again.Reveal())); err != nil || diff != "" {
			t.Errorf("read and written again (-first +second): %v\n%s", err, diff)
		}
	})
}
