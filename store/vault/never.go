package vault

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keymount/keymount/access"
)

// Never implements [kind.Ruled]. Rules see mount and name of a KV v2 secret, and not
// the API's path, in which policies are written.
func (s *Settings) Never(list, pattern string) error {
	switch list {
	case access.ListPaths, access.ListWrites:
		return s.neverPath(pattern)
	case access.ListRoles:
		return neverRole(pattern)
	}
	return nil
}

// neverRole knows the names that Vault takes for a role.
func neverRole(pattern string) error {
	if i := strings.IndexAny(pattern, "[]()|^$?\\ \t"); i >= 0 {
		return fmt.Errorf(`%q never fits; no role of Vault has %q in its name, and a pattern is no regular expression: "*" in it stands for any characters`, pattern, pattern[i])
	}
	if strings.Contains(pattern, ",") {
		return fmt.Errorf(`%q never fits; no role of Vault has ',' in its name: write each role as an entry of its own`, pattern)
	}
	if i := strings.IndexAny(pattern, `"'%`); i >= 0 {
		return fmt.Errorf(`%q never fits; the name of a role of Vault has letters, digits, dashes, dots and "_", no %q`, pattern, pattern[i])
	}
	return nil
}

func (s *Settings) neverPath(pattern string) error {
	segments := strings.Split(pattern, "/")
	if slices.Contains(segments, "+") {
		return fmt.Errorf(`%q: "+" stands for one segment in a policy of Vault; write "*" here`, pattern)
	}
	n, engine := s.mountOf(segments)
	switch {
	case n == 0 && segments[0] == "v1":
		return fmt.Errorf(`%q never fits; /v1 is the API's and in no path: write %q`, pattern, s.plain(segments[1:]))
	case n > 0 && len(segments) == n, len(segments) == 1 && !strings.ContainsAny(pattern, "*{"):
		return fmt.Errorf(`%q is a mount and no secret; write %q for all in it`, pattern, pattern+"/**")
	case engine == KV1, engine == Other:
		return nil
	}
	n = max(n, 1)
	if segments[0] == "**" || len(segments) < n+2 || segments[n] != "data" {
		return nil
	}
	cure := fmt.Sprintf("write %q", s.plain(segments))
	if engine == "" && !strings.ContainsAny(segments[0], "*{") {
		cure += fmt.Sprintf(`, or mounts: {%s: kv1} in the store if it is no KV v2 engine`, segments[0])
	}
	return fmt.Errorf(`%q never fits; a rule has mount and name of a secret, as the vault command shows it, without data/ between them: %s`, pattern, cure)
}

// plain is a pattern as rules see its secrets.
func (s *Settings) plain(segments []string) string {
	if len(segments) == 0 {
		return "**"
	}
	n, _ := s.mountOf(segments)
	n = max(n, 1)
	if len(segments) > n+1 && segments[n] == "data" {
		segments = slices.Concat(segments[:n], segments[n+1:])
	}
	return strings.Join(segments, "/")
}

// mountOf is how many segments of a pattern are a mount of keymount.yaml, the longest,
// and what is mounted there; 0 when none is.
func (s *Settings) mountOf(segments []string) (int, Engine) {
	for n := len(segments); n > 0; n-- {
		if engine, ok := s.Mounts[strings.Join(segments[:n], "/")]; ok {
			return n, Engine(engine)
		}
	}
	return 0, ""
}
