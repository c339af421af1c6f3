package kind

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/keymount/keymount/internal/spelling"
)

var errNotAddress = errors.New("is not of the form https://host:port")

// Address is the scheme, host and port of an https or http address, equal for all spellings
// of one server. Its error does not quote the text, which may hold a password.
func Address(text string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" ||
		spelling.Plain(u.Host) != nil {
		return "", errNotAddress
	}
	scheme := strings.ToLower(u.Scheme)
	port := map[string]string{"https": "443", "http": "80"}[scheme]
	if port == "" {
		return "", errNotAddress
	}
	if u.Port() != "" {
		number, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || number == 0 {
			return "", errNotAddress
		}
		port = strconv.FormatUint(number, 10)
	}
	name, ok := host(u.Hostname())
	if !ok {
		return "", errNotAddress
	}
	return scheme + "://" + net.JoinHostPort(name, port), nil
}

// host has one spelling: an IP address has several of the same value. It is false for what is
// neither an address nor a name, such as "vault..example".
func host(text string) (name string, ok bool) {
	if ip, err := netip.ParseAddr(text); err == nil {
		zone := ip.Zone()
		return strings.Replace(ip.Unmap().String(), "%", "%25", 1), url.PathEscape(zone) == zone // a zone is escaped in a URL
	}
	name = strings.TrimSuffix(strings.ToLower(text), ".")
	return name, !strings.Contains(name, "%") && !slices.Contains(strings.Split(name, "."), "")
}

// Rootless trims a namespace of Vault; "root", another name of the root, becomes empty.
func Rootless(namespace string) string {
	if namespace = strings.Trim(namespace, "/"); namespace == "root" {
		return ""
	}
	return namespace
}

// AuthMount is the name of an auth method's mount, in a text that may be more of its path:
// auth/kubernetes or /v1/auth/kubernetes/login.
func AuthMount(text string) string {
	mount := strings.Trim(text, "/")
	for {
		below, ok := strings.CutPrefix(strings.TrimPrefix(mount, "v1/"), "auth/")
		if !ok {
			return mount
		}
		mount = strings.Trim(strings.TrimSuffix(below, "/login"), "/")
	}
}
