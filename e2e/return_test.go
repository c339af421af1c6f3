package e2e_test

import (
	"slices"
	"testing"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider/providertest"
)

// Of two pods with a credential of an hour one leaves, and its user goes within seconds.
// A policy that allows to give back the leases of one role alone does just that.
func leaseOfAVolumeThatLeft(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	s := newStack(t, e.Server, issuer)
	users := map[string][]string{} // by role
	for _, role := range []string{"left", "held"} {
		e.role(t, role, 6*leaseLife)
		for _, pod := range pods(2) {
			user, err := s.read(t, pod, "database/creds/"+role, "", "username")
			if err != nil {
				t.Fatal(err)
			}
			users[role] = append(users[role], user)
		}
	}
	s.kept.Leave(auth.Volume{Namespace: shopAPI.Namespace, PodUID: pods(2)[0].UID, Class: "app"})
	until(t, func() bool { return s.proxy.count("sys/leases/revoke") == 2 && len(e.users(t, "left")) == 1 })
	if got := e.users(t, "left"); !slices.Equal(got, users["left"][1:]) {
		t.Errorf("there are %q, want the user of the pod that stays, %q", got, users["left"][1:])
	}
	if got := e.users(t, "held"); len(got) != len(users["held"]) {
		t.Errorf("there are %q: a lease was given back that the policy does not name", got)
	}
}
