package certificate

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// lineage knows which certificate issued which. Certificates go by their index.
type lineage struct {
	certificates []*x509.Certificate
	issuers      [][]int // of each certificate; it is its own when self-signed
}

// maxChecks is how many signatures are checked for one secret. A chain needs two
// for each certificate at most, but certificates that all have one name need the
// square, and RSA can be made to take milliseconds.
const maxChecks = 4 * MaxCertificates

func newLineage(certificates []*x509.Certificate) (lineage, error) {
	l := lineage{certificates: certificates, issuers: make([][]int, len(certificates))}
	checks := 0
	for child, c := range certificates {
		for parent, p := range certificates {
			if !named(p, c) {
				continue
			}
			if checks++; checks > maxChecks {
				return lineage{}, errors.New("there are too many certificates that have the same name; keep one chain in a secret")
			}
			if signed(p, c) {
				l.issuers[child] = append(l.issuers[child], parent)
			}
		}
	}
	return l, nil
}

// named tells whether child names parent as its issuer.
func named(parent, child *x509.Certificate) bool {
	if !bytes.Equal(parent.RawSubject, child.RawIssuer) {
		return false
	}
	return len(child.AuthorityKeyId) == 0 || len(parent.SubjectKeyId) == 0 || bytes.Equal(parent.SubjectKeyId, child.AuthorityKeyId)
}

// signed tells whether parent signed child. Signatures of old roots are of kinds
// that crypto/x509 no longer checks; their names have to do.
func signed(parent, child *x509.Certificate) bool {
	err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature)
	return err == nil || errors.Is(err, x509.ErrUnsupportedAlgorithm) || errors.As(err, new(x509.InsecureAlgorithmError))
}

func (l lineage) selfSigned(i int) bool { return slices.Contains(l.issuers[i], i) }

// leaf finds the certificate of the private key; without a key the one that
// issued no other.
func (l lineage) leaf(k privateKey) (int, error) {
	if k.isZero() {
		return l.bottom()
	}
	signer, err := k.signer()
	if err != nil {
		return 0, err
	}
	var own []int
	for i, c := range l.certificates {
		if isPublicKey(signer, c.PublicKey) {
			own = append(own, i)
		}
	}
	if len(own) == 0 {
		return 0, fmt.Errorf("the private key belongs to no certificate here (%s); store the key that was made for the certificate",
			names(l.certificates))
	}
	// A certificate from an authority beats a self-signed one for the same key.
	if i := slices.IndexFunc(own, func(i int) bool { return !l.selfSigned(i) }); i >= 0 {
		return own[i], nil
	}
	return own[0], nil
}

func (l lineage) bottom() (int, error) {
	isIssuer := make([]bool, len(l.certificates))
	for child, issuers := range l.issuers {
		for _, parent := range issuers {
			isIssuer[parent] = isIssuer[parent] || parent != child
		}
	}
	var bottom []int
	for i := range l.certificates {
		if !isIssuer[i] {
			bottom = append(bottom, i)
		}
	}
	switch len(bottom) {
	case 0:
		return 0, fmt.Errorf("there is no private key and all certificates issued one another (%s); remove those that are not meant", names(l.certificates))
	case 1:
		return bottom[0], nil
	}
	return 0, fmt.Errorf("there is no private key and %d certificates issued none of the others (%s); keep one chain in a secret",
		len(bottom), names(l.pick(bottom)))
}

// climb goes from the leaf to the top, level by level: a certificate has several
// issuers when its authority is cross-signed.
func (l lineage) climb(leaf int) ([]int, error) {
	ordered := []int{leaf}
	for next := 0; next < len(ordered); next++ {
		for _, parent := range l.issuers[ordered[next]] {
			if !slices.Contains(ordered, parent) {
				ordered = append(ordered, parent)
			}
		}
	}
	var strays []int
	for i := range l.certificates {
		if !slices.Contains(ordered, i) {
			strays = append(strays, i)
		}
	}
	if len(strays) > 0 {
		return nil, fmt.Errorf("certificates that issued neither %s nor one above it are in the secret: %s; remove them, or store them in a secret of their own",
			name(l.certificates[leaf]), names(l.pick(strays)))
	}
	return ordered, nil
}

// split makes the two lists of a Set. A self-signed leaf is in both: clients have to
// trust it.
func (l lineage) split(k privateKey, ordered []int) Set {
	s := Set{key: k}
	for position, i := range ordered {
		if position == 0 || !l.selfSigned(i) {
			s.chain = append(s.chain, l.certificates[i])
		}
		if l.selfSigned(i) {
			s.authorities = append(s.authorities, l.certificates[i])
		}
	}
	if top := len(ordered) - 1; len(s.authorities) == 0 && top > 0 {
		s.authorities = []*x509.Certificate{l.certificates[ordered[top]]}
	}
	return s
}

func (l lineage) pick(indexes []int) []*x509.Certificate {
	var picked []*x509.Certificate
	for _, i := range indexes {
		picked = append(picked, l.certificates[i])
	}
	return picked
}

// name is a certificate's name in messages.
func name(c *x509.Certificate) string {
	const longest = 100
	subject := c.Subject.String()
	if subject == "" && len(c.DNSNames) > 0 {
		subject = c.DNSNames[0]
	}
	if subject == "" {
		return "without a subject"
	}
	return fmt.Sprintf("%.*q", longest, subject)
}

func names(certificates []*x509.Certificate) string {
	const most = 5
	var list []string
	for _, c := range certificates[:min(most, len(certificates))] {
		list = append(list, name(c))
	}
	if more := len(certificates) - most; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, ", ")
}
