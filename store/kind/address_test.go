package kind_test

import (
	"testing"

	"github.com/keymount/keymount/store/kind"
)

// Spellings of one server are one address.
func TestAddress(t *testing.T) {
	tests := map[string][]string{
		"https://[::1]:8200": {
			"https://[::1]:8200", "https://[0:0:0:0:0:0:0:1]:8200", "https://[0000:0000:0000:0000:0000:0000:0000:0001]:8200/", "HTTPS://[::0001]:08200", "https://[0::1]:8200",
		},
		"https://[2001:db8::a]:443":       {"https://[2001:db8::a]", "https://[2001:0DB8::000A]:443", "https://[2001:DB8:0:0:0:0:0:A]"},
		"https://10.0.0.1:8200":           {"https://10.0.0.1:8200", "https://[::ffff:10.0.0.1]:8200", "https://[::FFFF:0a00:1]:8200", "https://[::ffff:a00:1]:8200"},
		"https://[fe80::1%25eth0]:8200":   {"https://[fe80::1%25eth0]:8200", "https://[fe80:0::1%25eth0]:8200"},
		"https://vault.example:443":       {"https://vault.example", " https://Vault.Example.:443/ ", "https://vault.example:"},
		"http://vault.example:80":         {"http://vault.example", "http://VAULT.example:0080"},
		"https://192.168.001.1:8200":      {"https://192.168.001.1:8200"}, // no IP address: a leading zero is octal to some
		"https://xn--bcher-kva.example:1": {"https://XN--bcher-kva.example:1"},
	}
	for want, spellings := range tests {
		for _, text := range spellings {
			if got, err := kind.Address(text); got != want || err != nil {
				t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
			}
		}
	}
	for _, text := range []string{
		"", "vault.example", "vault.example:8200", "//vault.example", "ftp://vault.example", "https://", "https://:8200", "https://[::1", "https://a:b@c", "https://a/ui",
		"https://a?x", "https://a#x", "https://a:0", "https://a:65536", "https://a:x", "https://a\u202eb", "https://a\u200b", "https://a\nb",
		"https://.", "https://..", "https://a..", "https://a..b", "https://.a", "https://a.b../", "https://10.0.0.1..", "https://a%25b", "https://a%25", "https://[fe80::1%25a%25b]", "https://[fe80::1%25a%20b]",
	} {
		if got, err := kind.Address(text); err == nil || err.Error() != "is not of the form https://host:port" {
			t.Errorf("%q: got %s, %v", text, got, err)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, text := range []string{"https://[::1]:8200", "http://VAULT.example./", "https://[fe80::1%25eth0]", "https://[::ffff:10.0.0.1]", "https://[fe80::1%25eth1.5]", "https://a.", "https://gr\u00fcezi.example"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		address, err := kind.Address(text)
		if err != nil {
			return
		}
		if again, err := kind.Address(address); again != address || err != nil {
			t.Errorf("%q is %q, and that is %q, %v", text, address, again, err)
		}
	})
}

func TestAuthMount(t *testing.T) {
	for text, want := range map[string]string{
		"kubernetes": "kubernetes", "/kubernetes/": "kubernetes", "auth/kubernetes": "kubernetes", "/auth/kubernetes/": "kubernetes", "v1/auth/kubernetes": "kubernetes",
		"/v1/auth/kubernetes/login": "kubernetes", "auth/clusters/eu/login": "clusters/eu", "auth/auth/kubernetes": "kubernetes", "auth/": "auth", "auth": "auth",
		"clusters/auth/eu": "clusters/auth/eu", "v1/kubernetes": "v1/kubernetes", "authority": "authority", "": "", "kubernetes/login": "kubernetes/login",
	} {
		if got := kind.AuthMount(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
