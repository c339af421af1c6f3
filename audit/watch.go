package audit

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// Watch puts the logins and leases of a store into the trail. These records wait for no
// sink: what a pod gets has the record of its mount.
func (t *Trail) Watch(name string, layers kind.Layers) kind.Layers {
	if t == nil {
		return layers
	}
	if layers.Login != nil {
		method := watchedMethod{layers.Login, name, t}
		layers.Login = method
		if renewer, ok := method.Method.(login.Renewer); ok {
			layers.Login = watchedRenewer{method, renewer}
		}
	}
	if layers.Leaser != nil {
		layers.Store = watchedStore{layers.Store, name, t}
		layers.Leaser = watchedLeaser{layers.Leaser, name, t}
	}
	return layers
}

type watchedMethod struct {
	login.Method
	store string
	trail *Trail
}

type watchedRenewer struct {
	watchedMethod
	login.Renewer
}

// Login implements [login.Method].
func (w watchedMethod) Login(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (login.Login, error) {
	made, err := w.Method.Login(ctx, identity, token, role)
	if err != nil && !store.Answered(err) {
		return made, err // nobody was asked, or nobody answered: the record of the mount says so
	}
	r := Record{Kind: KindLogin, Login: &Login{Store: w.store, Role: cut(role, maxText)}, Outcome: Granted}
	if err != nil {
		r.Outcome, r.Error = outcomeOfError(err), cut(err.Error(), maxText)
	}
	w.trail.putFor(r, identity, w.store)
	return made, err
}

// putFor puts a record into the trail whose owner is an identity.
func (t *Trail) putFor(r Record, identity auth.Identity, name string) {
	r.Pod = &Pod{Namespace: cut(identity.Namespace, maxID), Name: cut(identity.PodName, maxID), UID: cut(identity.PodUID, maxID)}
	r.ServiceAccount = &ServiceAccount{Name: cut(identity.ServiceAccount, maxID), UID: cut(identity.ServiceAccountUID, maxID)}
	r.Tokens = []Token{{Audience: cut(identity.Audience, maxID), ID: cut(identity.TokenID, maxID), Stores: []string{name}}}
	_ = t.put(r) // what is not written is counted
}

type watchedStore struct {
	store.Store
	name  string
	trail *Trail
}

// Read implements [store.Store]: a value with a lease is a credential that was made.
func (w watchedStore) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	value, err := w.Store.Read(ctx, caller, ref)
	if err == nil && value.Lease != nil {
		made := w.trail.lease("issued", w.name, caller.Role, *value.Lease)
		made.Path, made.Request = ref.Path.String(), cut(value.RequestID, maxID)
		made.Before = w.trail.replaced(caller.Identity, made)
		w.trail.putFor(Record{Kind: KindLease, Lease: made, Outcome: Granted}, caller.Identity, w.name)
	}
	return value, err
}

type watchedLeaser struct {
	store.Leaser
	name  string
	trail *Trail
}

// Renew implements [store.Leaser].
func (w watchedLeaser) Renew(ctx context.Context, caller store.Caller, lease store.Lease) (store.Lease, error) {
	renewed, err := w.Leaser.Renew(ctx, caller, lease)
	change := w.trail.lease("renewed", w.name, caller.Role, lease)
	if err == nil {
		change.Seconds = int64(renewed.Duration / time.Second)
	}
	w.trail.putChange(caller, change, lease.ID, err)
	return renewed, err
}

// Revoke implements [store.Leaser].
func (w watchedLeaser) Revoke(ctx context.Context, caller store.Caller, lease store.Lease) error {
	err := w.Leaser.Revoke(ctx, caller, lease)
	change := w.trail.lease("revoked", w.name, caller.Role, lease)
	change.Seconds = 0
	w.trail.putChange(caller, change, lease.ID, err)
	return err
}

func (t *Trail) putChange(caller store.Caller, change *Lease, id secret.Bytes, err error) {
	r := Record{Kind: KindLease, Lease: change, Outcome: Granted}
	if err != nil { // which may echo the id: it could end the lease
		r.Outcome, r.Error = outcomeOfError(err), cut(strings.ReplaceAll(err.Error(), string(id.Reveal()), "[hidden]"), maxText)
	}
	t.putFor(r, caller.Identity, change.Store)
}

// lease describes a lease by a name that says nothing about its id.
func (t *Trail) lease(change, name, role string, lease store.Lease) *Lease {
	mac := hmac.New(sha256.New, t.o.Key.Reveal())
	_, _ = fmt.Fprintf(mac, "audit lease\x00%s\x00", name)
	_, _ = mac.Write(lease.ID.Reveal())
	return &Lease{
		Change: change, Store: name, Role: cut(role, maxText), Seconds: int64(lease.Duration / time.Second),
		Name: base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:leaseName]),
	}
}

// leaseName is how many bytes of a hash tell the leases of a trail apart.
const leaseName = 12

// holder is a pod with the path that a credential was made for.
type holder struct{ account, pod, store, role, path string }

// replaced is the credential that a pod was given before for the same path; empty for none.
func (t *Trail) replaced(identity auth.Identity, made *Lease) string {
	key := holder{identity.ServiceAccountUID, identity.PodUID, made.Store, made.Role, made.Path}
	t.mu.Lock()
	defer t.mu.Unlock()
	before, _ := t.leases.Get(key)
	t.leases.Add(key, made.Name, 0)
	return before
}

func randomKey() secret.Bytes {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return secret.New(key)
}
