package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
)

// The longest texts of a record, in bytes: with all of them it still fits a line.
const (
	maxText = 1024 // of messages, roles and paths
	maxID   = 253  // of versions and the names that stores and clusters give
)

const (
	// maxRefused is how many secrets of a mount that failed are recorded: a class that is
	// refused as a whole must not fill the trail at each try.
	maxRefused = 64
	// maxTokens bounds the tokens of a record, and the stores that each is for.
	maxTokens = 16
)

// volume is a class in a pod, mounted again and again by the driver.
type volume struct{ podUID, class string }

// delivered is the last delivery to a volume.
type delivered struct {
	content [sha256.Size]byte
	// versions are the store's, by the place of the secret among the reads.
	versions []string
	secrets  []string
	stale    map[string]string // as of [record.Mount.Stale]
}

// Record puts a mount into the trail before it is answered, and is an error where that was
// not possible and the trail does not go on without it. A delivery of the same as before is
// only counted, and never fails.
func (t *Trail) Record(ctx context.Context, m *record.Mount) error {
	if t == nil {
		return nil
	}
	err := contain.Run(func() error { return t.record(ctx, m) })
	if bug, panicked := errors.AsType[*contain.Panic](err); panicked {
		t.o.Log.LogAttrs(ctx, slog.LevelError, "a bug in the audit trail", contain.Attrs(bug)...)
		if t.o.Continue {
			return nil
		}
		return fmt.Errorf("%w: a bug in keymount", ErrNotWritten)
	}
	return err
}

func (t *Trail) record(ctx context.Context, m *record.Mount) error {
	key := volume{cut(m.Pod.UID, maxID), cut(m.Class, maxID)}
	before := t.deliveredTo(key)
	if m.Code != codes.OK { // which changes nothing of what was delivered
		return t.recordNew(ctx, key, m, before)
	}
	content, stale := contentOf(m), m.Stale()
	t.tellStale(m, before, stale)
	if before != nil && before.content == content {
		t.again(key, m, before)
		if maps.Equal(before.stale, stale) {
			return nil
		}
	} else if err := t.recordNew(ctx, key, m, before); err != nil {
		return err
	}
	t.remember(key, deliveryOf(m, content, stale))
	return nil
}

// recordNew waits for the record of a mount that failed, or delivers something new.
func (t *Trail) recordNew(ctx context.Context, key volume, m *record.Mount, before *delivered) error {
	wait := newPatience(ctx)
	defer wait.end()
	first, last, err := t.putMount(wait, key, mountRecord(m, before))
	if err == nil {
		err = t.await(wait, last, !t.o.Continue)
	}
	if err == nil || t.o.Continue {
		return nil
	}
	t.withdraw(m, first)
	return fmt.Errorf("%w%s", err, cure)
}

// again is for a mount that delivers the same as before: nothing waits for its record.
func (t *Trail) again(key volume, m *record.Mount, before *delivered) {
	if t.o.Full {
		if _, _, _, err := t.tryMount(key, mountRecord(m, before)); err == nil {
			return
		}
	}
	t.count(key, m)
}

// withdraw says of a record that its mount was answered with an error: it may yet be written.
func (t *Trail) withdraw(m *record.Mount, seq int64) {
	if m.Code == codes.OK && seq > 0 { // or else it is in no line
		_ = t.put(Record{Kind: KindWithdrawn, Withdrawn: &Withdrawn{Seq: seq}}) // or the lost ones are counted
	}
}

func (t *Trail) deliveredTo(key volume) *delivered {
	t.mu.Lock()
	defer t.mu.Unlock()
	d, _ := t.volumes.Get(key)
	return d
}

func (t *Trail) remember(key volume, d *delivered) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.volumes.Add(key, d, d.held()+int64(len(key.podUID)+len(key.class)))
}

// held is about the memory that d takes, in bytes.
func (d *delivered) held() int64 {
	const own, text = 256, 16 // of an entry, and of a text beside its bytes
	held := own
	for i := range d.versions {
		held += 2*text + len(d.versions[i]) + len(d.secrets[i])
	}
	for store, cause := range d.stale {
		held += own + len(store) + len(cause)
	}
	return int64(held)
}

// contentOf tells one delivery from another: by the files, the store's versions, and the rules
// that allowed it.
func contentOf(m *record.Mount) (content [sha256.Size]byte) {
	h := sha256.New()
	var text []byte
	add := func(part string) { // behind its length: two lists of parts never look alike
		text = append(binary.AppendUvarint(text[:0], uint64(len(part))), part...)
		h.Write(text)
	}
	for _, file := range m.Delivered {
		add(file.Version)
	}
	for i := range m.Reads {
		r := &m.Reads[i]
		for _, part := range []string{r.Secret.Store, r.Secret.Role, r.Secret.Path.String(), r.Version, r.Rule.Rule} {
			add(part)
		}
		if r.Identity != nil {
			add(r.Identity.ServiceAccountUID)
		}
	}
	h.Sum(content[:0])
	return content
}

// deliveryOf is what to remember of a mount.
func deliveryOf(m *record.Mount, content [sha256.Size]byte, stale map[string]string) *delivered {
	d := &delivered{content: content, versions: make([]string, len(m.Reads)), secrets: make([]string, len(m.Reads)), stale: stale}
	for i := range m.Reads {
		d.versions[i], d.secrets[i] = m.Reads[i].Version, m.Reads[i].Secret.Path.String()
	}
	return d
}

// mountRecord is the record of a mount.
func mountRecord(m *record.Mount, before *delivered) Record {
	r := Record{
		Kind: KindMount, At: timeText(m.Began.Add(m.Took)), Class: cut(m.Class, maxID), Code: m.Code.String(), Error: cut(m.Message, maxText),
		Files: m.Files, Outcome: outcomeOfCode(m.Code), Us: m.Took.Microseconds(),
	}
	if m.Code != codes.OK {
		r.Files = 0
	}
	ownedBy(&r, m)
	for i := range m.Reads {
		if m.Code != codes.OK && i == maxRefused {
			r.Omitted = len(m.Reads) - i
			break
		}
		was := ""
		if before != nil && i < len(before.secrets) && before.secrets[i] == m.Reads[i].Secret.Path.String() {
			was = before.versions[i]
		}
		r.Secrets = append(r.Secrets, secretOf(&m.Reads[i], was))
	}
	return r
}

// ownedBy puts pod, service account and tokens into r.
func ownedBy(r *Record, m *record.Mount) {
	r.Pod = mountedPod(m)
	r.ServiceAccount = &ServiceAccount{Name: cut(m.Pod.ServiceAccount, maxID)}
	for i := range m.Reads {
		identity, name := m.Reads[i].Identity, m.Reads[i].Secret.Store
		if identity == nil {
			continue
		}
		r.ServiceAccount.UID = cut(identity.ServiceAccountUID, maxID)
		at := slices.IndexFunc(r.Tokens, func(t Token) bool { return t.Audience == identity.Audience })
		if at < 0 && len(r.Tokens) == maxTokens {
			continue
		}
		if at < 0 {
			at = len(r.Tokens)
			r.Tokens = append(r.Tokens, Token{Audience: cut(identity.Audience, maxID), ID: cut(identity.TokenID, maxID)})
		}
		if of := &r.Tokens[at]; len(of.Stores) < maxTokens && !slices.Contains(of.Stores, name) {
			of.Stores = append(of.Stores, name)
		}
	}
}

func mountedPod(m *record.Mount) *Pod {
	return &Pod{Name: cut(m.Pod.Name, maxID), Namespace: cut(m.Pod.Namespace, maxID), UID: cut(m.Pod.UID, maxID)}
}

// secretOf is a read of a mount; was is the version of the mount before.
func secretOf(r *record.Read, was string) Secret {
	s := Secret{
		Store: r.Secret.Store, Role: cut(r.Secret.Role, maxText), Path: r.Secret.Path.String(), Pinned: cut(r.Secret.Version, maxID), Write: r.Write,
		Rule: r.Rule.Rule, List: r.Rule.List, Files: r.Files, Version: cut(r.Version, maxID), Request: cut(r.RequestID, maxID), Source: string(r.Source),
	}
	if was != r.Version {
		s.Was = cut(was, maxID)
	}
	if path := r.Path.String(); path != "" {
		s.Path, s.Literal, s.Scope = path, r.Literal, ScopePath
	} else if r.Rule.Rule != "" || r.Denied() {
		s.Scope = ScopeLogin
	}
	s.Outcome = outcomeOf(r)
	if r.Err != nil {
		s.Error, s.Reason = cut(r.Err.Error(), maxText), reasonOf(r.Err)
	}
	return s
}

// outcomeOf is that of one secret; empty where the mount ended before it was known.
func outcomeOf(r *record.Read) Outcome {
	switch {
	case r.Err != nil:
		return outcomeOfError(r.Err)
	case r.Source != "":
		return Granted
	default:
		return ""
	}
}

func outcomeOfError(err error) Outcome {
	switch {
	case errors.Is(err, access.ErrDenied), errors.Is(err, store.Denied), errors.Is(err, store.Doubt), errors.Is(err, store.Ended):
		return Denied
	case errors.Is(err, store.NotFound):
		return NotFound
	default:
		return Failed
	}
}

// reasonOf is the store's status; empty where the store was not asked.
func reasonOf(err error) string {
	for _, reason := range []store.Reason{store.Denied, store.Doubt, store.Ended, store.NotFound, store.Unavailable, store.Invalid} {
		if errors.Is(err, reason) {
			return string(reason)
		}
	}
	return ""
}

func outcomeOfCode(code codes.Code) Outcome {
	switch code { //nolint:exhaustive // every other code is an error
	case codes.OK:
		return Granted
	case codes.PermissionDenied, codes.Unauthenticated:
		return Denied
	case codes.NotFound:
		return NotFound
	default:
		return Failed
	}
}

// cut makes a text fit a record. JSON would make six characters of a control character.
func cut(text string, most int) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, text)
	return spelling.Cut(strings.ToValidUTF8(plain, "\uFFFD"), most)
}
