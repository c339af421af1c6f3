package certificate_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/keymount/keymount/certificate"
	"github.com/keymount/keymount/internal/secret"
)

func TestKeyFormats(t *testing.T) {
	const formats = "pkcs1 pkcs8 sec1"
	tests := map[string]struct {
		key  crypto.Signer
		want map[string]string // label of the block, or the error
	}{
		"RSA": {rsaKey(), map[string]string{
			"pkcs1": "RSA PRIVATE KEY", "pkcs8": "PRIVATE KEY",
			"sec1": "the private key is RSA and sec1 is for ECDSA alone; use pkcs8 or pkcs1",
		}},
		"ECDSA": {ecKey(), map[string]string{
			"pkcs8": "PRIVATE KEY", "sec1": "EC PRIVATE KEY",
			"pkcs1": "the private key is ECDSA and pkcs1 is for RSA alone; use pkcs8 or sec1",
		}},
		"Ed25519": {ed25519Key(), map[string]string{
			"pkcs8": "PRIVATE KEY",
			"pkcs1": "the private key is Ed25519 and pkcs1 is for RSA alone; use pkcs8",
			"sec1":  "the private key is Ed25519 and sec1 is for ECDSA alone; use pkcs8",
		}},
	}
	for kind, test := range tests {
		f := newFamily(test.key)
		for given, key := range map[string]string{"pkcs8": f.leaf.pkcs8(), "native": f.leaf.native()} {
			set := parse(t, f.chain()+key, "")
			if got := text(must(set.PEM(certificate.AsGiven)).Key); got != key {
				t.Errorf("%s from %s as given: %s", kind, given, got)
			}
			for name := range strings.FieldsSeq(formats) {
				t.Run(strings.Join([]string{kind, given, name}, " "), func(t *testing.T) {
					checkFormat(t, f, set, must(certificate.ParseKeyFormat(name)), test.want[name])
				})
			}
		}
	}
}

func checkFormat(t *testing.T, f family, set certificate.Set, format certificate.KeyFormat, want string) {
	t.Helper()
	files, err := set.PEM(format)
	combined, combinedErr := set.Combined(format)
	if err != nil || combinedErr != nil {
		if fmt.Sprint(err) != want || fmt.Sprint(combinedErr) != want {
			t.Errorf("errors %v and %v, want %s", err, combinedErr, want)
		}
		return
	}
	key := map[string]string{"PRIVATE KEY": f.leaf.pkcs8()}[want]
	if key == "" {
		key = f.leaf.native()
	}
	if !strings.HasPrefix(key, "-----BEGIN "+want) {
		t.Fatalf("no error, want %s", want)
	}
	compare(t, files, f.chain(), key, f.intermediate.pem())
	if diff := cmp.Diff(f.chain()+key, text(combined)); diff != "" {
		t.Errorf("combined (-want +got):\n%s", diff)
	}
}

func TestParseKeyFormat(t *testing.T) {
	for name, want := range map[string]certificate.KeyFormat{
		"": certificate.AsGiven, "pkcs1": certificate.PKCS1, "pkcs8": certificate.PKCS8, "sec1": certificate.SEC1,
	} {
		if got, err := certificate.ParseKeyFormat(name); got != want || err != nil {
			t.Errorf("%q: got %d, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"PKCS8": `unknown key format "PKCS8"; did you mean "pkcs8"?`,
		"sec":   `unknown key format "sec"; did you mean "sec1"?`,
		"der":   `unknown key format "der"; write pkcs1, pkcs8 or sec1, or nothing to keep the key as the store has it`,
	} {
		if _, err := certificate.ParseKeyFormat(name); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", name, err, want)
		}
	}
}

func TestPFX(t *testing.T) {
	for kind, key := range keys() {
		f := newFamily(key)
		for source, value := range sources(f) {
			for _, password := range []string{"", "changeit", "pässwörd"} {
				t.Run(fmt.Sprintf("%s from %s with %q", kind, source, password), func(t *testing.T) {
					file := must(parse(t, value, "sesame").PFX(hidden(password)))
					key, leaf, others, err := pkcs12.DecodeChain(file.Reveal(), password)
					if err != nil {
						t.Fatal(err)
					}
					all := append([]*x509.Certificate{leaf}, others...)
					if !slices.EqualFunc(all, []*x509.Certificate{f.leaf.certificate, f.intermediate.certificate, f.root.certificate}, (*x509.Certificate).Equal) {
						t.Errorf("got %d certificates, want leaf, intermediate and root", len(all))
					}
					if own, ok := key.(interface{ Equal(crypto.PrivateKey) bool }); !ok || !own.Equal(f.leaf.key) {
						t.Error("got another private key")
					}
				})
			}
		}
	}
}

// TestPFXSelfSigned has the leaf among the authorities; the file has it once.
func TestPFXSelfSigned(t *testing.T) {
	alone := authority{}.issue("alone", ecKey())
	file := must(parse(t, alone.pem()+alone.native(), "").PFX(hidden("changeit")))
	_, leaf, others, err := pkcs12.DecodeChain(file.Reveal(), "changeit")
	if err != nil || !leaf.Equal(alone.certificate) || len(others) != 0 {
		t.Errorf("leaf %v, others %v, error %v", leaf.Subject, others, err)
	}
}

func TestJKS(t *testing.T) {
	password := []byte("changeit")
	for kind, key := range keys() {
		f := newFamily(key)
		for source, value := range sources(f) {
			t.Run(kind+" from "+source, func(t *testing.T) {
				ks := loadJKS(t, parse(t, value, "sesame"), password)
				entry, err := ks.GetPrivateKeyEntry(certificate.Alias, password)
				if err != nil {
					t.Fatal(err)
				}
				if got := block("PRIVATE KEY", entry.PrivateKey); got != f.leaf.pkcs8() {
					t.Error("got another private key")
				}
				if !entry.CreationTime.Equal(f.leaf.certificate.NotBefore) {
					t.Errorf("created %v, want %v", entry.CreationTime, f.leaf.certificate.NotBefore)
				}
				var chain string
				for _, c := range entry.CertificateChain {
					chain += block("CERTIFICATE", c.Content)
				}
				if diff := cmp.Diff(f.chain(), chain); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{certificate.Alias}, ks.Aliases()); diff != "" {
					t.Errorf("aliases (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func loadJKS(t *testing.T, set certificate.Set, password []byte) keystore.KeyStore {
	t.Helper()
	file, err := set.JKS(secret.New(password))
	if err != nil {
		t.Fatal(err)
	}
	ks := keystore.New(keystore.WithOrderedAliases())
	if err := ks.Load(bytes.NewReader(file.Reveal()), password); err != nil {
		t.Fatal(err)
	}
	return ks
}

func TestJKSOfTrust(t *testing.T) {
	f := newFamily(ecKey())
	ks := loadJKS(t, parse(t, f.root.pem()+f.intermediate.pem(), ""), []byte("changeit"))
	want := map[string]string{"certificate-1": f.intermediate.pem(), "certificate-2": f.root.pem()}
	got := map[string]string{}
	for _, alias := range ks.Aliases() {
		entry := must(ks.GetTrustedCertificateEntry(alias))
		got[alias] = block("CERTIFICATE", entry.Certificate.Content)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMistakesOfWriting(t *testing.T) {
	f := newFamily(ecKey())
	full, keyless := parse(t, f.chain()+f.leaf.native(), ""), parse(t, f.chain(), "")
	var none certificate.Set
	tests := map[string]struct {
		write func() (secret.Bytes, error)
		want  string
	}{
		"combined without a key": {
			func() (secret.Bytes, error) { return keyless.Combined(certificate.AsGiven) },
			"it holds no private key, and certificate and key in one file need both; store the key with the certificate",
		},
		"PFX without a key, odd password": {
			func() (secret.Bytes, error) { return keyless.PFX(hidden("\U0001f511")) },
			"the password has a character that PKCS#12 cannot hold; use letters, digits and punctuation",
		},
		"combined, no chain": {
			func() (secret.Bytes, error) {
				return parse(t, f.root.pem()+newFamily(ecKey()).root.pem(), "").Combined(certificate.AsGiven)
			},
			`there is no private key and 2 certificates issued none of the others ("CN=root", "CN=root"); keep one chain in a secret`,
		},
		"PFX, odd password": {
			func() (secret.Bytes, error) { return full.PFX(hidden("\U0001f511")) },
			"the password has a character that PKCS#12 cannot hold; use letters, digits and punctuation",
		},
		"JKS, short password": {
			func() (secret.Bytes, error) { return full.JKS(hidden("12345")) },
			"the password has fewer than 6 characters, which Java refuses; use a longer one",
		},
		"JKS, odd password": {
			func() (secret.Bytes, error) { return keyless.JKS(hidden("pässwörd")) },
			"the password has a character that is not ASCII; use letters, digits and punctuation for a Java key store",
		},
		"JKS of nothing": {func() (secret.Bytes, error) { return none.JKS(hidden("changeit")) }, "it holds no certificate"},
		"PFX of nothing": {
			func() (secret.Bytes, error) { return none.PFX(hidden("changeit")) }, "it holds no certificate",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if made, err := test.write(); err == nil || err.Error() != test.want || made.Len() != 0 {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
	compare(t, must(none.PEM(certificate.PKCS1)), "", "", "")
}

// Certificates without a key are for clients to trust: one chain, or several that have
// nothing to do with each other.
func TestTrustStores(t *testing.T) {
	f, other := newFamily(ecKey()), newFamily(rsaKey())
	for name, given := range map[string]string{
		"one": f.root.pem(), "a chain": f.chain() + f.root.pem(), "no chain": f.root.pem() + other.root.pem() + other.intermediate.pem(),
		"twice": f.root.pem() + other.root.pem() + f.root.pem(),
	} {
		var want []string
		for rest := []byte(given); ; {
			var part *pem.Block
			if part, rest = pem.Decode(rest); part == nil {
				break
			}
			want = append(want, string(part.Bytes))
		}
		slices.Sort(want)
		want = slices.Compact(want)
		set := parse(t, given, "")
		for _, password := range []string{"changeit", ""} {
			made := must(set.PFX(hidden(password)))
			if text(made) != text(must(parse(t, given, "").PFX(hidden(password)))) {
				t.Errorf("%s: two different files", name)
			}
			var got []string
			for _, c := range must(pkcs12.DecodeTrustStore(made.Reveal(), password)) {
				got = append(got, string(c.Raw))
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s: a trust store of %d certificates, want %d", name, len(got), len(want))
			}
			if again := parse(t, text(made), password); text(must(again.PFX(hidden(password)))) != text(made) {
				t.Errorf("%s: read again it is another file", name)
			}
		}
		ks := keystore.New()
		if err := ks.Load(bytes.NewReader(must(set.JKS(hidden("changeit"))).Reveal()), []byte("changeit")); err != nil || len(ks.Aliases()) != len(want) {
			t.Errorf("%s: a Java key store of %q, %v", name, ks.Aliases(), err)
		}
	}
}

// A salt of a file without a private key is no help in guessing its password.
func TestSaltsOfTrustStoresSayNothingOfThePassword(t *testing.T) {
	f := newFamily(ecKey())
	set := parse(t, f.root.pem(), "")
	one, other := saltsIn(must(set.PFX(hidden("changeit"))).Reveal()), saltsIn(must(set.PFX(hidden("changed!"))).Reveal())
	if len(one) < 3 || !slices.Equal(one, other) {
		t.Errorf("%d salts, and others for another password", len(one))
	}
	if third := saltsIn(must(parse(t, newFamily(ecKey()).root.pem(), "").PFX(hidden("changeit"))).Reveal()); slices.Equal(one, third) {
		t.Error("the same salts for another certificate")
	}
}

// TestSameBytes is what keeps a poll from looking like a rotation.
func TestSameBytes(t *testing.T) {
	for kind, key := range keys() {
		f := newFamily(key)
		for source, value := range sources(f) {
			first, second := written(parse(t, value, "sesame")), written(parse(t, value, "sesame"))
			for what := range first {
				if text(first[what].content) != text(second[what].content) {
					t.Errorf("%s from %s: two different files of %s", kind, source, what)
				}
			}
		}
		straight := written(parse(t, f.chain()+f.root.pem()+f.leaf.pkcs8(), ""))
		for what, made := range written(parse(t, f.leaf.pkcs8()+f.root.pem()+f.leaf.pem()+f.intermediate.pem(), "")) {
			if text(straight[what].content) != text(made.content) {
				t.Errorf("%s: the order of the secret shows in %s", kind, what)
			}
		}
	}
}

// TestSalts has files that must differ in their salts: for another password, for another
// certificate of the same key, and from one kind of file to the other.
func TestSalts(t *testing.T) {
	f := newFamily(ecKey())
	renewed := f
	renewed.leaf = f.intermediate.issue("leaf", ecKey(), later(30))
	set, next := parse(t, f.chain()+f.leaf.pkcs8(), ""), parse(t, renewed.chain()+f.leaf.pkcs8(), "")
	seen := map[string]string{}
	for name, file := range map[string]secret.Bytes{
		"PFX":                must(set.PFX(hidden("changeit"))),
		"PFX, password":      must(set.PFX(hidden("changed!"))),
		"PFX, renewed":       must(next.PFX(hidden("changeit"))),
		"PFX, both":          must(next.PFX(hidden("changed!"))),
		"JKS":                must(set.JKS(hidden("changeit"))),
		"JKS, password":      must(set.JKS(hidden("changed!"))),
		"JKS, renewed":       must(next.JKS(hidden("changeit"))),
		"JKS, both":          must(next.JKS(hidden("changed!"))),
		"PFX, without chain": must(parse(t, f.leaf.pem()+f.leaf.pkcs8(), "").PFX(hidden("changeit"))),
	} {
		salts := saltsOf(t, file.Reveal())
		for _, salt := range salts {
			if other, ok := seen[salt]; ok {
				t.Errorf("%s has a salt of %s", name, other)
			}
			seen[salt] = name
		}
	}
}

// saltsOf finds every octet string of 16 bytes, and the salt of a Java key store,
// which begins the octet string of its private key.
func saltsOf(t *testing.T, file []byte) []string {
	t.Helper()
	const pfxSalts = 5
	if _, after, ok := bytes.Cut(file, []byte{0x2a, 0x02, 0x11, 0x01, 0x01, 0x05, 0x00, 0x04}); ok {
		return []string{string(after[2:18])}
	}
	salts := saltsIn(file)
	if len(salts) < pfxSalts {
		t.Fatalf("found %d salts, want %d", len(salts), pfxSalts)
	}
	return salts
}

// saltsIn finds every octet string of 16 bytes.
func saltsIn(file []byte) (salts []string) {
	for rest := file; ; {
		_, after, ok := bytes.Cut(rest, []byte("\x04\x10"))
		if !ok || len(after) < 16 {
			return salts
		}
		salts = append(salts, string(after[:16]))
		rest = after
	}
}

func TestNothingPrints(t *testing.T) {
	f := newFamily(rsaKey())
	set := parse(t, f.chain()+f.leaf.pkcs8(), "")
	files := must(set.PEM(certificate.AsGiven))
	key := must(x509.MarshalPKCS8PrivateKey(f.leaf.key))[400:420] // of the private exponent
	forms := []string{"-----BEGIN", string(key), strings.Trim(fmt.Sprintf("%d", key), "[]"), hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key))}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d"} {
		printed := fmt.Sprintf(verb, set) + fmt.Sprintf(verb, files)
		for _, form := range forms {
			if strings.Contains(printed, form) {
				t.Errorf("%s prints the private key", verb)
			}
		}
	}
}
