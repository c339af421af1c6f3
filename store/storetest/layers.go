package storetest

import (
	"time"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// LayersOf are the layers of a fake: the abilities of its type, and its logins, nil for
// none.
func LayersOf(s store.Store, method login.Method) kind.Layers {
	layers := kind.Layers{Store: s, Login: method}
	layers.Resolver, _ = s.(store.Resolver)
	layers.Leaser, _ = s.(store.Leaser)
	return layers
}

// LoggedIn logs in to a store with shared logins; the Sessions are nil without a Login in
// layers. Its Recaller is left out.
func LoggedIn(layers kind.Layers) (login.Store, *login.Sessions) {
	var sessions *login.Sessions
	if layers.Login != nil {
		sessions = login.NewSessions(layers.Login, false, time.Now)
	}
	return login.Open(login.Options{Store: layers.Store, Resolver: layers.Resolver, Leaser: layers.Leaser, Sessions: sessions, Now: time.Now}), sessions
}
