package class

import "github.com/keymount/keymount/store"

// secrets lists the secrets of all objects, each once and in the order of the objects, and
// tells each object the places of its own.
func secrets(objects []Object) []Secret {
	list := make([]Secret, 0, len(objects))
	places := make(map[Secret]int, len(objects))
	place := func(s Secret) int {
		at, known := places[s]
		if !known {
			at = len(list)
			places[s] = at
			list = append(list, s)
		}
		return at
	}
	for i := range objects {
		objects[i].place(place)
	}
	return list
}

// place finds the places of an object's secrets.
func (o *Object) place(of func(Secret) int) {
	o.Reads = append(o.Reads, of(o.Secret))
	if o.HasPasswordElsewhere() {
		o.Reads = append(o.Reads, of(o.PasswordOf))
	}
	if o.Template == nil || len(o.Template.Paths()) == 0 {
		return
	}
	o.named = make(map[store.Path]int, len(o.Template.Paths()))
	for _, path := range o.Template.Paths() {
		s := o.Beside(path)
		at := of(s)
		o.named[path] = at
		if s != o.Secret {
			o.Reads = append(o.Reads, at)
		}
	}
}

// Named is the place, in the Request's Secrets, of the secret that the object's template
// names by its path; false for a path that it does not name.
func (o *Object) Named(path store.Path) (place int, ok bool) {
	place, ok = o.named[path]
	return place, ok
}
