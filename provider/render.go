package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider/certificate"
	"github.com/keymount/keymount/provider/form"
	"github.com/keymount/keymount/store"
)

// File is one file of the answer.
type File struct {
	Path     string
	Mode     int32
	Store    string // that the content is from
	Contents secret.Bytes
}

// templateTime is what one template may take: thousands of times what an honest
// one does.
const templateTime = time.Second

var errSlow = errors.New("template: it takes longer than a second; its work grows with what is in the secrets")

// render makes the files of a mount, sorted by path. A secret without a value is
// absent, and every object that wants it optional. It does no more than compute,
// an object at a time and each in its turn, so that one mount's work lets others
// pass; what cannot end well ends it at once.
func (p *Provider) render(ctx context.Context, objects []Object, reads map[Secret]*read) ([]File, error) {
	r := rendering{reads: reads, files: make([]File, 0, len(objects))}
	var failures []error
	for i := range objects {
		o := &objects[i]
		if !r.complete(o) {
			continue
		}
		err := inTurn(ctx, p.turns, "mounts", func() error { return r.object(ctx, o) })
		if errors.Is(err, ErrTooLarge) {
			return nil, err
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("objects[%d]: %s: %w", o.Index, o.Secret, err))
		}
		if errors.Is(err, errSlow) || ctx.Err() != nil || len(failures) == maxMistakes {
			break // what comes after would only cost time
		}
	}
	slices.SortFunc(r.files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return r.files, joined(failures)
}

// rendering gathers the files of one mount.
type rendering struct {
	reads map[Secret]*read
	files []File
	size  int // of all contents and paths
	taken layout
}

// complete tells whether all secrets of an object are there.
func (r *rendering) complete(o *Object) bool {
	for s := range o.Secrets() {
		if r.reads[s].err != nil {
			return false
		}
	}
	return true
}

func (r *rendering) object(ctx context.Context, o *Object) error {
	value := r.reads[o.Secret].value
	if o.Envelope {
		return r.envelope(o, value.Envelope)
	}
	data := value.Data
	if o.Template != nil {
		return r.template(ctx, o, data)
	}
	part, err := partOf(o, data)
	switch {
	case errors.Is(err, secret.ErrNoKey) && o.Optional:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w; check the key, or say optional: true", store.ErrNotFound, err)
	case o.Certificate != "":
		return r.certificate(o, data, part)
	case o.Format != "":
		contents, err := form.Write(o.Format, part)
		return r.write(o, o.File, contents, err)
	case o.Folder:
		return r.allKeys(o, part)
	}
	return r.plain(o, o.File, part)
}

func partOf(o *Object, data secret.Tree) (secret.Tree, error) {
	if o.Key == "" {
		return data, nil
	}
	return data.Get(o.Key)
}

func (r *rendering) template(ctx context.Context, o *Object, data secret.Tree) error {
	limited, cancel := context.WithTimeoutCause(ctx, templateTime, errSlow)
	defer cancel()
	contents, err := o.Template.Execute(limited, data, func(path store.Path) (secret.Tree, bool) {
		of, ok := r.reads[o.beside(path)]
		if !ok {
			return secret.Tree{}, false
		}
		return of.value.Data, true
	})
	switch {
	case err != nil && errors.Is(context.Cause(limited), errSlow):
		err = errSlow
	case err != nil:
		err = fmt.Errorf("template: %w", err)
	}
	return r.write(o, o.File, contents, err)
}

func (r *rendering) allKeys(o *Object, part secret.Tree) error {
	keys := part.Keys()
	if keys == nil {
		return fmt.Errorf("%w: it is not a map of keys to values; name a key", store.ErrInvalid)
	}
	var failures []error
	for _, key := range keys {
		path := inFolder(o, key)
		if err := checkKeyAsFile(key, path); err != nil {
			failures = append(failures, fmt.Errorf("%w: key %q cannot be a file: %w", store.ErrInvalid, key, err))
			continue
		}
		child, _ := part.Child(key)
		if err := r.plain(o, path, child); errors.Is(err, ErrTooLarge) {
			return err
		} else if err != nil {
			failures = append(failures, err)
		}
	}
	return joined(failures)
}

// plain writes a value as it is, decoded when the class says that it is encoded.
func (r *rendering) plain(o *Object, path string, part secret.Tree) error {
	contents, err := part.Text()
	if err == nil && o.Encoding != "" {
		contents, err = form.Decode(o.Encoding, contents)
	}
	return r.write(o, path, contents, err)
}

func (r *rendering) certificate(o *Object, data, part secret.Tree) error {
	password, err := passwordOf(o, data)
	if err != nil {
		return err
	}
	set, err := certificate.Parse(part, password)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if o.Folder {
		return r.certificateFolder(o, set)
	}
	var contents secret.Bytes
	switch o.Certificate {
	case PFX:
		contents, err = set.PFX(password)
	case JKS:
		contents, err = set.JKS(password)
	case PEM:
		contents, err = set.Combined(o.KeyFormat)
	}
	return r.write(o, o.File, contents, err)
}

// passwordOf is the password that the secret itself holds, under another key.
func passwordOf(o *Object, data secret.Tree) (secret.Bytes, error) {
	if o.PasswordKey == "" {
		return secret.Bytes{}, nil
	}
	part, err := data.Get(o.PasswordKey)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: passwordKey: %w", store.ErrNotFound, err)
	}
	return part.Text()
}

// certificateFolder writes the files that TLS servers and Kubernetes expect.
func (r *rendering) certificateFolder(o *Object, set certificate.Set) error {
	files, err := set.PEM(o.KeyFormat)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	var failures []error
	for _, f := range []struct {
		name     string
		contents secret.Bytes
	}{{"tls.crt", files.Certificate}, {"tls.key", files.Key}, {"ca.crt", files.CA}} {
		if f.contents.Len() > 0 {
			failures = append(failures, r.write(o, inFolder(o, f.name), f.contents, nil))
		}
	}
	return errors.Join(failures...)
}

func inFolder(o *Object, name string) string {
	if o.File == "." {
		return name
	}
	return o.File + "/" + name
}

// write adds a file, unless err says that there is none.
func (r *rendering) write(o *Object, path string, contents secret.Bytes, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if err := r.taken.addFile(path, o.Index); err != nil {
		return fmt.Errorf("%w: file %w", store.ErrInvalid, err)
	}
	r.size += contents.Len() + len(path)
	if r.size > maxResponse {
		return tooLarge(r.size, append(r.files, File{Path: path, Contents: contents}))
	}
	r.files = append(r.files, File{Path: path, Mode: o.Mode, Store: o.Secret.Store, Contents: contents})
	return nil
}
