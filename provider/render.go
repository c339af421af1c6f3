package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keymount/keymount/certificate"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/form"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/internal/turns"
	"github.com/keymount/keymount/store"
)

// templateTime is what one template may take: thousands of times what an honest
// one does.
const templateTime = time.Second

var errSlow = errors.New("template: it takes longer than a second; its work grows with what is in the secrets")

// render makes the files of a mount, in the order of the class. A secret without a value is
// absent, and every object that wants it optional. It does no more than compute, and
// between two objects it lends its place, so that the work of one mount lets others pass;
// what cannot end well ends it at once. ctx is that of the mount's turn.
func render(ctx context.Context, all *reads) ([]File, error) {
	r := rendering{reads: all.of, files: make([]File, 0, len(all.objects))}
	if hasFolder(all.objects) {
		r.taken = class.NewLayout(len(all.objects))
	}
	var failures []error
	for i := range all.objects {
		o := &all.objects[i]
		if !r.complete(o) {
			continue
		}
		err := turns.Pause(ctx)
		if err == nil {
			err = r.object(ctx, o)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, ErrTooLarge) {
			return nil, err
		}
		failures = append(failures, fmt.Errorf("objects[%d]: %s: %w", o.Index, o.Secret, err))
		if errors.Is(err, errSlow) || ctx.Err() != nil || len(failures) == maxFailures {
			break // what comes after would only cost time
		}
	}
	return r.files, joined(failures)
}

// rendering gathers the files of one mount.
type rendering struct {
	reads []*read // by their places in the class
	files []File
	size  int           // of all contents and paths
	taken *class.Layout // nil where the class names every file, and so has been checked for clashes
}

// hasFolder tells whether the keys of a secret decide on names of files.
func hasFolder(objects []class.Object) bool {
	for i := range objects {
		if objects[i].Folder {
			return true
		}
	}
	return false
}

// complete tells whether all secrets of an object are there.
func (r *rendering) complete(o *class.Object) bool {
	for _, place := range o.Reads {
		if r.reads[place].failed() {
			return false
		}
	}
	return true
}

// own is the secret of an object.
func (r *rendering) own(o *class.Object) *read { return r.reads[o.Reads[0]] }

func (r *rendering) object(ctx context.Context, o *class.Object) error {
	value := r.own(o).answer.Value
	if o.Envelope {
		return r.envelope(o, value)
	}
	if o.Template != nil {
		return r.template(ctx, o)
	}
	data := value.Data
	part, err := partOf(o, value)
	switch {
	case err == nil && (o.Folder || o.Optional && o.Certificate != "") && isEmpty(part):
		return r.noKeys(o, part)
	case errors.Is(err, secret.ErrNoKey) && o.Optional:
		return nil
	case errors.Is(err, secret.ErrManyWays):
		return fmt.Errorf("%w: %w; rename the keys that have dots", store.Invalid, err)
	case err != nil:
		return fmt.Errorf("%w: %w; check the key, or say optional: true", store.NotFound, err)
	case o.Certificate != "":
		return r.certificate(o, data, part)
	case o.Format != "":
		contents, err := form.Write(o.Format, part)
		return r.write(o, o.File, contents, err)
	case o.Folder:
		return r.allKeys(o, part)
	case o.Key == "":
		return r.text(o, part)
	}
	return r.plain(o, o.File, part)
}

// partOf is the value under the key, or without a key the secret, less the fields about it.
func partOf(o *class.Object, value *store.Value) (secret.Tree, error) {
	if o.Key == "" {
		return value.Data.Without(value.About), nil
	}
	return valueUnder(value.Data, o.Key)
}

// valueUnder takes null for an absent key.
func valueUnder(data secret.Tree, key string) (secret.Tree, error) {
	part, err := data.Get(key)
	if err == nil && part.IsNull() {
		err = fmt.Errorf("%w %q: it is null, which is no value", secret.ErrNoKey, key)
	}
	return part, err
}

func (r *rendering) template(ctx context.Context, o *class.Object) error {
	defer turns.Limited(ctx, templateTime, errSlow)()
	data := func(of *read) secret.Tree { return of.answer.Data.Without(o.Template.Unnamed(of.answer.About)) }
	contents, err := o.Template.Execute(ctx, data(r.own(o)), func(path store.Path) (secret.Tree, bool) {
		place, ok := o.Named(path)
		if !ok {
			return secret.Tree{}, false
		}
		return data(r.reads[place]), true
	})
	switch {
	case errors.Is(err, errSlow):
		err = errSlow
	case err != nil:
		err = fmt.Errorf("template: %w", err)
	}
	return r.write(o, o.File, contents, err)
}

// isEmpty tells a secret without a value under any key, of which a folder has no file.
func isEmpty(part secret.Tree) bool {
	keys, isMap := part.Reveal().(map[string]any)
	for _, value := range keys {
		if value != nil {
			return false
		}
	}
	return isMap
}

func (r *rendering) noKeys(o *class.Object, part secret.Tree) error {
	switch {
	case o.Optional:
		return nil
	case len(part.Keys()) > 0:
		return fmt.Errorf("%w: all its keys are null, which is no value; fill one, or say optional: true", store.NotFound)
	}
	return fmt.Errorf("%w: it has no keys, and so the folder no files; fill it, or say optional: true", store.NotFound)
}

func (r *rendering) allKeys(o *class.Object, part secret.Tree) error {
	keys := part.Keys()
	if keys == nil {
		return fmt.Errorf("%w: it is not a map of keys to values; name a key", store.Invalid)
	}
	var failures []error
	for _, key := range keys {
		child, _ := part.Child(key)
		if child.IsNull() {
			continue // no value, and no file
		}
		path := inFolder(o, key)
		if err := class.CheckKey(key, path); err != nil {
			failures = append(failures, fmt.Errorf("%w: key %q cannot be a file: %w", store.Invalid, spelling.CutName(key), err))
		} else if err := r.plain(o, path, child); errors.Is(err, ErrTooLarge) {
			return err
		} else if err != nil {
			failures = append(failures, err)
		}
		if len(failures) == maxFailures { // a secret may have any number of keys
			return errors.Join(append(failures, errors.New("and maybe more"))...)
		}
	}
	return joined(failures)
}

// plain writes a value as it is, decoded when the class says that it is encoded.
func (r *rendering) plain(o *class.Object, path string, part secret.Tree) error {
	contents, err := part.Text()
	if err == nil && o.Encoding != "" {
		contents, err = form.Decode(o.Encoding, contents)
	}
	return r.write(o, path, contents, err)
}

func (r *rendering) certificate(o *class.Object, data, part secret.Tree) error {
	password, err := r.password(o, data)
	switch {
	case errors.Is(err, secret.ErrNoKey) && o.Optional:
		return nil
	case err != nil:
		return err
	}
	set, err := certificate.Parse(part, password)
	if err != nil {
		return fmt.Errorf("%w: %w", store.Invalid, err)
	}
	if o.Folder {
		return r.certificateFolder(o, set)
	}
	var contents secret.Bytes
	switch o.Certificate {
	case class.PFX:
		contents, err = set.PFX(password)
	case class.JKS:
		contents, err = set.JKS(password)
	case class.PEM:
		contents, err = set.Combined(o.KeyFormat)
	}
	return r.write(o, o.File, contents, err)
}

// text writes a secret that has no keys.
func (r *rendering) text(o *class.Object, part secret.Tree) error {
	if _, isText := part.Reveal().(string); !isText {
		return fmt.Errorf("%w: it is no text but has keys; name a key, or end file in a slash to get one file per key", store.Invalid)
	}
	return r.plain(o, o.File, part)
}

// password is the value under another key of the secret, or of another secret.
func (r *rendering) password(o *class.Object, data secret.Tree) (secret.Bytes, error) {
	if o.PasswordKey == "" {
		return secret.Bytes{}, nil
	}
	field := "passwordKey"
	if o.HasPasswordElsewhere() {
		field, data = "passwordFrom: "+o.PasswordOf.String(), r.reads[o.Reads[1]].answer.Data
	}
	part, err := valueUnder(data, o.PasswordKey)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %s: %w", store.NotFound, field, err)
	}
	if fault := notPassword(part); fault != "" {
		return secret.Bytes{}, fmt.Errorf("%w: %s: the value under %q %s", store.Invalid, field, o.PasswordKey, fault)
	}
	return part.Text()
}

// notPassword is the reason why a value is no password that anybody types or passes on: a
// program that is given "sesame" would not open what "sesame\n" closed.
func notPassword(part secret.Tree) string {
	switch value := part.Reveal().(type) {
	case string:
		if strings.HasSuffix(value, "\n") || strings.HasSuffix(value, "\r") {
			return "ends in a line break, which is no part of a password; store it without, as printf '%s' writes it and echo does not"
		}
		return ""
	case json.Number:
		return ""
	}
	return "is no password; that is a text or a number"
}

// certificateFolder writes the files that TLS servers and Kubernetes expect.
func (r *rendering) certificateFolder(o *class.Object, set certificate.Set) error {
	files, err := set.PEM(o.KeyFormat)
	if err != nil {
		return fmt.Errorf("%w: %w", store.Invalid, err)
	}
	var failures []error
	contents := []secret.Bytes{files.Certificate, files.Key, files.CA}
	for i, name := range class.CertificateFiles() {
		if contents[i].Len() > 0 {
			failures = append(failures, r.write(o, inFolder(o, name), contents[i], nil))
		}
	}
	return errors.Join(failures...)
}

func inFolder(o *class.Object, name string) string {
	if o.File == "." {
		return name
	}
	return o.File + "/" + name
}

// write adds a file, unless err says that there is none.
func (r *rendering) write(o *class.Object, path string, contents secret.Bytes, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", store.Invalid, err)
	}
	if r.taken != nil {
		if err := r.taken.AddFile(path, o.Index); err != nil {
			return fmt.Errorf("%w: file %w", store.Invalid, err)
		}
	}
	r.size += contents.Len() + len(path)
	if r.size > maxResponse {
		return tooLarge(r.size, append(r.files, File{Path: path, Contents: contents}))
	}
	r.files = append(r.files, File{Path: path, Mode: o.Mode, Store: o.Secret.Store, Contents: contents})
	r.credit(o, path)
	return nil
}

// credit tells the secrets of an object which file was made of them.
func (r *rendering) credit(o *class.Object, path string) {
	for _, place := range o.Reads {
		of := r.reads[place]
		switch n := len(of.files); {
		case n == 0:
			of.files = append(of.first[:0], path)
		case of.files[n-1] != path: // two spellings may be one read
			of.files = append(of.files, path)
		}
	}
}

// envelope writes an object as vault-csi-provider does, byte for byte but for what
// would change at every poll.
func (r *rendering) envelope(o *class.Object, value *store.Value) error {
	if text, isText := value.Data.Reveal().(string); isText && o.Key == "" { // which has no envelope
		return r.write(o, o.File, secret.New([]byte(text)), nil)
	}
	contents, err := fromEnvelope(value.Envelope, o.Key)
	switch {
	case errors.Is(err, secret.ErrNoKey):
		return fmt.Errorf("%w: %w; check secretKey", store.NotFound, err)
	case err == nil && o.Encoding != "":
		contents, err = form.Decode(o.Encoding, contents)
	}
	return r.write(o, o.File, contents, err)
}

// fromEnvelope is the value under key, or without a key the whole answer. A key is
// a name and no way further in.
func fromEnvelope(answer secret.Tree, key string) (secret.Bytes, error) {
	if key == "" {
		return wholeAnswer(answer)
	}
	data, _ := answer.Child("data")
	inner, _ := data.Child("data")
	if _, isMap := inner.Reveal().(map[string]any); isMap {
		data = inner // a KV v2 engine's
	}
	value, ok := data.Child(key)
	if !ok {
		return secret.Bytes{}, fmt.Errorf("%w %q", secret.ErrNoKey, key)
	}
	if text, ok := value.Reveal().(string); ok {
		return secret.New([]byte(text)), nil
	}
	return asJSON(value.Reveal())
}

// wholeAnswer has the order of fields that the API's own client gives it.
func wholeAnswer(answer secret.Tree) (secret.Bytes, error) {
	fields, _ := answer.Reveal().(map[string]any)
	return asJSON(struct {
		RequestID     string `json:"request_id"` // another at every poll: left empty
		LeaseID       any    `json:"lease_id"`
		LeaseDuration any    `json:"lease_duration"`
		Renewable     any    `json:"renewable"`
		Data          any    `json:"data"`
		Warnings      any    `json:"warnings"`
	}{
		LeaseID: fields["lease_id"], LeaseDuration: fields["lease_duration"], Renewable: fields["renewable"],
		Data: fields["data"], Warnings: fields["warnings"],
	})
}

// asJSON escapes what encoding/json does by default; form.Write would not.
func asJSON(v any) (secret.Bytes, error) {
	text, err := json.Marshal(v)
	if err != nil {
		// The error may quote what could not be encoded: leave it out.
		return secret.Bytes{}, errors.New("the answer cannot be written as JSON")
	}
	return secret.New(text), nil
}
