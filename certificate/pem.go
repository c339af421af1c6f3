package certificate

import (
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keymount/keymount/internal/secret"
)

const (
	pemBegin         = "-----BEGIN"
	labelCertificate = "CERTIFICATE"
)

// readPEM reads all blocks of a text, with any other text between them.
func (f *findings) readPEM(text string) error {
	blocks := blocksOf(text)
	// encoding/pem steps over blocks that it cannot read.
	switch begun := strings.Count(text, pemBegin); {
	case begun == 0:
		return errors.New("it is no PEM; store blocks that start with -----BEGIN")
	case begun != len(blocks):
		return fmt.Errorf("only %d of %d PEM blocks can be read; one is cut short, indented, or has lost its line breaks", len(blocks), begun)
	}
	for i, block := range blocks {
		if err := f.addBlock(block); err != nil {
			return fmt.Errorf("PEM block %d: %w", i+1, err)
		}
	}
	return nil
}

func blocksOf(text string) []*pem.Block {
	var blocks []*pem.Block
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return blocks
		}
		blocks = append(blocks, block)
	}
}

func (f *findings) addBlock(block *pem.Block) error {
	if _, encrypted := block.Headers["Proc-Type"]; encrypted || block.Type == "ENCRYPTED PRIVATE KEY" {
		return errors.New("the private key is encrypted; store it without a passphrase, 'openssl pkey -in encrypted.pem -out key.pem' removes it")
	}
	switch block.Type {
	case labelCertificate:
		return f.addCertificate(block.Bytes)
	case labelPKCS8, labelPKCS1, labelSEC1:
		return f.addKey(privateKey{label: block.Type, der: secret.New(block.Bytes)})
	case "EC PARAMETERS": // openssl writes them before an EC key, which has them too
		return nil
	default:
		return fmt.Errorf("it is %s; keep certificates (%s) and a private key (%s, %s, %s)",
			kindOf(block), labelCertificate, labelPKCS8, labelPKCS1, labelSEC1)
	}
}

// kindOf names the block if its label is one in use: anything else may be a secret.
func kindOf(block *pem.Block) string {
	known := []string{
		"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST", "TRUSTED CERTIFICATE", "X509 CERTIFICATE", "X509 CRL", "PKCS7",
		"PUBLIC KEY", "RSA PUBLIC KEY", "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "DH PARAMETERS", "DSA PARAMETERS",
	}
	if !slices.Contains(known, block.Type) {
		return "of an unknown kind"
	}
	return "a " + block.Type
}
