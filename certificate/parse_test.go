package certificate_test

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/keymount/keymount/certificate"
	"github.com/keymount/keymount/internal/secret"
)

func (f family) pfx(encoder *pkcs12.Encoder, password string) string {
	others := []*x509.Certificate{f.root.certificate, f.intermediate.certificate}
	return string(must(encoder.Encode(f.leaf.key, f.leaf.certificate, others, password)))
}

// sources are all forms in which a store holds a family. The password is sesame.
func sources(f family) map[string]any {
	const password = "sesame"
	key, pfx := f.leaf.pkcs8(), f.pfx(pkcs12.Modern2023, password)
	standard := base64.StdEncoding.EncodeToString([]byte(pfx))
	return map[string]any{
		"Vault": map[string]any{
			"certificate": strings.TrimSpace(f.leaf.pem()), "private_key": strings.TrimSpace(key), "private_key_type": "any",
			"issuing_ca": f.intermediate.pem(), "ca_chain": []any{f.intermediate.pem(), f.root.pem()}, "expiration": nil,
		},
		"Vault, chain as a text": map[string]any{
			"certificate": f.leaf.pem(), "private_key": key, "ca_chain": f.intermediate.pem() + f.root.pem(),
		},
		"Vault, bundle": map[string]any{"certificate": key + f.chain() + f.root.pem(), "private_key": key, "ca_chain": nil},
		"Kubernetes":    map[string]any{"tls.crt": f.chain(), "tls.key": key, "ca.crt": f.root.pem()},
		"PEM":           f.chain() + f.root.pem() + key,
		"PEM, key first, remarks between": "Bag Attributes\n    friendlyName: shop\n" + key + "subject=CN = leaf\n" + f.leaf.pem() +
			"\n\n" + f.intermediate.pem() + f.leaf.pem() + f.root.pem(),
		"PEM, CRLF":                       strings.ReplaceAll(f.chain()+f.root.pem()+key, "\n", "\r\n"),
		"PKCS#12":                         pfx,
		"PKCS#12, modern":                 f.pfx(pkcs12.Modern2026, password),
		"PKCS#12, DES":                    f.pfx(pkcs12.LegacyDES, password),
		"PKCS#12, RC2":                    f.pfx(pkcs12.LegacyRC2, password),
		"PKCS#12, base64":                 standard,
		"PKCS#12, base64 in lines":        "\n" + standard[:64] + "\r\n" + standard[64:] + "\n",
		"PKCS#12, base64 without padding": base64.RawStdEncoding.EncodeToString([]byte(pfx)),
		"PKCS#12, base64 for URLs":        base64.URLEncoding.EncodeToString([]byte(pfx)),
		"PKCS#12, raw base64 for URLs":    base64.RawURLEncoding.EncodeToString([]byte(pfx)),
	}
}

func TestParse(t *testing.T) {
	for kind, key := range keys() {
		f := newFamily(key)
		for source, value := range sources(f) {
			t.Run(kind+" from "+source, func(t *testing.T) {
				got, err := parse(t, value, "sesame").PEM(certificate.PKCS8)
				if err != nil {
					t.Fatal(err)
				}
				compare(t, got, f.chain(), f.leaf.pkcs8(), f.root.pem())
			})
		}
	}
}

func compare(t *testing.T, got certificate.Files, chain, key, ca string) {
	t.Helper()
	want := map[string]string{"certificate": chain, "key": key, "CA": ca}
	have := map[string]string{"certificate": text(got.Certificate), "key": text(got.Key), "CA": text(got.CA)}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestParseEmptyPassword has the files that programs make without asking for one.
func TestParseEmptyPassword(t *testing.T) {
	f := newFamily(ecKey())
	for name, encoder := range map[string]*pkcs12.Encoder{
		"modern": pkcs12.Modern2023, "newest": pkcs12.Modern2026, "DES": pkcs12.LegacyDES, "in the clear": pkcs12.Passwordless,
	} {
		t.Run(name, func(t *testing.T) {
			got := must(parse(t, f.pfx(encoder, ""), "").PEM(certificate.AsGiven))
			compare(t, got, f.chain(), f.leaf.pkcs8(), f.root.pem())
		})
	}
}

func TestParseTrustStore(t *testing.T) {
	f := newFamily(ecKey())
	store := must(pkcs12.Modern2023.EncodeTrustStore([]*x509.Certificate{f.root.certificate, f.intermediate.certificate}, "sesame"))
	got := must(parse(t, string(store), "sesame").PEM(certificate.AsGiven))
	compare(t, got, f.intermediate.pem(), "", f.root.pem())
}

func TestParseAnyOrder(t *testing.T) {
	f := newFamily(ecKey())
	blocks := []string{f.root.pem(), f.intermediate.pem(), f.leaf.pem(), f.leaf.native(), f.intermediate.pem(), block("EC PARAMETERS", []byte{6})}
	for range 20 {
		mathrand.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] }) //nolint:gosec // an order is no secret
		got := must(parse(t, strings.Join(blocks, ""), "").PEM(certificate.AsGiven))
		compare(t, got, f.chain(), f.leaf.native(), f.root.pem())
	}
}

func TestParseParts(t *testing.T) {
	f := newFamily(ecKey())
	alone := authority{}.issue("alone", ecKey())
	tests := map[string]struct{ given, chain, key, ca string }{
		"without a key":          {f.root.pem() + f.chain(), f.chain(), "", f.root.pem()},
		"without the root":       {f.chain() + f.leaf.native(), f.chain(), f.leaf.native(), f.intermediate.pem()},
		"leaf and key":           {f.leaf.native() + f.leaf.pem(), f.leaf.pem(), f.leaf.native(), ""},
		"leaf alone":             {f.leaf.pem(), f.leaf.pem(), "", ""},
		"self-signed":            {alone.pem() + alone.native(), alone.pem(), alone.native(), alone.pem()},
		"root alone":             {f.root.pem(), f.root.pem(), "", f.root.pem()},
		"intermediate and root":  {f.root.pem() + f.intermediate.pem(), f.intermediate.pem(), "", f.root.pem()},
		"key of an intermediate": {f.root.pem() + f.intermediate.pkcs8() + f.intermediate.pem(), f.intermediate.pem(), f.intermediate.pkcs8(), f.root.pem()},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			compare(t, must(parse(t, test.given, "").PEM(certificate.AsGiven)), test.chain, test.key, test.ca)
		})
	}
}

// TestParseCrossSigned has an authority with a root of its own and a certificate
// from an older root, as public authorities have for years after they start.
func TestParseCrossSigned(t *testing.T) {
	old, fresh := authority{}.issue("old root", newKey()), authority{}.issue("new root", newKey())
	cross := old.issue("new root", fresh.key)
	intermediate := fresh.issue("intermediate", newKey())
	leaf := intermediate.issue("leaf", ecKey())
	got := must(parse(t, old.pem()+fresh.pem()+cross.pem()+intermediate.pem()+leaf.pem()+leaf.native(), "").PEM(certificate.AsGiven))
	compare(t, got, leaf.pem()+intermediate.pem()+cross.pem(), leaf.native(), fresh.pem()+old.pem())
}

// TestParseSameName has two authorities of one name, without key identifiers: the
// signature alone says which one issued the leaf.
func TestParseSameName(t *testing.T) {
	anonymous := func(c *x509.Certificate) { c.SubjectKeyId, c.IsCA = nil, false }
	right, wrong := authority{}.issue("root", newKey(), anonymous), authority{}.issue("root", newKey(), anonymous)
	leaf := right.issue("leaf", ecKey())
	compare(t, must(parse(t, right.pem()+leaf.pem(), "").PEM(certificate.AsGiven)), leaf.pem(), "", right.pem())
	refuse(t, wrong.pem()+leaf.pem()+leaf.native(), "",
		`certificates that issued neither "CN=leaf" nor one above it are in the secret: "CN=root"; remove them, or store them in a secret of their own`)
}

func TestMistakes(t *testing.T) {
	f, other := newFamily(ecKey()), newFamily(newKey())
	stranger := authority{}.issue("stranger", newKey())
	const pfxCure = "export it again with 'openssl pkcs12 -export'"
	twice := f.root.issue("root", newKey())
	loop := twice.issue("root", f.root.key)
	tests := map[string]struct {
		given any
		want  string
	}{
		"a number": {true, "it is neither a text nor a map; store PEM blocks, or a PKCS#12 file in base64"},
		"a list":   {[]any{f.chain()}, "it is neither a text nor a map; store PEM blocks, or a PKCS#12 file in base64"},
		"nothing":  {nil, "it is neither a text nor a map; store PEM blocks, or a PKCS#12 file in base64"},
		"empty":    {" \n", "it is empty; store PEM blocks, or a PKCS#12 file in base64"},
		"too long": {strings.Repeat("x", certificate.MaxSize+1), "it is longer than 4 MiB; a secret holds one chain of certificates and its key"},
		"too long together": {
			map[string]any{"tls.crt": strings.Repeat(f.leaf.pem(), 10), "tls.key": strings.Repeat(" x", certificate.MaxSize/2)},
			"it is longer than 4 MiB; a secret holds one chain of certificates and its key",
		},
		"other map": {
			map[string]any{"password": canary, "tls.cert": f.chain()},
			"it is a map with none of certificate, private_key, issuing_ca, ca_chain, tls.crt, tls.key, ca.crt; " +
				"store the certificate under these names, or name the key that holds it",
		},
		"wrong kinds in a map": {
			map[string]any{"tls.crt": true, "tls.key": []any{map[string]any{}}, "ca.crt": canary},
			"tls.crt: it is not a text; store PEM blocks\ntls.key: it is not a text; store PEM blocks\n" +
				"ca.crt: it is no PEM; store blocks that start with -----BEGIN",
		},
		"prose":           {canary + " is no base64!", "it is neither PEM nor a PKCS#12 file; store PEM blocks, or a PKCS#12 file in base64"},
		"other base64":    {"Y2FuYXJ5", "it is neither PEM nor a PKCS#12 file; store PEM blocks, or a PKCS#12 file in base64"},
		"PEM in base64":   {base64.StdEncoding.EncodeToString([]byte(f.chain())), "it is PEM in base64; store the PEM blocks as they are"},
		"key alone":       {f.leaf.native(), "it holds no certificate; store the certificate together with its chain"},
		"half a block":    {f.leaf.pem()[:200], "only 0 of 1 PEM blocks can be read; one is cut short, indented, or has lost its line breaks"},
		"lost lines":      {f.leaf.pem() + strings.ReplaceAll(f.root.pem(), "\n", " "), "only 1 of 2 PEM blocks can be read; one is cut short, indented, or has lost its line breaks"},
		"no X.509":        {block("CERTIFICATE", []byte(canary)), "PEM block 1: the certificate cannot be read; it is damaged or no X.509, store it again"},
		"damaged key":     {f.leaf.pem() + block("PRIVATE KEY", []byte(canary)), "PEM block 2: the private key cannot be read; it is damaged or no PRIVATE KEY, store it again"},
		"key mislabelled": {block("RSA PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ecKey()))), "PEM block 1: the private key cannot be read; it is damaged or no RSA PRIVATE KEY, store it again"},
		"encrypted key": {
			map[string]any{"tls.crt": f.chain(), "tls.key": block("ENCRYPTED PRIVATE KEY", []byte(canary))},
			"tls.key: PEM block 1: the private key is encrypted; store it without a passphrase, 'openssl pkey -in encrypted.pem -out key.pem' removes it",
		},
		"encrypted key, old": {
			strings.Replace(f.leaf.native(), "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1),
			"PEM block 1: the private key is encrypted; store it without a passphrase, 'openssl pkey -in encrypted.pem -out key.pem' removes it",
		},
		"request": {
			block("CERTIFICATE REQUEST", []byte(canary)),
			"PEM block 1: it is a CERTIFICATE REQUEST; keep certificates (CERTIFICATE) and a private key (PRIVATE KEY, RSA PRIVATE KEY, EC PRIVATE KEY)",
		},
		"unknown label": {
			block(strings.ToUpper(canary), nil),
			"PEM block 1: it is of an unknown kind; keep certificates (CERTIFICATE) and a private key (PRIVATE KEY, RSA PRIVATE KEY, EC PRIVATE KEY)",
		},
		"two keys": {f.leaf.native() + f.chain() + other.leaf.native(), "PEM block 4: there are two different private keys; keep the one of the certificate"},
		"wrong key": {
			f.chain() + other.leaf.native(),
			`the private key belongs to no certificate here ("CN=leaf", "CN=intermediate"); store the key that was made for the certificate`,
		},
		"key of nobody in the chain": {
			f.chain() + f.root.pem() + f.intermediate.pkcs8(),
			`certificates that issued neither "CN=intermediate" nor one above it are in the secret: "CN=leaf"; remove them, or store them in a secret of their own`,
		},
		"a stranger": {
			f.chain() + stranger.pem() + f.leaf.native(),
			`certificates that issued neither "CN=leaf" nor one above it are in the secret: "CN=stranger"; remove them, or store them in a secret of their own`,
		},
		"two chains without a key": {
			f.chain() + f.root.pem() + stranger.pem(),
			`there is no private key and 2 certificates issued none of the others ("CN=leaf", "CN=stranger"); keep one chain in a secret`,
		},
		"a circle": {
			twice.pem() + loop.pem() + f.root.pem(),
			`there is no private key and all certificates issued one another ("CN=root", "CN=root", "CN=root"); remove those that are not meant`,
		},
		"too many":     {strings.Repeat(f.leaf.pem(), 101), "PEM block 101: there are more than 100 certificates; keep one chain in a secret"},
		"damaged file": {"0" + canary, "it is no PKCS#12 file, or a damaged one; " + pfxCure},
		"a certificate in base64": {
			base64.StdEncoding.EncodeToString(f.leaf.certificate.Raw),
			"it is no PKCS#12 file, or a damaged one; " + pfxCure,
		},
		"wrong password": {f.pfx(pkcs12.Modern2023, canary), "the password does not open the PKCS#12 file; give the one it was exported with"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { refuse(t, test.given, "not the "+canary, test.want) })
	}
}

const canary = "canary-91c7"

func TestMistakesOfPasswords(t *testing.T) {
	f := newFamily(ecKey())
	for _, password := range []string{"\xff", "\U0001f511"} {
		refuse(t, f.pfx(pkcs12.Modern2023, "x"), password, "the password has a character that PKCS#12 cannot hold; use letters, digits and punctuation")
	}
	got := must(parse(t, f.pfx(pkcs12.LegacyDES, "pässwörd €"), "pässwörd €").PEM(certificate.AsGiven))
	compare(t, got, f.chain(), f.leaf.pkcs8(), f.root.pem())
}

func TestLongNames(t *testing.T) {
	anonymous := func(c *x509.Certificate) { c.Subject = pkix.Name{} }
	server := func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{}, []string{"shop.example"} }
	var all string
	for i := range 8 {
		all += authority{}.issue(fmt.Sprint(i, strings.Repeat("n", 200)), newKey(), later(i)).pem()
	}
	all += authority{}.issue("", newKey(), anonymous, later(10)).pem() + authority{}.issue("", newKey(), server, later(9)).pem()
	n := strings.Repeat("n", 96)
	refuse(t, all, "", fmt.Sprintf(
		`there is no private key and 10 certificates issued none of the others (without a subject, "shop.example", "CN=7%s", "CN=6%s", "CN=5%s", and 5 more); keep one chain in a secret`, n, n, n))
}

// TestHugeRSA has keys that would cost seconds each time they are used.
func TestHugeRSA(t *testing.T) {
	modulus := new(big.Int).SetBit(big.NewInt(1), 20_000, 1)
	f := newFamily(ecKey())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge"}, NotAfter: time.Now()}
	der := must(x509.CreateCertificate(nil, template, f.root.certificate, &rsa.PublicKey{N: modulus, E: 65537}, f.root.key))
	refuse(t, block("CERTIFICATE", der), "", `PEM block 1: certificate "CN=huge" has an RSA key of 20001 bits; use one of at most 8192`)
	refuse(t, block("RSA PRIVATE KEY", make([]byte, 9000)), "",
		"PEM block 1: the private key has 9000 bytes; use RSA with at most 8192 bits, ECDSA or Ed25519")
}

func TestManyOfOneName(t *testing.T) {
	var all string
	for range 30 {
		all += authority{}.issue("one", newKey(), func(c *x509.Certificate) { c.IsCA = false }).pem()
	}
	refuse(t, all, "", "there are too many certificates that have the same name; keep one chain in a secret")
}

func TestManyPrivateKeys(t *testing.T) {
	a := authority{}.issue("a", rsaKey())
	der := must(x509.MarshalPKCS8PrivateKey(a.key))
	var all string
	for i := range 6 {
		attribute := append([]byte{0xa0, 3, 4, 1}, byte(i)) // which crypto/x509 steps over
		longer := append([]byte(nil), der...)
		longer[2], longer[3] = byte((len(der)+1)>>8), byte(len(der)+1) //nolint:gosec // the bytes of a length
		all += block("PRIVATE KEY", append(longer, attribute...))
	}
	refuse(t, all, "", "PEM block 5: there are more than 4 private keys; keep the one of the certificate")
}

func FuzzParse(f *testing.F) {
	family := newFamily(ecKey())
	for _, value := range sources(family) {
		if seed, ok := value.(string); ok {
			f.Add([]byte(seed), "sesame")
		}
	}
	f.Add([]byte(family.pfx(pkcs12.Passwordless, "")), "")
	f.Add(hiddenBomb(1<<62), "")
	f.Fuzz(func(t *testing.T, data []byte, password string) {
		start := time.Now()
		set, err := certificate.Parse(tree(string(data)), hidden(password))
		if took := time.Since(start); took > time.Minute {
			t.Errorf("took %v", took)
		}
		if err != nil {
			return
		}
		for what, made := range written(set) {
			if made.err == nil && what != "PEM" && made.content.Len() == 0 {
				t.Errorf("%s is empty", what)
			}
		}
	})
}

type output struct {
	content secret.Bytes
	err     error
}

// written is everything that a set can be made into.
func written(set certificate.Set) map[string]output {
	all := map[string]output{}
	add := func(name string, content secret.Bytes, err error) { all[name] = output{content, err} }
	files, err := set.PEM(certificate.AsGiven)
	add("PEM", files.Certificate, err)
	for name, format := range map[string]certificate.KeyFormat{
		"as given": certificate.AsGiven, "pkcs1": certificate.PKCS1, "pkcs8": certificate.PKCS8, "sec1": certificate.SEC1,
	} {
		content, err := set.Combined(format)
		add(name, content, err)
	}
	content, err := set.PFX(hidden("changeit"))
	add("PFX", content, err)
	content, err = set.JKS(hidden("changeit"))
	add("JKS", content, err)
	return all
}
