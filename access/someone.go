package access

import "slices"

// Someone has the rules as they answer where it is not known which service account asks: a
// query is allowed when some service account of its namespace may ask it. It is for reading
// files, never for a mount.
func (r Rules) Someone() Rules {
	out := r
	out.rules = make([]compiled, len(r.rules))
	for i, c := range r.rules {
		c.serviceAccounts = []pattern{{segments: []segment{{pieces: []piece{{kind: star}}}}}}
		c.roles, c.paths, c.writes = anyAccount(c.roles), anyAccount(c.paths), anyAccount(c.writes)
		out.rules[i] = c
	}
	return out
}

// anyAccount has a wildcard in place of each {serviceAccount}.
func anyAccount(patterns []pattern) []pattern {
	all := slices.Clone(patterns)
	for i, p := range all {
		all[i].segments = slices.Clone(p.segments)
		for n, s := range p.segments {
			pieces := slices.Clone(s.pieces)
			for at := range pieces {
				if pieces[at].kind == serviceAccount {
					pieces[at] = piece{kind: star}
				}
			}
			all[i].segments[n].pieces = pieces
		}
	}
	return all
}
